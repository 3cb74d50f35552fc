"""What the transforms of a MONAI bundle mean for ``[input]`` and for the heads of a package.

Each transform that changes the image is translated, or named in an error; each that does not (loading, types, devices)
is passed over; each that Wetread leaves to its own way is named in a remark. Nothing is dropped without a word.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from build_engines.importers.bundle_config import Unresolved
from build_engines.importers.draft import UNCLIPPED, Remark
from engines.errors import ModelPackageError

LETTERS = {"R": "R", "L": "L", "A": "A", "P": "P", "S": "H", "I": "F"}
"""NIfTI's letters for where an axis points to, as DICOM writes them (PS3.3 C.7.6.1.1.1)."""

WITHOUT_MEANING = frozenset({
    "AddChannel", "AsChannelFirst", "CastToType", "CopyItems", "DeleteItems", "EnsureChannelFirst", "EnsureType",
    "FromMetaTensor", "Identity", "Invert", "LoadImage", "RemoveKeys", "SaveImage", "SelectItems",
    "SqueezeDim", "ToDevice", "ToMetaTensor", "ToNumpy", "ToTensor",
})  # fmt: skip
"""Transforms that move values about and change none, or that Wetread does in its own place (saving, inverting)."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Intensities:
    """How values become the network's: clipped to ``window``, then ``(value - mean) / deviation``, or standardised.

    ``window`` is in HU for a CT; None where the source does not clip. ``percentiles`` are those of an X-ray, whose
    values count from 0 to 1 after them.
    """

    window: tuple[float, float] | None = None
    mean: float = 0.0
    deviation: float = 1.0
    standardise: bool = False
    percentiles: tuple[float, float] | None = None
    known: bool = False

    def keys(self, volume: bool) -> dict[str, Any]:
        """The keys of ``[input]``."""
        keys: dict[str, Any] = {}
        low, high = (self.window or UNCLIPPED) if volume else (0.0, 1.0)
        if volume:
            keys["window"] = [low, high]
        else:
            keys["percentiles"] = list(self.percentiles or (0.0, 100.0))
        if self.standardise:
            keys["standardise"] = True
        elif volume and self.window is None:
            keys |= {"mean": [self.mean], "deviation": [self.deviation]}
        else:
            bounds = [round((edge - self.mean) / self.deviation, 9) + 0.0 for edge in (low, high)]
            keys |= {"range": bounds} if bounds != [0.0, 1.0] else {}
        return keys


@dataclass(frozen=True)
class Preparation:
    """What the transforms before the network say."""

    axes: str | None = None
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None
    channels: int = 1
    intensities: Intensities = field(default_factory=Intensities)
    axes_swapped: bool = True
    remarks: tuple[Remark, ...] = ()

    def remarked(self, kind: Literal["assumed", "left out", "to check"], what: str, text: str) -> "Preparation":
        """Give the same with one more remark."""
        return replace(self, remarks=(*self.remarks, Remark(kind, what, text)))


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
        if name in WITHOUT_MEANING:
            continue
        if name in INTENSITIES:
            if intensities:
                prepared = INTENSITIES[name](prepared, _checked(step, file), volume)
        elif name in SPACE:
            prepared = SPACE[name](prepared, _checked(step, file), volume)
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


def _scale_range(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    now = prepared.intensities
    _require_plain(now, values)
    low, high = float(values["a_min"]), float(values["a_max"])
    bottom, top = _bounds(values)
    deviation = (high - low) / (top - bottom)
    if not volume:
        prepared = prepared.remarked(
            "assumed",
            "percentiles",
            f"the source takes values of {low:g} to {high:g}; an X-ray's are not of a fixed range, so its least and "
            "largest are taken for them",
        )
        return replace(
            prepared, intensities=Intensities(None, -bottom / (top - bottom), 1 / (top - bottom), known=True)
        )
    clipped = (low, high) if values.get("clip") else None
    if now.window is not None:
        clipped = (max(low, now.window[0]), min(high, now.window[1])) if clipped else now.window
    return replace(prepared, intensities=Intensities(clipped, low - bottom * deviation, deviation, known=True))


def _scale_percentiles(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    if volume:
        raise ModelPackageError(_own_range("ScaleIntensityRangePercentiles"))
    _require_plain(prepared.intensities, values)
    bottom, top = _bounds(values)
    if not values.get("clip"):
        prepared = prepared.remarked("to check", "percentiles", "the source does not clip at them, Wetread does")
    return replace(
        prepared,
        intensities=Intensities(
            None,
            -bottom / (top - bottom),
            1 / (top - bottom),
            percentiles=(float(values["lower"]), float(values["upper"])),
            known=True,
        ),
    )


def _scale_least_to_largest(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    if volume:
        raise ModelPackageError(_own_range("ScaleIntensity"))
    now = prepared.intensities
    if values.get("factor") is not None and values.get("minv") is None:
        raise ModelPackageError("ScaleIntensity.factor is not understood; make the network do it")
    bottom, top = (float(values.get(key, value)) for key, value in (("minv", 0.0), ("maxv", 1.0)))
    # least to largest of what was mapped linearly before is least to largest of the image
    return replace(
        prepared,
        intensities=replace(
            now, mean=-bottom / (top - bottom), deviation=1 / (top - bottom), standardise=False, known=True
        ),
    )


def _normalise(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    now = prepared.intensities
    subtrahend, divisor = (_only(values.get(key)) for key in ("subtrahend", "divisor"))
    if (subtrahend is None) != (divisor is None):
        raise ModelPackageError("NormalizeIntensity has a subtrahend or a divisor alone; only both are understood")
    if values.get("nonzero"):
        prepared = prepared.remarked(
            "to check", "NormalizeIntensity", "the source leaves out voxels of 0, Wetread counts and scales all"
        )
    if subtrahend is None or divisor is None:
        return replace(prepared, intensities=replace(now, standardise=True, known=True))
    if now.standardise:
        raise ModelPackageError("NormalizeIntensity is there twice; keep one")
    # (y - s) / d of y = (x - mean) / deviation
    return replace(
        prepared,
        intensities=replace(
            now, mean=now.mean + subtrahend * now.deviation, deviation=now.deviation * divisor, known=True
        ),
    )


def _threshold(prepared: Preparation, values: Values, volume: bool) -> Preparation:
    now, edge = prepared.intensities, float(values["threshold"])
    if not volume or float(values.get("cval", 0.0)) != edge:
        raise ModelPackageError("ThresholdIntensity is understood for volumes, with cval = threshold: as clipping")
    # in HU, whatever was scaled before
    edge = edge * now.deviation + now.mean
    low, high = now.window or UNCLIPPED
    clipped = (max(low, edge), high) if values.get("above", True) else (low, min(high, edge))
    return replace(prepared, intensities=replace(now, window=clipped))


def _only(value: Any) -> float | None:
    if isinstance(value, list):
        if len(set(value)) > 1:
            raise ModelPackageError("NormalizeIntensity has a value for each channel; a package has one image")
        value = value[0] if value else None
    return None if value is None else float(value)


def _bounds(values: Values) -> tuple[float, float]:
    bottom, top = values.get("b_min"), values.get("b_max")
    if (bottom is None) != (top is None):
        raise ModelPackageError("b_min and b_max need each other")
    return (0.0, 1.0) if bottom is None or top is None else (float(bottom), float(top))


def _require_plain(now: Intensities, values: Values) -> None:
    if now.known:
        raise ModelPackageError(
            f"{values.get('_target_')} follows another transform of the values; only the first can be described: "
            "say with --set window=LOW,HIGH and range=LOW,HIGH (or mean and deviation) what both do"
        )


def _own_range(name: str) -> str:
    return (
        f"{name} scales every volume by its own values, which a package cannot describe: it has one window for all; "
        "give a window that comes near it with --set window=LOW,HIGH --set range=LOW,HIGH, and check the results"
    )


Translation = Callable[[Preparation, Values, bool], Preparation]

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
INTENSITIES: Mapping[str, Translation] = {
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ScaleIntensity": _scale_least_to_largest,
    "NormalizeIntensity": _normalise,
    "ThresholdIntensity": _threshold,
}
