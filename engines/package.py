"""Model packages: a folder that says everything about a model, so that a new model needs no code.

The contract is ``docs/model-package.md``. Everything is checked when a package is loaded, not when the first patient
arrives.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from engines.description import Description, RadiographInput, VolumeInput
from engines.errors import ModelPackageError
from engines.golden import Golden, read_golden
from engines.types import ClassProbability, ModelIdentity, Segment

SHIPPED_MODELS = Path(__file__).parent / "models"
"""The folder of the models that come with Wetread."""

FILES = ("model.toml", "model.onnx", "golden.npz", "CARD.md")


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """One model: its folder, its checked description, and who it is.

    Attributes
    ----------
    folder
        The folder that holds ``model.toml``, ``model.onnx``, ``golden.npz`` and ``CARD.md``.
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
    def onnx(self) -> Path:
        """The network's file."""
        return self.folder / "model.onnx"

    @property
    def input(self) -> VolumeInput | RadiographInput:
        """Which series the model wants, and how its tensor is made."""
        return self.description.input

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """What the labels of a segmentation model mean, numbered from 1; empty for a classifier."""
        return tuple(
            Segment(number, entry.label, entry.category.code, entry.type.code, entry.colour, laterality=entry.side)
            for number, entry in enumerate(self.description.output.segments, start=1)
        )

    def classes(
        self, probabilities: NDArray[np.float32], activations: Sequence[NDArray[np.uint8]] | None = None
    ) -> tuple[ClassProbability, ...]:
        """Name the probabilities of a classifier, shape ``[class]``, and its activation maps, in channel order."""
        entries = self.description.output.classes
        maps: Sequence[NDArray[np.uint8] | None] = activations or [None] * len(entries)
        return tuple(
            ClassProbability(entry.label, entry.code.code, float(probability), activation)
            for entry, probability, activation in zip(entries, probabilities, maps, strict=True)
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input: ``[1, 1, slice, row, column]`` or ``[1, 1, row, column]``."""
        grid = self.input.patch if isinstance(self.input, VolumeInput) else self.input.size
        return (1, 1, *grid)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the network's probabilities: ``[1, 1 + segments, …grid]`` or ``[1, classes]``."""
        if self.description.identity.task == "classification":
            return (1, len(self.description.output.classes))
        return (1, 1 + len(self.segments), *self.input_shape[2:])

    @cached_property
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every output of the network, by the tensor's name.

        The grid of activation maps is that of the golden ones: only the network knows how much it shrinks an image.
        """
        output = self.description.output
        shapes = {output.tensor: self.output_shape}
        activation = self.golden().activation if output.activation else None
        return shapes if activation is None else {**shapes, str(output.activation): activation.shape}

    def golden(self) -> Golden:
        """Read the golden input and outputs.

        Raises
        ------
        ModelPackageError
            ``golden.npz`` cannot be read, lacks an array, or an array's shape is not the described one.
        """
        activation = self.description.output.activation is not None
        return read_golden(self.folder / "golden.npz", self.input_shape, self.output_shape, activation)


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
    for name in FILES:
        if not (folder / name).is_file():
            raise ModelPackageError(f"{folder} has no {name}; a model package needs {', '.join(FILES)}")
    described = _read_description(folder / "model.toml")
    identity = described.identity
    if identity.name != folder.name:
        raise ModelPackageError(
            f"{folder / 'model.toml'}: identity.name is {identity.name!r}, but the folder is {folder.name!r}; "
            "give both the same name"
        )
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    package = ModelPackage(
        folder,
        described,
        ModelIdentity(
            name=identity.name,
            version=identity.version,
            digest=digest,
            uid_root=identity.uid_root,
            licence=identity.licence,
            intended_use=identity.intended_use,
        ),
    )
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
        ``crop_to`` names a model that is not among the packages, or that has no label map of an X-ray.
    """
    for package in packages.values():
        _check_crop(package, packages)


def _read_description(path: Path) -> Description:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    if not isinstance(package.input, RadiographInput) or package.input.crop_to is None:
        return
    name, key = package.input.crop_to, f"{package.folder / 'model.toml'}: input.crop_to {package.input.crop_to!r}"
    other = packages.get(name)
    if other is None:
        raise ModelPackageError(f"{key} is not a model here; add it or choose one of {', '.join(sorted(packages))}")
    if not other.segments or not isinstance(other.input, RadiographInput) or other.input.crop_to is not None:
        raise ModelPackageError(f"{key} must be an X-ray segmentation model that needs no crop itself; choose another")
