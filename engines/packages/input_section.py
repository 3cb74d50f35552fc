"""``[input]`` of ``model.toml``: which images a model wants, and how they become its network's tensor."""

from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from engines.packages.selection import (
    Length,
    Millimetres,
    Patterns,
    RadiographSelection,
    Section,
    Text,
    VolumeSelection,
)

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Percentile = Annotated[float, Field(ge=0.0, le=100.0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

LINE_OF = {"L": "x", "R": "x", "P": "y", "A": "y", "H": "z", "F": "z"}
"""Along which patient axis each letter of PatientOrientation lies."""

BRIDGED_STEPS = 3.0
"""Without ``max_gap_mm``, a volume model bridges so many steps of its own grid: more would be mostly invented."""


def _each_once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError(f"{list(axes)} names an axis twice; name each once")
    return axes


class TensorInput(Section):
    """What volumes and X-rays have in common: how values become the network's.

    Attributes
    ----------
    tensor
        Name of the network's input.
    channels
        How often the image is given, one channel beside the other; networks made for colour want it three times.
    range
        What the window is mapped to.
    mean, deviation
        Instead of ``range``: after clipping to the window, the mean is subtracted and the rest divided by the
        deviation. In the image's units (HU) for a volume, of 0..1 for an X-ray; one number each, or one a channel.
    standardise
        Instead of both: with the mean and deviation of each image itself, after clipping; an X-ray with its padding.
    crop_to
        A model to whose segments the image is cropped first.
    """

    tensor: Text
    channels: Length = 1
    range: tuple[Number, Number] | None = None
    mean: tuple[Number, ...] | None = None
    deviation: tuple[Positive, ...] | None = None
    standardise: bool = False
    crop_to: Text | None = None

    @model_validator(mode="after")
    def _one_way_of_scaling(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range must be [lower, upper] with lower < upper")
        if sum((self.range is not None, self.mean is not None, self.standardise)) > 1:
            raise ValueError("range, mean with deviation, and standardise exclude each other; keep one")
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation need each other")
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if values is not None and len(values) not in (1, self.channels):
                raise ValueError(f"{name} must hold one number, or one for each of {self.channels} channels")
        return self


class VolumeInput(TensorInput, VolumeSelection):
    """A CT series: resampled to ``spacing_mm``, windowed, seen through a sliding ``patch``.

    A package that says nothing about them gets primary images, whole series and small gaps only.

    Attributes
    ----------
    spacing_mm
        Of the network's grid, along the tensor's axes.
    axes
        Where the tensor's axes point to: three of L, R, A, P, H, F (PS3.3 C.7.6.1.1.1). ``HPL`` is slices towards the
        head, rows to the posterior, columns to the patient's left; MONAI's ``RAS`` is ``RAH``.
    window
        Values are clipped to it.
    patch
        The grid that the network was made for, and that ``golden.npz`` has.
    further_patches
        Other grids on which the network gives the same answers. The smallest that covers a volume is taken, the largest
        where none does, and a smaller one where memory is short.
    overlap
        Least part of a patch that its neighbour sees too.
    blend
        Weight of a patch's voxels where patches overlap.
    flips
        Test-time augmentation: axes of the tensor along which the image is mirrored too, in every combination.
    crop_margin_mm
        How much is left around what ``crop_to`` has found, along the series' own axes.
    """

    modality: Annotated[Patterns, Field(min_length=1)]
    primary_only: bool = True
    accepts_partial: bool = False
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    axes: Annotated[str, Field(pattern="^[LRAPHF]{3}$")] = "HPL"
    window: tuple[Number, Number]
    patch: tuple[Length, Length, Length]
    further_patches: tuple[tuple[Length, Length, Length], ...] = ()
    overlap: Annotated[Fraction, Field(le=0.9)] = 0.25
    blend: Literal["gaussian", "constant"] = "gaussian"
    flips: Annotated[tuple[Literal[0, 1, 2], ...], AfterValidator(_each_once)] = ()
    crop_margin_mm: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0

    @property
    def bridged_mm(self) -> float:
        """The largest distance between neighbouring slices that may be interpolated over."""
        return self.max_gap_mm or BRIDGED_STEPS * self.spacing_mm[0]

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """Every grid that the network takes, the smallest first."""
        return tuple(sorted({self.patch, *self.further_patches}, key=prod))

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if not self.window[0] < self.window[1]:
            raise ValueError("window must be [lower, upper] with lower < upper")
        if len({LINE_OF[letter] for letter in self.axes}) != 3:
            raise ValueError(f"axes = {self.axes!r} must have one letter each of L/R, A/P and H/F")
        if self.crop_margin_mm and self.crop_to is None:
            raise ValueError("crop_margin_mm needs crop_to")
        return self


class RadiographInput(TensorInput, RadiographSelection):
    """An X-ray: cropped, mapped to 0..1 by ``percentiles``, scaled to ``size``.

    Attributes
    ----------
    size
        Rows and columns of the tensor.
    resize
        ``pad``: scaled by one factor in millimetres and padded with 0; ``stretch``: each side to its own length.
    crop_margin
        How much is left around what ``crop_to`` has found, as a part of its height and width.
    flips
        Test-time augmentation: axes of the tensor along which the image is mirrored too, in every combination.
    """

    modality: Annotated[Patterns, Field(min_length=1)]
    primary_only: bool = True
    size: tuple[Length, Length]
    percentiles: tuple[Percentile, Percentile] = (1.0, 99.0)
    resize: Literal["pad", "stretch"] = "pad"
    crop_margin: Fraction = 0.0
    flips: Annotated[tuple[Literal[0, 1], ...], AfterValidator(_each_once)] = ()

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """The one grid that the network takes."""
        return (self.size,)

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if not self.percentiles[0] < self.percentiles[1]:
            raise ValueError("percentiles must be [lower, upper] with lower < upper")
        if self.crop_margin and self.crop_to is None:
            raise ValueError("crop_margin needs crop_to")
        return self


def input_kind(value: Any) -> str:
    """Tell which of the two an ``[input]`` is."""
    # A key that only an X-ray's input has decides; everything else is checked, and reported, as a volume's.
    keys = {"size", "percentiles", "resize"}
    return "radiograph" if isinstance(value, dict) and value.keys() & keys else "volume"
