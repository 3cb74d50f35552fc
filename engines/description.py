"""The schema of ``model.toml`` (docs/model-package.md): strict, so that a misspelt key is an error, not a default."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from engines.selection import Length, Millimetres, Patterns, RadiographSelection, Section, Text, VolumeSelection
from engines.types import Code

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Percentile = Annotated[float, Field(ge=0.0, le=100.0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Channel8 = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel8, Channel8, Channel8]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx$")]
MeasurementKey = Literal[
    "volume", "mean_intensity", "minimum_intensity", "maximum_intensity", "intensity_deviation", "diameter"
]
StatisticKey = Literal["mean", "deviation", "p5", "median", "p95", "slice_step_mm", "pixel_mm", "extent_mm"]

TASKS = ("segmentation", "classification", "detection")

LINE_OF = {"L": "x", "R": "x", "P": "y", "A": "y", "H": "z", "F": "z"}
"""Along which patient axis each letter of PatientOrientation lies."""

BRIDGED_STEPS = 3.0
"""Without ``max_gap_mm``, a volume model bridges so many steps of its own grid: more would be mostly invented."""


class CodeEntry(Section):
    """A coded concept: value, coding scheme designator, meaning (PS3.3 section 8.8)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]

    @property
    def code(self) -> Code:
        """The same, as the other rooms speak it."""
        return Code(self.value, self.scheme, self.meaning)


class IdentitySection(Section):
    """Who the model is; copied into every result."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
    version: Text
    uid_root: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}$")]
    licence: Text
    intended_use: Text


class NetworkSection(Section):
    """The files that hold the network; of several (an ensemble) every output is averaged."""

    files: Annotated[tuple[FileName, ...], Field(min_length=1)] = ("model.onnx",)


class Tensor(Section):
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
        Instead of both: with the mean and deviation of each image itself, after clipping.
    """

    tensor: Text
    channels: Length = 1
    range: tuple[Number, Number] | None = None
    mean: tuple[Number, ...] | None = None
    deviation: tuple[Positive, ...] | None = None
    standardise: bool = False

    @model_validator(mode="after")
    def _one_way_of_scaling(self) -> Self:
        if sum((self.range is not None, self.mean is not None, self.standardise)) > 1:
            raise ValueError("range, mean with deviation, and standardise exclude each other; keep one")
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation need each other")
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if values is not None and len(values) not in (1, self.channels):
                raise ValueError(f"{name} must hold one number, or one for each of {self.channels} channels")
        return self


