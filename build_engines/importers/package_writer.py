"""The last step of every import: normalise, write, load, verify; only then the package is there."""

import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from build_engines.importers.card import card
from build_engines.importers.draft import Draft, Remark, Segmentation, label_remarks
from build_engines.importers.golden_input import golden_input
from build_engines.importers.normalise import normalise, run
from build_engines.importers.toml_text import model_toml
from build_engines.recipes.packaging.files import SMALLEST, halve
from engines.errors import ModelPackageError
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.verify import Verification, verify

FIRST_UID_ROOT = 100
"""Smaller numbers are left to the models that come with Wetread."""

HALVED_ERROR = 0.01
"""How far FP16 weights may move a probability; beyond it the weights stay FP32."""

ALIKE = 0.9999
"""Part of the voxels whose label must not change where golden probabilities are stored as FP16."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Imported:
    """A package that was written, loaded and verified."""

    package: ModelPackage
    verification: Verification
    remarks: tuple[Remark, ...]


def write_package(
    draft: Draft,
    out: Path,
    *,
    golden: Path | None = None,
    uid_root: str | None = None,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Imported:
    """Write a package into a folder of packages.

    Parameters
    ----------
    out
        Folder of model packages (``engines.folders`` of a node's settings); the package is ``out / draft.name``.
    golden
        An image for ``golden.npz``, see `golden_input`.
    uid_root
        If None, that of the package that is replaced, or a free number.
    force
        Whether a package of this name that is there is replaced.

    Raises
    ------
    ModelPackageError
        The package is there already, the name or ``uid_root`` is taken, or the network cannot be brought to shape.
    EngineMismatch
        OpenVINO does not give the reference's answers.
    """
    target = out / draft.name
    _require_free(draft, target, force)
    root = uid_root or _uid_roots([out]).get(target) or free_uid_root(out)
    _require_free_root(root, out, target)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".importing-", dir=out) as scratch:
        folder = Path(scratch) / draft.name
        folder.mkdir()
        progress("golden input")
        image = golden_input(draft, golden)
        draft, networks = _networks(draft, image, progress)
        for name, model in networks.items():
            onnx.save_model(model, folder / name)
        answers = [run(onnx.load(folder / name), image) for name in networks]
        outputs = {name: np.mean([answer[name] for answer in answers], axis=0) for name in answers[0]}
        np.savez_compressed(folder / "golden.npz", allow_pickle=False, **_stored(draft, image, outputs))
        draft = draft.remarked(*_golden_remarks(draft, outputs, golden), *label_remarks(draft), *_routing_remark(draft))
        (folder / "model.toml").write_text(model_toml(draft, root), encoding="utf-8")
        (folder / "CARD.md").write_text(card(draft), encoding="utf-8")
        progress("verification on OpenVINO")
        with create_engine(load_package(folder), RuntimeSettings()) as engine:
            verification = verify(load_package(folder), engine).require()
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    return Imported(load_package(target), verification, draft.remarks)


def slug(text: str) -> str:
    """Make a package's name of what a model is called."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "model"


def free_uid_root(*folders: Path) -> str:
    """Give a number that no package in these folders, nor a shipped one, has."""
    taken = [int(root) for root in _uid_roots(folders).values() if root.isdigit()]
    return str(max([FIRST_UID_ROOT - 1, *taken]) + 1)


def _uid_roots(folders: Sequence[Path]) -> Mapping[Path, str]:
    roots: dict[Path, str] = {}
    for path in (path for folder in (SHIPPED_MODELS, *folders) for path in sorted(folder.glob("*/model.toml"))):
        try:
            identity = tomllib.loads(path.read_text(encoding="utf-8")).get("identity", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue
        roots[path.parent] = str(identity.get("uid_root", ""))
    return roots


def _require_free(draft: Draft, target: Path, force: bool) -> None:
    if slug(draft.name) != draft.name:
        raise ModelPackageError(
            f"{draft.name!r} cannot be a package's name, which has small letters, digits and hyphens; "
            f"{slug(draft.name)!r} can: give it with --name"
        )
    if (SHIPPED_MODELS / draft.name).is_dir():
        raise ModelPackageError(f"{draft.name} is the name of a model that comes with Wetread; give another --name")
    if target.exists() and not force:
        raise ModelPackageError(f"{target} exists and is left alone; remove it, give another --name, or --force")
    if target.exists() and not (target / "model.toml").is_file():
        raise ModelPackageError(f"{target} is no model package and is not replaced; give another --name or --out")


def _require_free_root(root: str, out: Path, target: Path) -> None:
    for folder, taken in _uid_roots([out]).items():
        if taken == root and folder != target:
            raise ModelPackageError(
                f"uid_root {root} is that of {folder.name}; leave --uid-root out, and a free number is taken"
            )


def _networks(
    draft: Draft, image: NDArray[np.float32], progress: Progress
) -> tuple[Draft, Mapping[str, onnx.ModelProto]]:
    networks, remarks = {}, dict[Remark, None]()
    for number, (name, source) in enumerate(draft.networks.items(), start=1):
        progress(f"network {number} of {len(draft.networks)}")
        normal = normalise(source, draft.shape, draft.outputs, image, axes_swapped=draft.axes_swapped)
        networks[name], further = _small(normal.model, image)
        remarks.update(dict.fromkeys((*normal.remarks, *further)))
    return replace(draft, remarks=(*draft.remarks, *remarks)), networks


def _small(model: onnx.ModelProto, image: NDArray[np.float32]) -> tuple[onnx.ModelProto, tuple[Remark, ...]]:
    """Store the weights as FP16, if that changes the answers no more than rounding does."""
    weights = [weight for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT]
    large = [weight for weight in weights if np.prod(weight.dims) >= SMALLEST]
    if not large:
        return model, ()
    if any(np.abs(numpy_helper.to_array(weight)).max() > np.finfo(np.float16).max for weight in large):
        return model, (Remark("to check", "weights", "too large for FP16, kept as FP32: a GPU needs precision fp32"),)
    whole = run(model, image)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    small = halve(copy)
    halved = run(small, image)
    error = max(float(np.abs(halved[name] - whole[name]).max()) for name in whole if name != "places")
    if error > HALVED_ERROR:
        return model, (
            Remark("to check", "weights", f"as FP16 they would move a probability by {error:.3f}, so they stay FP32"),
        )
    changes = f"moves no probability by more than {error:.2g}" if error else "changes no answer"
    return small, (Remark("taken over", "weights", f"stored as FP16, which {changes}"),)


def _stored(
    draft: Draft, image: NDArray[np.float32], outputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float16] | NDArray[np.float32]]:
    stored: dict[str, NDArray[np.float16] | NDArray[np.float32]] = {"image": image.astype(np.float16)}
    for name, answer in outputs.items():
        half = answer.astype(np.float16)
        # places are pixels, of which FP16 holds those of a large image only to a quarter
        stored[name] = half if name != "places" and _labels_alike(half, answer) else answer.astype(np.float32)
    return stored


def _labels_alike(half: NDArray[np.float16], answer: NDArray[np.float32]) -> bool:
    """Whether rounding leaves the labels as they are; an unsure network has near ties everywhere."""
    alike = (half.argmax(axis=1) == answer.argmax(axis=1)) & ((half >= 0.5) == (answer >= 0.5)).all(axis=1)
    return float(np.mean(alike)) >= ALIKE


def _routing_remark(draft: Draft) -> tuple[Remark, ...]:
    if "body_part" in draft.input:
        return ()
    images = "CT series" if draft.is_volume else "X-ray"
    return (
        Remark("to check", "body_part", f"every {images} gets this model; say which should: body_part, view, plane"),
    )


def _golden_remarks(
    draft: Draft, outputs: Mapping[str, NDArray[np.float32]], golden: Path | None
) -> tuple[Remark, ...]:
    kind = "a synthetic chest" if golden is None else golden.name
    remarks = [Remark("assumed" if golden is None else "taken over", "golden.npz", f"made of {kind}")]
    for head in draft.heads:
        if isinstance(head, Segmentation):
            answer = outputs[head.outputs[0].name]
            here = (answer[0] >= 0.5).reshape(len(answer[0]), -1).any(axis=1) if head.overlapping else None
            found = int(here.sum()) if here is not None else len(set(np.unique(answer.argmax(axis=1))) - {0})
            if found < len(head.labels):
                remarks.append(
                    Remark(
                        "to check",
                        "golden.npz",
                        f"{found} of {len(head.labels)} segments are in it, so that verification sees little of the "
                        "others; import again with --golden IMAGE, a public image that shows them",
                    )
                )
    return tuple(remarks)
