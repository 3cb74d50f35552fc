"""What the transforms of a MONAI bundle mean for ``[input]`` and for the heads of a package.

Each transform that changes the image is translated, or named in an error; each that does not (loading, types, devices)
is passed over; each that Wetread leaves to its own way is named in a remark. Nothing is dropped without a word.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from build_engines.importers.bundle_config import Unresolved
from build_engines.importers.draft import Remark
from build_engines.importers.mistakes import told_as
from build_engines.importers.monai_intensities import INTENSITIES, Preparation, Translation, Values
from engines.errors import ModelPackageError

LETTERS = {"R": "R", "L": "L", "A": "A", "P": "P", "S": "H", "I": "F"}
"""NIfTI's letters for where an axis points to, as DICOM writes them (PS3.3 C.7.6.1.1.1)."""

WITHOUT_MEANING = frozenset({
    "AddChannel", "AsChannelFirst", "CastToType", "CopyItems", "DeleteItems", "EnsureChannelFirst", "EnsureType",
    "FromMetaTensor", "Identity", "Invert", "LoadImage", "RemoveKeys", "SaveImage", "SelectItems",
    "SqueezeDim", "ToDevice", "ToMetaTensor", "ToNumpy", "ToTensor",
})  # fmt: skip
"""Transforms that move values about and change none, or that Wetread does in its own place (saving, inverting)."""


@dataclass(frozen=True)
class Completion:
    """What the transforms after the network say."""

    activation: Literal["none", "softmax", "sigmoid"] = "none"
    arg_max: bool = False
    keep_largest: bool = False
    remarks: tuple[Remark, ...] = ()


def read_preprocessing(steps: Iterable[Values], volume: bool, file: str, *, intensities: bool = True) -> Preparation:
    """Translate the transforms before the network.

    Parameters
    ----------
    steps
        Resolved, each with ``_target_``.
    volume
        Whether the bundle takes volumes, not X-rays.
    file
        For errors.
    intensities
        False if whoever imports says how values are scaled; then those transforms are passed over.

    Raises
    ------
    ModelPackageError
        A transform changes the image in a way that a package cannot describe, or has a value that is not understood.
    """
    prepared = Preparation()
    for step in steps:
        name = transform_name(step)
        if name in WITHOUT_MEANING or (name in INTENSITIES and not intensities):
            continue
        if name in INTENSITIES or name in SPACE:
            with told_as(f"{file}: {step.get('_target_')}"):
                prepared = (INTENSITIES.get(name) or SPACE[name])(prepared, _checked(step, file), volume)
        else:
            raise ModelPackageError(
                f"{file}: nothing in model.toml says what the transform {step.get('_target_')} does to the image; "
                "make the network do it, or import the network alone with 'wetread engines import onnx'"
            )
    return prepared


def read_postprocessing(steps: Sequence[Values], file: str) -> Completion:
    """Translate the transforms after the network; those that are not understood are named in remarks."""
    done = Completion()
    for step in steps:
        name = transform_name(step)
        if name in WITHOUT_MEANING:
            continue
        values = _checked(step, file) if name in ("Activations", "AsDiscrete") else dict(step)
        if name == "Activations":
            done = replace(
                done, activation="softmax" if values.get("softmax") else "sigmoid" if values.get("sigmoid") else "none"
            )
            if values.get("other") is not None:
                raise ModelPackageError(
                    f"{file}: Activations.other is the bundle's own code; only softmax and sigmoid are known"
                )
        elif name == "AsDiscrete":
            done = replace(done, arg_max=bool(values.get("argmax")))
            threshold = values.get("threshold", values.get("threshold_values"))
            if isinstance(threshold, int | float) and threshold not in (True, False, 0.5):
                done = _noted(done, f"its threshold is {threshold}, Wetread's is 0.5")
        elif name == "KeepLargestConnectedComponent":
            done = replace(done, keep_largest=True)
            if values.get("applied_labels") is not None:
                done = _noted(done, "the source keeps the largest component of some labels, Wetread of each")
        else:
            done = _noted(done, f"the transform {step.get('_target_')} after the network is not done")
    return done


def transform_name(step: Values) -> str:
    """Give the plain name of a transform: of ``monai.transforms.Orientationd`` and the like ``Orientation``."""
    name = str(step.get("_target_", "")).rpartition(".")[2]
    known = WITHOUT_MEANING | INTENSITIES.keys() | SPACE.keys() | AFTER
    for ending in ("Dict", "D", "d"):
        if name.endswith(ending) and name.removesuffix(ending) in known:
            return name.removesuffix(ending)
    return name


AFTER = frozenset({"Activations", "AsDiscrete", "KeepLargestConnectedComponent"})


def _noted(done: Completion, text: str) -> Completion:
    return replace(done, remarks=(*done.remarks, Remark("to check", "postprocessing", text)))


def _checked(step: Values, file: str) -> dict[str, Any]:
    for key, value in step.items():
        for unknown in _unresolved(value):
            raise ModelPackageError(
                f"{file}: {step.get('_target_')}.{key} is {unknown.text!r}, which is not evaluated because it is code; "
                "write its value into a copy of the bundle"
            )
    return dict(step)


def _unresolved(value: Any) -> Iterator[Unresolved]:
    match value:
        case Unresolved():
            yield value
        case list() | tuple():
            for each in value:
                yield from _unresolved(each)


def _orientation(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    codes = str(values.get("axcodes", "RAS")).upper()
    if not volume:
        return prepared.remarked("left out", "Orientation", f"{codes}: an X-ray is turned upright by its own header")
    return replace(prepared, axes="".join(LETTERS.get(letter, letter) for letter in codes))


def _spacing(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    if not volume:
        return prepared.remarked("left out", "Spacing", "an X-ray is scaled to the network's size")
    given = values.get("pixdim", 1.0)
    lengths = [float(each) for each in given] if isinstance(given, list) else [float(given)] * 3
    if len(lengths) != 3 or min(lengths) <= 0:
        raise ModelPackageError(f"Spacing.pixdim is {given}, but a package has a grid of three lengths above 0")
    return replace(prepared, spacing=(lengths[0], lengths[1], lengths[2]))


def _resize(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    size = values.get("spatial_size")
    if volume or not isinstance(size, list) or len(size) != 2 or values.get("size_mode", "all") != "all":
        raise ModelPackageError(
            f"Resize to {size}: a package scales volumes by their spacing in mm, and X-rays to rows and columns; "
            "train with Spacing, or make the network resize"
        )
    rows, columns = (int(size[1]), int(size[0])) if prepared.axes_swapped else (int(size[0]), int(size[1]))
    return replace(prepared, size=(rows, columns))


def _crop_foreground(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    return prepared.remarked(
        "left out", "CropForeground", "the whole image is given; windows may lie elsewhere than in the source"
    )


def _padding(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    return prepared.remarked("left out", "padding", "Wetread pads to the patch by itself, on both sides")


def _repeat_channel(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    return replace(prepared, channels=int(values.get("repeats", 1)))


def _transpose(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    if volume or list(values.get("indices", [])) not in ([0, 2, 1], (0, 2, 1)):
        raise ModelPackageError(f"Transpose {values.get('indices')} is understood for X-rays as [0, 2, 1] only")
    return replace(prepared, axes_swapped=not prepared.axes_swapped)


SPACE: Mapping[str, Translation] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "Resize": _resize,
    "CropForeground": _crop_foreground,
    "DivisiblePad": _padding,
    "SpatialPad": _padding,
    "RepeatChannel": _repeat_channel,
    "Transpose": _transpose,
}
