"""The schema of ``model.toml`` (docs/model-package.md): strict, so that a misspelt key is an error, not a default."""

from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from engines.selection import Length, Millimetres, Patterns, RadiographSelection, Section, Text, VolumeSelection
from engines.types import Code

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Percentile = Annotated[float, Field(ge=0.0, le=100.0)]
Channel8 = Annotated[int, Field(ge=0, le=255)]
MeasurementKey = Literal[
    "volume", "mean_intensity", "minimum_intensity", "maximum_intensity", "intensity_deviation", "diameter"
]

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
    task: Literal["segmentation", "classification"]


class VolumeInput(VolumeSelection):
    """A CT series: resampled to ``spacing_mm``, windowed, seen through a sliding ``patch``.

    A package that says nothing about them gets primary images, whole series and small gaps only.
    """

    tensor: Text
    modality: Annotated[Patterns, Field(min_length=1)]
    primary_only: bool = True
    accepts_partial: bool = False
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    window: tuple[float, float]
    patch: tuple[Length, Length, Length]
    overlap: Fraction = 0.25

    @property
    def bridged_mm(self) -> float:
        """The largest distance between neighbouring slices that may be interpolated over."""
        return self.max_gap_mm or BRIDGED_STEPS * self.spacing_mm[0]

    @model_validator(mode="after")
    def _window_grows(self) -> Self:
        if not self.window[0] < self.window[1]:
            raise ValueError("window must be [lower, upper] with lower < upper")
        return self


class RadiographInput(RadiographSelection):
    """An X-ray: cropped, mapped to 0..1 by ``percentiles``, scaled and padded to ``size``."""

    tensor: Text
    modality: Annotated[Patterns, Field(min_length=1)]
    primary_only: bool = True
    size: tuple[Length, Length]
    percentiles: tuple[Percentile, Percentile] = (1.0, 99.0)
    crop_to: Text | None = None
    crop_margin: Fraction = 0.0

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if not self.percentiles[0] < self.percentiles[1]:
            raise ValueError("percentiles must be [lower, upper] with lower < upper")
        if self.crop_margin and self.crop_to is None:
            raise ValueError("crop_margin needs crop_to")
        return self


def _input_kind(value: Any) -> str:
    # A key that only an X-ray's input has decides; everything else is checked, and reported, as a volume's.
    return "radiograph" if isinstance(value, dict) and value.keys() & {"size", "percentiles", "crop_to"} else "volume"


class SegmentEntry(Section):
    """One channel of a segmentation model (PS3.3 C.8.20.4)."""

    label: Text
    category: CodeEntry
    type: CodeEntry
    laterality: CodeEntry | None = None
    colour: tuple[Channel8, Channel8, Channel8]
    measurements: tuple[MeasurementKey, ...] = ()

    @property
    def side(self) -> Code | None:
        """The laterality as a code, if there is one."""
        return self.laterality.code if self.laterality else None


class ClassEntry(Section):
    """One channel of a classifier."""

    label: Text
    code: CodeEntry


class OutputSection(Section):
    """What the network's channels mean."""

    tensor: Text
    activation: Text | None = None
    """Tensor of the class activation maps of a classifier, ``[1, class, row, column]``, in the order of ``classes``."""
    keep_largest: bool = False
    segments: Annotated[tuple[SegmentEntry, ...], Field(max_length=255)] = ()
    classes: tuple[ClassEntry, ...] = ()


class VerifySection(Section):
    """How far an engine may be from ``golden.npz`` before it is not served."""

    max_probability_error: Annotated[float, Field(gt=0.0, lt=1.0)]
    max_activation_error: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """As a part of the largest absolute value in the golden activation maps."""
    min_dice: Annotated[float, Field(gt=0.0, le=1.0)] | None = None


class Description(Section):
    """The whole ``model.toml``."""

    identity: IdentitySection
    input: Annotated[
        Annotated[VolumeInput, Tag("volume")] | Annotated[RadiographInput, Tag("radiograph")],
        Discriminator(_input_kind),
    ]
    output: OutputSection
    verify: VerifySection

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        segmentation = self.identity.task == "segmentation"
        wanted, other = ("segments", "classes") if segmentation else ("classes", "segments")
        if not getattr(self.output, wanted) or getattr(self.output, other):
            raise ValueError(f"a {self.identity.task} model needs [[output.{wanted}]] and no [[output.{other}]]")
        if segmentation and self.verify.min_dice is None:
            raise ValueError("a segmentation model needs verify.min_dice")
        if segmentation and self.output.activation is not None:
            raise ValueError("output.activation is for classification models; remove it")
        if self.output.activation is not None and self.verify.max_activation_error is None:
            raise ValueError("a model with output.activation needs verify.max_activation_error")
        if not segmentation and isinstance(self.input, VolumeInput):
            raise ValueError("a classification model needs an X-ray's input: input.size, not input.spacing_mm")
        measured = any(entry.measurements for entry in self.output.segments)
        if measured and not isinstance(self.input, VolumeInput):
            raise ValueError("output.segments.measurements are for volumes; leave them empty for an X-ray")
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
        Description, IdentitySection, VolumeInput, RadiographInput, OutputSection, SegmentEntry, ClassEntry, CodeEntry,
        VerifySection,
    )  # fmt: skip
    return {key for section in sections for key in section.model_fields}
