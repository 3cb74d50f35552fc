"""MONAI bundles: ``configs/metadata.json``, ``configs/inference.json`` and ``models/model.onnx`` or ``model.ts``.

The layout and the metadata are those of https://docs.monai.io/en/stable/mb_specification.html. MONAI itself is not
needed, and nothing that the bundle holds is run, but for a TorchScript network with ``--trust``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from build_engines.importers.bundle_config import BundleConfig, Unresolved, read_config
from build_engines.importers.bundle_files import METADATA, licence_of, unpacked
from build_engines.importers.bundle_metadata import as_mapping, card_of, head_of, require_modality, tensors_of
from build_engines.importers.choices import Choices, terms_remark
from build_engines.importers.draft import Draft, Remark
from build_engines.importers.mistakes import told_as
from build_engines.importers.monai_intensities import Preparation
from build_engines.importers.monai_transforms import (
    read_postprocessing,
    read_preprocessing,
    transform_name,
)
from build_engines.importers.onnx_file import load_onnx
from build_engines.importers.package_writer import slug
from engines.errors import ModelPackageError

INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
Values = Mapping[str, Any]


def read_bundle(source: Path, choices: Choices) -> Draft:
    """Read a bundle.

    Parameters
    ----------
    source
        Its folder, or the folder zipped.

    Raises
    ------
    ModelPackageError
        It is no bundle, or does what a package cannot describe; the message names file, key and fix.
    """
    with unpacked(source) as root:
        metadata = as_mapping(read_config(root / METADATA), METADATA)
        path = next((root / name for name in INFERENCE if (root / name).is_file()), None)
        if path is None:
            raise ModelPackageError(f"{source} has none of {', '.join(INFERENCE)}; a bundle needs one")
        config = BundleConfig(as_mapping(read_config(path), path.name), path.name)
        with told_as(f"{METADATA} or {path.name}"):
            return _draft(root, source, metadata, config, choices)


def _draft(root: Path, source: Path, metadata: Values, config: BundleConfig, choices: Choices) -> Draft:
    image, prediction = tensors_of(metadata)
    volume = len(image.get("spatial_shape") or ()) != 2
    require_modality(image, volume)
    steps = _steps(config, "preprocessing")
    if steps is None:
        raise ModelPackageError(f"{config.name} has no 'preprocessing' that can be read; name its transforms there")
    prepared = read_preprocessing(_of_image(steps), volume, config.name, intensities=not choices.intensities)
    done = read_postprocessing(_steps(config, "postprocessing") or (), config.name)
    head, head_remarks = head_of(prediction, done, choices)
    keys, input_remarks = _input(config, image, prepared, volume, choices)
    name = choices.name or slug(str(metadata.get("name") or source.stem))
    licence = choices.licensed(licence_of(root))
    grid = keys["patch"] if volume else keys["size"]
    swapped = not volume and prepared.axes_swapped
    shape = (1, int(keys.get("channels", 1)), *(reversed(grid) if swapped else grid))
    return Draft(
        name=name,
        version=choices.version or str(metadata.get("version", "0.0.0")),
        licence=licence,
        intended_use=choices.intended(metadata.get("intended_use") or metadata.get("description")),
        source=f"the MONAI bundle {metadata.get('name') or source.stem} {metadata.get('version', '')}".strip(),
        networks={"model.onnx": _network(root, source, shape, choices)},
        input=keys,
        heads=(head,),
        axes_swapped=swapped,
        remarks=(*input_remarks, *prepared.remarks, *head_remarks, *done.remarks, *terms_remark(licence)),
        card=card_of(metadata),
    )


def _input(
    config: BundleConfig, image: Values, prepared: Preparation, volume: bool, choices: Choices
) -> tuple[dict[str, Any], tuple[Remark, ...]]:
    remarks: list[Remark] = []
    if not volume:
        size = prepared.size or _grid(image.get("spatial_shape"))
        if size is None or len(size) != 2:
            raise ModelPackageError(f"{METADATA}: inputs.image.spatial_shape must have two lengths, or Resized a size")
        if prepared.size is None and prepared.axes_swapped:
            size = (size[1], size[0])
        keys: dict[str, Any] = {"modality": ["CR", "DX"], "size": list(size), "resize": "stretch"}
        keys |= {**(choices.intensities or prepared.intensities.keys(volume)), **choices.selection}
        keys |= {"channels": _channels(image, prepared, remarks)} if _channels(image, prepared, []) > 1 else {}
        remarks.append(Remark("taken over", "size", " × ".join(map(str, size))))
        if prepared.axes_swapped:
            remarks.append(
                Remark("assumed", "axes", "MONAI reads pictures column by column: the network's axes are exchanged")
            )
        return keys, tuple(remarks)
    if _channels(image, prepared, remarks) > 1 and prepared.channels == 1:
        raise ModelPackageError(
            f"{METADATA}: the network takes {image.get('num_channels')} channels; a package has one image (a CT series)"
        )
    axes = choices.axes or prepared.axes
    if axes is None:
        axes = "RAH"
        remarks.append(Remark("assumed", "axes", "the bundle has no Orientation: RAS, as most have; else --set axes=…"))
    spacing = choices.spacing_mm or prepared.spacing
    if spacing is None:
        raise ModelPackageError(
            f"{config.name} has no Spacing, so the size of a voxel is not known; give --set spacing_mm=X,Y,Z"
        )
    keys = {
        "modality": ["CT"],
        "minimum_slices": 10,
        **choices.selection,
        "spacing_mm": [float(length) for length in spacing],
        "axes": axes,
        **(choices.intensities or prepared.intensities.keys(volume)),
    }
    if prepared.channels > 1:
        keys["channels"] = prepared.channels
    if "window" not in keys:
        raise ModelPackageError("give --set window=LOW,HIGH too: a volume's values are clipped to it")
    if not choices.intensities and not prepared.intensities.known:
        remarks.append(Remark("to check", "intensities", "the bundle scales no values: the network is given HU"))
    keys |= _windows(config, image, choices, remarks)
    remarks.append(Remark("taken over", "grid", f"axes {axes}, {' × '.join(f'{length:g}' for length in spacing)} mm"))
    return keys, tuple(remarks)


def _windows(config: BundleConfig, image: Values, choices: Choices, remarks: list[Remark]) -> dict[str, Any]:
    inferer = config.get("inferer")
    inferer = inferer if isinstance(inferer, dict) else {}
    kind = transform_name(inferer)
    known = {key: value for key, value in inferer.items() if not isinstance(value, Unresolved)}
    patch = choices.patch or _grid(known.get("roi_size")) or _grid(image.get("spatial_shape"))
    if patch is None or len(patch) != 3:
        raise ModelPackageError(
            f"{config.name}: inferer.roi_size must have three lengths above 0; give --set patch=I,J,K"
        )
    keys: dict[str, Any] = {"patch": list(patch)}
    if kind not in ("SlidingWindowInferer", "SimpleInferer"):
        remarks.append(Remark("to check", "inferer", f"{kind or 'none'} is not known: windows of {list(patch)}"))
    elif kind == "SimpleInferer":
        remarks.append(Remark("to check", "inferer", "the source gives whole volumes; large ones are seen in windows"))
    overlap = known.get("overlap", 0.25)
    keys["overlap"] = float(overlap) if isinstance(overlap, int | float) and 0 <= overlap < 1 else 0.25
    keys["blend"] = "gaussian" if known.get("mode", "constant") == "gaussian" else "constant"
    if known.get("padding_mode", "constant") != "constant" or known.get("cval", 0.0) != 0.0:
        remarks.append(Remark("left out", "padding", f"{known.get('padding_mode')}: Wetread pads with 0"))
    remarks.append(Remark("taken over", "windows", f"{list(patch)}, overlap {keys['overlap']}, {keys['blend']}"))
    return keys


def _channels(image: Values, prepared: Preparation, remarks: list[Remark]) -> int:
    channels = image.get("num_channels", 1)
    channels = channels if isinstance(channels, int) else 1
    if channels > 1:
        remarks.append(Remark("to check", "channels", f"{channels}: each is given the same image"))
    return max(channels, prepared.channels)


def _steps(config: BundleConfig, key: str) -> Sequence[Values] | None:
    found = config.get(key)
    if isinstance(found, dict):
        found = found.get("transforms")
    if not isinstance(found, list):
        return None
    steps = [step for step in found if isinstance(step, dict)]
    if len(steps) != len(found):
        unknown = next(step for step in found if not isinstance(step, dict))
        told = unknown.text if isinstance(unknown, Unresolved) else repr(unknown)
        raise ModelPackageError(f"{config.name}: {key} has {told}, which is not evaluated because it is code")
    for step in steps:
        if isinstance(disabled := step.get("_disabled_"), Unresolved):
            raise ModelPackageError(
                f"{config.name}: whether {step.get('_target_')} is done depends on {disabled.text!r}, which is not "
                "evaluated because it is code; write true or false into a copy of the bundle"
            )
    return [step for step in steps if not step.get("_disabled_")]


def _of_image(steps: Sequence[Values]) -> Iterator[Values]:
    """Leave out what is done to labels alone."""
    for step in steps:
        keys = step.get("keys", "image")
        keys = keys if isinstance(keys, list) else [keys]
        if set(keys) - {"label", "mask", "pred"}:
            yield step


def _network(root: Path, source: Path, shape: tuple[int, ...], choices: Choices) -> Any:
    onnx_file, script = root / "models/model.onnx", root / "models/model.ts"
    if onnx_file.is_file():
        return load_onnx(onnx_file)
    if script.is_file():
        if not choices.trust:
            raise ModelPackageError(
                f"{source}: models/model.ts is TorchScript, which is a program that converting runs; if you trust its "
                "source, add --trust; or export models/model.onnx with 'python -m monai.bundle onnx_export'"
            )
        from build_engines.importers.torch_export import export_script

        return export_script(script, shape)
    raise ModelPackageError(
        f"{source} has neither models/model.onnx nor models/model.ts; make the first with "
        "'python -m monai.bundle onnx_export' in MONAI's own environment"
    )


def _grid(given: Any) -> tuple[int, ...] | None:
    """Read lengths; those that are -1 or a text such as ``16*n`` are not known."""
    lengths = given if isinstance(given, list) else [given] * 3
    if not all(isinstance(length, int) and length > 0 for length in lengths):
        return None
    return tuple(lengths)