class VolumeInput(Tensor, VolumeSelection):
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
    """

    modality: Annotated[Patterns, Field(min_length=1)]
    primary_only: bool = True
    accepts_partial: bool = False
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    axes: Annotated[str, Field(pattern="^[LRAPHF]{3}$")] = "HPL"
    window: tuple[Number, Number]
    patch: tuple[Length, Length, Length]
    further_patches: tuple[tuple[Length, Length, Length], ...] = ()
    overlap: Fraction = 0.25
    blend: Literal["gaussian", "constant"] = "gaussian"
    flips: tuple[Literal[0, 1, 2], ...] = ()

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
        return self


class RadiographInput(Tensor, RadiographSelection):
    """An X-ray: cropped, mapped to 0..1 by ``percentiles``, scaled to ``size``.

    Attributes
    ----------
    size
        Rows and columns of the tensor.
    resize
        ``pad``: scaled by one factor in millimetres and padded with 0; ``stretch``: each side to its own length.
    crop_to, crop_margin
        A model to whose segments the image is cropped first, and how much is left around them.
    flips
        Test-time augmentation: axes of the tensor along which the image is mirrored too, in every combination.
    """

    modality: Annotated[Patterns, Field(min_length=1)]
    primary_only: bool = True
    size: tuple[Length, Length]
    percentiles: tuple[Percentile, Percentile] = (1.0, 99.0)
    resize: Literal["pad", "stretch"] = "pad"
    crop_to: Text | None = None
    crop_margin: Fraction = 0.0
    flips: tuple[Literal[0, 1], ...] = ()

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


def _input_kind(value: Any) -> str:
    # A key that only an X-ray's input has decides; everything else is checked, and reported, as a volume's.
    keys = {"size", "percentiles", "crop_to", "resize"}
    return "radiograph" if isinstance(value, dict) and value.keys() & keys else "volume"


class SegmentEntry(Section):
    """One channel of a segmentation (PS3.3 C.8.20.4)."""

    label: Text
    category: CodeEntry
    type: CodeEntry
    laterality: CodeEntry | None = None
    colour: Colour
    measurements: tuple[MeasurementKey, ...] = ()

    @property
    def side(self) -> Code | None:
        """The laterality as a code, if there is one."""
        return self.laterality.code if self.laterality else None


class ClassEntry(Section):
    """One channel of a classification, or one kind of thing that is detected."""

    label: Text
    code: CodeEntry


class SegmentationSection(Section):
    """An output that gives each voxel or pixel its probabilities.

    Attributes
    ----------
    tensor
        ``[1, 1 + segments, …grid]``, a softmax with background first; where segments overlap, ``[1, segments, …grid]``,
        each a sigmoid.
    overlapping
        Whether a voxel may belong to several segments: to each with a probability of one half or more.
    keep_largest
        Of each segment, keep only the largest connected component.
    """

    tensor: Text
    overlapping: bool = False
    keep_largest: bool = False
    segments: Annotated[tuple[SegmentEntry, ...], Field(min_length=1, max_length=255)]


class ClassificationSection(Section):
    """An output that gives the image its probabilities.

    Attributes
    ----------
    tensor
        ``[1, class]``: a softmax, or where classes do not exclude each other, a sigmoid each.
    exclusive
        Whether the classes exclude each other, and so sum to 1.
    windows
        What several patches of one volume become.
    activation
        Output with the class activation maps of an X-ray, ``[1, class, row, column]``, in the order of ``classes``.
    """

    tensor: Text
    exclusive: bool = True
    windows: Literal["mean", "max"] = "mean"
    activation: Text | None = None
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.exclusive and self.windows == "max":
            raise ValueError('windows = "max" needs exclusive = false, or the probabilities would not sum to 1')
        return self


class DetectionSection(Section):
    """Outputs that give places, each with scores.

    Attributes
    ----------
    places
        ``[1, n, 2 * dimensions]`` for boxes, ``[1, n, dimensions]`` for points, in pixels of the tensor (0 is the outer
        edge of the first pixel for boxes, its centre for points).
    scores
        ``[1, n, class]``, each in 0..1.
    format
        ``corners``: low corner, then high corner; ``centre_size``: centre, then size; ``points``.
    order
        ``axes``: coordinates in the order of the tensor's axes; ``reversed``: the last axis first (x, y, …).
    least_score
        What has less is dropped.
    most_overlap
        Non-maximum suppression: of two boxes of a class with a larger intersection over union, or two points that are
        closer than ``least_distance`` pixels, the one with the lower score is dropped.
    most
        Only so many with the highest scores are kept.
    """

    places: Text
    scores: Text
    format: Literal["corners", "centre_size", "points"] = "corners"
    order: Literal["axes", "reversed"] = "axes"
    least_score: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    most_overlap: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    least_distance: Positive = 1.0
    most: Annotated[int, Field(ge=1, le=1000)] = 100
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=1)]


class Limits(Section):
    """How far an engine may be from ``golden.npz`` before it is not served.

    Attributes
    ----------
    max_probability_error
        Largest absolute difference of any probability or score.
    min_dice
        Least Dice of any segment.
    max_activation_error
        Of the class activation maps, as a part of the largest absolute value in the golden ones.
    max_place_error
        Of detected places, in pixels of the tensor.
    """

    max_probability_error: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    min_dice: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_activation_error: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    max_place_error: Positive | None = None


class VerifySection(Limits):
    """The limits, and those that are others in a precision that was shown to be good enough (the card says how)."""

    max_probability_error: Annotated[float, Field(gt=0.0, lt=1.0)]
    fp16: Limits = Limits()
    bf16: Limits = Limits()
    int8: Limits = Limits()

    def limits(self, precision: str) -> Limits:
        """Give the limits of an engine that computes in this precision."""
        own = getattr(self, precision) if precision in ("fp16", "bf16", "int8") else Limits()
        return Limits(
            **{
                name: getattr(self, name) if getattr(own, name) is None else getattr(own, name)
                for name in Limits.model_fields
            }
        )


class RangeEntry(Section):
    """Between what a statistic lay in the images that the model was trained on."""

    least: Number
    largest: Number

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.largest < self.least:
            raise ValueError("largest must not be less than least")
        return self


class TrainingSection(Section):
    """What the model has seen, statistic by statistic (`engines.input_statistics`), and what to do with other images.

    Attributes
    ----------
    outside
        ``note``: an image outside of a range is analysed, and the results say so; ``refuse``: it is not analysed.
    ranges
        By name of the statistic.
    """

    outside: Literal["note", "refuse"] = "note"
    ranges: Mapping[StatisticKey, RangeEntry] = {}


class Description(Section):
    """The whole ``model.toml``."""

    identity: IdentitySection
    network: NetworkSection = NetworkSection()
    input: Annotated[
        Annotated[VolumeInput, Tag("volume")] | Annotated[RadiographInput, Tag("radiograph")],
        Discriminator(_input_kind),
    ]
    segmentation: SegmentationSection | None = None
    classification: ClassificationSection | None = None
    detection: DetectionSection | None = None
    training: TrainingSection = TrainingSection()
    verify: VerifySection

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model does, of segmentation, classification, detection."""
        return tuple(task for task in TASKS if getattr(self, task) is not None)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if not self.tasks:
            raise ValueError(f"a model needs one of the tables {', '.join(f'[{task}]' for task in TASKS)}; add it")
        if self.segmentation and self.verify.min_dice is None:
            raise ValueError("a segmentation needs verify.min_dice")
        if self.detection and self.verify.max_place_error is None:
            raise ValueError("a detection needs verify.max_place_error")
        if self.detection and self.input.flips:
            raise ValueError("input.flips turn no places back; leave them empty for a detection")
        volume = isinstance(self.input, VolumeInput)
        if self.classification and self.classification.activation is not None:
            if self.verify.max_activation_error is None:
                raise ValueError("classification.activation needs verify.max_activation_error")
            if volume:
                raise ValueError("classification.activation is for X-rays; remove it")
        if self.segmentation and not volume and any(entry.measurements for entry in self.segmentation.segments):
            raise ValueError("segmentation.segments.measurements are for volumes; leave them empty for an X-ray")
        tensors = [
            *([self.segmentation.tensor] if self.segmentation else []),
            *([self.classification.tensor] if self.classification else []),
            *([self.classification.activation] if self.classification and self.classification.activation else []),
            *([self.detection.places, self.detection.scores] if self.detection else []),
        ]
        if len({self.input.tensor, *tensors}) <= len(tensors):
            raise ValueError("every tensor needs a name of its own; correct the one that is there twice")
        return self

    @classmethod
    def explain(cls, error: ValidationError) -> str:
        """Say in one line per problem which key is wrong, with what value, and what to do."""
        return "; ".join(_explain(details) for details in error.errors())


def _explain(details: ErrorDetails) -> str:
    location = [part for part in details["loc"] if part not in ("volume", "radiograph")]
    key = ".".join(str(part + 1) if isinstance(part, int) else part for part in location)
    match details["type"]:
        case "missing":
            return f"{key} is missing; add it"
        case "extra_forbidden":
            known = _known_keys()
            close = get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "remove it or correct its name"
            if location[-1] in known:
                return f"{key} has no meaning for this kind of input or table; remove it"
            return f"{key} is not a known key; {hint}"
        case "value_error":
            return f"{key + ': ' if key else ''}{details['ctx']['error']}"
        case _:
            return f"{key} = {details['input']!r} is wrong: {details['msg']}; correct it"


def _known_keys() -> set[str]:
    sections = (
        Description, IdentitySection, NetworkSection, VolumeInput, RadiographInput, SegmentationSection, SegmentEntry,
        ClassificationSection, DetectionSection, ClassEntry, CodeEntry, TrainingSection, RangeEntry, VerifySection,
    )  # fmt: skip
    return {key for section in sections for key in section.model_fields}
