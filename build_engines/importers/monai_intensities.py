"""What the transforms of a MONAI bundle do to an image's values, as keys of ``[input]``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from build_engines.importers.draft import UNCLIPPED, Remark
from engines.errors import ModelPackageError

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


Translation = Callable[[Preparation, Values, bool], Preparation]
"""Adds to a preparation what a transform with these arguments does; the last says whether it is one of volumes."""


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


INTENSITIES: Mapping[str, Translation] = {
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ScaleIntensity": _scale_least_to_largest,
    "NormalizeIntensity": _normalise,
    "ThresholdIntensity": _threshold,
}
