"""``[segmentation]``, ``[classification]`` and ``[detection]`` of ``model.toml``: what a network's outputs mean."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from engines.packages.input_section import Positive
from engines.packages.selection import Section, Text, printable
from engines.types import Code

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\\]*$"), AfterValidator(printable)]
"""What becomes a value of DICOM's VR LO or SH, in which a backslash parts values (PS3.5 section 6.2)."""

Channel8 = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel8, Channel8, Channel8]
MeasurementKey = Literal[
    "volume", "mean_intensity", "minimum_intensity", "maximum_intensity", "intensity_deviation", "diameter"
]


class CodeEntry(Section):
    """A coded concept: value, coding scheme designator, meaning (PS3.3 section 8.8)."""

    value: Annotated[Name, Field(max_length=16)]
    scheme: Annotated[Name, Field(max_length=16)]
    meaning: Name

    @property
    def code(self) -> Code:
        """The same, as the other rooms speak it."""
        return Code(self.value, self.scheme, self.meaning)


class SegmentEntry(Section):
    """One channel of a segmentation (PS3.3 C.8.20.4)."""

    label: Name
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

    label: Name
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
    measurements
        ``diameter``: the longest side of a box in a volume, where the model was made so that it is that.
    within_mm
        What has its centre farther than this from the segments of the model that ``input.crop_to`` names is dropped
        first (a volume).
    """

    places: Text
    scores: Text
    format: Literal["corners", "centre_size", "points"] = "corners"
    order: Literal["axes", "reversed"] = "axes"
    least_score: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    most_overlap: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    least_distance: Positive = 1.0
    most: Annotated[int, Field(ge=1, le=1000)] = 100
    measurements: tuple[Literal["diameter"], ...] = ()
    within_mm: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=1)]
