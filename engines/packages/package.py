"""Model packages: a folder that says everything about a model, so that a new model needs no code.

The contract is ``docs/model-package.md``. Everything is checked when a package is loaded, not when the first patient
arrives.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from engines.errors import ModelPackageError
from engines.packages.description import Description, RadiographInput, VolumeInput
from engines.packages.external_data import has_external_data
from engines.packages.golden import Golden, Shape, read_golden
from engines.types import ModelIdentity, Segment

SHIPPED_MODELS = Path(__file__).parents[1] / "models"
"""The folder of the models that come with Wetread."""

FILES = ("model.toml", "golden.npz", "CARD.md")
"""What a package has beside its network."""

LARGEST_DESCRIPTION = 200_000
"""Bytes of ``model.toml``; one with 255 segments has 80 000. Reading TOML can take time with the square of it."""


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """One model: its folder, its checked description, and who it is.

    Attributes
    ----------
    folder
        The folder that holds ``model.toml``, the network (``model.onnx``), ``golden.npz`` and ``CARD.md``.
    description
        ``model.toml``, section by section.
    identity
        Name, version and digest, as they go into results.
    """

    folder: Path
    description: Description
    identity: ModelIdentity

    @property
    def name(self) -> str:
        """The model's name, which is also its folder's."""
        return self.identity.name

    @property
    def networks(self) -> tuple[Path, ...]:
        """The files that hold the network: one, or those of an ensemble, whose outputs are averaged."""
        return tuple(self.folder / name for name in self.description.network.files)

    def network_for(self, network: Path, precision: str) -> Path:
        """The file that is compiled for a precision: of ``NAME.onnx``, ``NAME.int8.onnx`` for ``int8``.

        Raises
        ------
        ModelPackageError
            The package has no quantised network.
        """
        if precision != "int8":
            return network
        quantised = network.with_suffix(".int8.onnx")
        if not quantised.is_file():
            raise ModelPackageError(
                f"{self.folder} has no {quantised.name}; make it with 'wetread engines quantise {self.name}', "
                "or choose another precision"
            )
        return quantised

    @property
    def quantised(self) -> bool:
        """Whether it has a quantised network beside each of its networks."""
        return all(network.with_suffix(".int8.onnx").is_file() for network in self.networks)

    @property
    def input(self) -> VolumeInput | RadiographInput:
        """Which series the model wants, and how its tensor is made."""
        return self.description.input

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """What the labels of a segmentation model mean, numbered from 1; empty where it has none."""
        section = self.description.segmentation
        return tuple(
            Segment(number, entry.label, entry.category.code, entry.type.code, entry.colour, laterality=entry.side)
            for number, entry in enumerate(section.segments if section else (), start=1)
        )

    @property
    def on_device(self) -> bool:
        """Whether its whole path can stay on a GPU: one label map of a volume, one channel, and nothing else."""
        section = self.description.segmentation
        return (
            isinstance(self.input, VolumeInput)
            and self.description.tasks == ("segmentation",)
            and section is not None
            and not section.overlapping
            and self.input.channels == 1
            and not self.input.standardise
            and self.input.crop_to is None
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """The grid of the golden input: ``(slice, row, column)`` of a patch, or ``(row, column)``."""
        return self.input.patch if isinstance(self.input, VolumeInput) else self.input.size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the golden input: ``[1, channel, slice, row, column]`` or ``[1, channel, row, column]``."""
        return (1, self.input.channels, *self.grid)

    @cached_property
    def described_outputs(self) -> Mapping[str, Shape]:
        """Shape of every output for the golden input, by the tensor's name, as far as ``model.toml`` tells."""
        described, shapes = self.description, dict[str, Shape]()
        if segmentation := described.segmentation:
            channels = len(segmentation.segments) + (0 if segmentation.overlapping else 1)
            shapes[segmentation.tensor] = (1, channels, *self.grid)
        if classification := described.classification:
            shapes[classification.tensor] = (1, len(classification.classes))
            if classification.activation is not None:
                shapes[classification.activation] = (1, len(classification.classes), *[None] * len(self.grid))
        if detection := described.detection:
            numbers = len(self.grid) * (1 if detection.format == "points" else 2)
            shapes[detection.places] = (1, None, numbers)
            shapes[detection.scores] = (1, None, len(detection.classes))
        return shapes

    def output_shapes(
        self, grid: tuple[int, ...] | None = None, batch: int = 1
    ) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of every output of the network, by the tensor's name.

        What ``model.toml`` does not tell is that of the golden outputs, or None on another grid than theirs.

        Parameters
        ----------
        grid
            One of ``input.grids``; that of the golden input if None.
        batch
            How many inputs there are at once.
        """
        known = self._golden_shapes if grid in (None, self.grid) else self.described_outputs
        segmentation = self.description.segmentation
        shapes = {name: (batch, *shape[1:]) for name, shape in known.items()}
        if segmentation and grid is not None:
            shapes[segmentation.tensor] = (*shapes[segmentation.tensor][:2], *grid)
        return shapes

    @cached_property
    def _golden_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.golden().outputs.items()}

    def golden(self) -> Golden:
        """Read the golden input and outputs.

        Raises
        ------
        ModelPackageError
            ``golden.npz`` cannot be read, lacks an array, or an array's shape is not the described one.
        """
        return read_golden(self.folder / "golden.npz", self.input.tensor, self.input_shape, self.described_outputs)


def load_package(folder: Path) -> ModelPackage:
    """Load and check one model package.

    Parameters
    ----------
    folder
        The package's folder.

    Raises
    ------
    ModelPackageError
        A file is missing or unreadable, a key is missing, unknown or has a bad value, the name is not the folder's,
        or the golden arrays do not have the described shapes.
    """
    folder = folder.resolve()
    _require_files(folder, FILES)
    described = _read_description(folder / "model.toml")
    _require_files(folder, described.network.files)
    identity = described.identity
    if identity.name != folder.name:
        raise ModelPackageError(
            f"{folder / 'model.toml'}: identity.name is {identity.name!r}, but the folder is {folder.name!r}; "
            "give both the same name"
        )
    digests = [_digest(folder / name) for name in described.network.files]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digest.digest() for digest in digests))
    package = ModelPackage(
        folder,
        described,
        ModelIdentity(
            name=identity.name,
            version=identity.version,
            digest=whole.hexdigest(),
            uid_root=identity.uid_root,
            licence=identity.licence,
            intended_use=identity.intended_use,
        ),
    )
    for network in package.networks if package.quantised else ():
        _digest(package.network_for(network, "int8"))
    package.golden()
    return package


def load_packages(*folders: Path) -> dict[str, ModelPackage]:
    """Load every model package in these folders, by name.

    Parameters
    ----------
    folders
        Folders whose subfolders are model packages. A subfolder without ``model.toml`` is no model package.

    Raises
    ------
    ModelPackageError
        A folder does not exist, a package is wrong, two packages share a name or a ``uid_root``, or ``crop_to`` names
        a model that is not there or has no segments.
    """
    packages: dict[str, ModelPackage] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ModelPackageError(f"the model folder {folder} does not exist; create it or correct engines.folders")
        for path in sorted(folder.glob("*/model.toml")):
            package = load_package(path.parent)
            if package.name in packages:
                raise ModelPackageError(
                    f"{path}: identity.name {package.name!r} is also in {packages[package.name].folder}; rename one"
                )
            packages[package.name] = package
    _check_uid_roots(packages.values())
    check_crops(packages)
    return packages


def check_crops(packages: Mapping[str, ModelPackage]) -> None:
    """Check that every model whose label map another model is cropped to is there.

    Raises
    ------
    ModelPackageError
        ``crop_to`` names a model that is not among the packages, or that has no label map of the same kind of image.
    """
    for package in packages.values():
        _check_crop(package, packages)


def _digest(network: Path) -> "hashlib._Hash":
    try:
        content = network.read_bytes()
    except OSError as error:
        raise ModelPackageError(f"{network} cannot be read ({error.strerror}); see its permissions") from error
    if has_external_data(content):
        raise ModelPackageError(
            f"{network} keeps weights in other files, which its digest would not cover; store them within "
            "(onnx.save_model(onnx.load(FILE), FILE), or 'wetread engines import onnx')"
        )
    return hashlib.sha256(content)


def _require_files(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise ModelPackageError(
                f"{folder} has no {name}; a model package needs {', '.join(FILES)} and the files of its network"
            )


def _read_description(path: Path) -> Description:
    try:
        if (size := path.stat().st_size) > LARGEST_DESCRIPTION:
            raise ModelPackageError(
                f"{path} has {size} bytes, and a description at most {LARGEST_DESCRIPTION}; this is something else"
            )
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelPackageError(f"{path} cannot be read ({error.strerror}); see its permissions") from error
    except (ValueError, RecursionError) as error:  # not TOML, no text, a number of 5000 digits, 5000 brackets
        raise ModelPackageError(f"{path} is not valid TOML: {error}; correct that place") from error
    try:
        return Description.model_validate(document)
    except ValidationError as error:
        raise ModelPackageError(f"{path}: {Description.explain(error)}") from error


def _check_uid_roots(packages: Iterable[ModelPackage]) -> None:
    owners: dict[str, ModelPackage] = {}
    for package in packages:
        owner = owners.setdefault(package.identity.uid_root, package)
        if owner is not package:
            raise ModelPackageError(
                f"{package.folder / 'model.toml'}: identity.uid_root {package.identity.uid_root!r} is also that of "
                f"{owner.name}; give each model its own, or their results get the same UIDs"
            )


def _check_crop(package: ModelPackage, packages: Mapping[str, ModelPackage]) -> None:
    if package.input.crop_to is None:
        return
    name, key = package.input.crop_to, f"{package.folder / 'model.toml'}: input.crop_to {package.input.crop_to!r}"
    other = packages.get(name)
    if other is None:
        raise ModelPackageError(f"{key} is not a model here; add it or choose one of {', '.join(sorted(packages))}")
    if not other.segments or type(other.input) is not type(package.input) or other.input.crop_to is not None:
        kind = "an X-ray" if isinstance(package.input, RadiographInput) else "a volume"
        raise ModelPackageError(
            f"{key} must be a segmentation model of {kind} that needs no crop itself; choose another"
        )
