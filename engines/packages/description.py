"""The schema of ``model.toml`` (docs/model-package.md): strict, so that a misspelt key is an error, not a default."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from engines.packages.head_sections import (
    ClassEntry,
    ClassificationSection,
    CodeEntry,
    DetectionSection,
    SegmentationSection,
    SegmentEntry,
)
from engines.packages.input_section import Number, Positive, RadiographInput, TensorInput, VolumeInput, input_kind
from engines.packages.selection import Section, Text

__all__ = [
    "ClassEntry",
    "ClassificationSection",
    "CodeEntry",
    "Description",
    "DetectionSection",
    "Limits",
    "RadiographInput",
    "SegmentEntry",
    "SegmentationSection",
    "TensorInput",
    "VolumeInput",
]

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx$")]
VOLUME_STATISTICS = ("p5", "median", "p95", "cross_section_cm2", "extent_mm", "slice_step_mm", "pixel_mm")
RADIOGRAPH_STATISTICS = ("median", "deviation", "middle", "pixel_mm")

LONGEST_SHOWN = 200
"""Characters of a wrong value in a message."""

TASKS = ("segmentation", "classification", "detection")


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

    @field_validator("files")
    @classmethod
    def _each_once(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in files if files.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice; name each file once")
        if quantised := [name for name in files if name.endswith(".int8.onnx")]:
            raise ValueError(f"{quantised[0]} is the name of a quantised copy; name the network that it was made from")
        return files


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
    """What the model has seen (`engines.inference.input_statistics`), and what to do with other images.

    Attributes
    ----------
    outside
        ``note``: an image outside of a range is analysed, and the results say so; ``refuse``: it is not analysed.
    ranges
        By name of the statistic.
    """

    outside: Literal["note", "refuse"] = "note"
    ranges: Mapping[str, RangeEntry] = {}


class Description(Section):
    """The whole ``model.toml``."""

    identity: IdentitySection
    network: NetworkSection = NetworkSection()
    input: Annotated[
        Annotated[VolumeInput, Tag("volume")] | Annotated[RadiographInput, Tag("radiograph")],
        Discriminator(input_kind),
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
    def _tables_agree(self) -> Self:
        if not self.tasks:
            raise ValueError(f"a model needs one of the tables {', '.join(f'[{task}]' for task in TASKS)}; add it")
        if self.segmentation and self.verify.min_dice is None:
            raise ValueError("a segmentation needs verify.min_dice; add it")
        if self.detection and self.verify.max_place_error is None:
            raise ValueError("a detection needs verify.max_place_error; add it")
        if self.classification and self.classification.activation and self.verify.max_activation_error is None:
            raise ValueError("classification.activation needs verify.max_activation_error; add it")
        if self.detection and self.input.flips:
            raise ValueError("input.flips turn no places back; leave them empty for a detection")
        if self.detection and self.detection.measurements and self.detection.format == "points":
            raise ValueError("a point has no diameter; leave detection.measurements empty")
        near = self.detection is not None and self.detection.within_mm is not None
        if near and (not isinstance(self.input, VolumeInput) or self.input.crop_to is None):
            raise ValueError("detection.within_mm needs a volume and input.crop_to; name that model, or remove it")
        if self.detection and len(self.network.files) > 1:
            raise ValueError("places of several networks cannot be averaged; name one file in network.files")
        return self

    @model_validator(mode="after")
    def _input_and_tables_agree(self) -> Self:
        volume = isinstance(self.input, VolumeInput)
        if volume and self.classification and self.classification.activation:
            raise ValueError("classification.activation is for X-rays; remove it")
        if self.segmentation and not volume and any(entry.measurements for entry in self.segmentation.segments):
            raise ValueError("segmentation.segments.measurements are for volumes; leave them empty for an X-ray")
        if self.detection and not volume and self.detection.measurements:
            raise ValueError("detection.measurements are for volumes; leave them empty for an X-ray")
        known = VOLUME_STATISTICS if volume else RADIOGRAPH_STATISTICS
        if unknown := sorted(set(self.training.ranges) - set(known)):
            raise ValueError(
                f"training.ranges.{unknown[0]} is not measured of this kind of image; use {', '.join(known)}"
            )
        return self

    @model_validator(mode="after")
    def _tensors_differ(self) -> Self:
        tensors = [
            self.input.tensor,
            *([self.segmentation.tensor] if self.segmentation else []),
            *([self.classification.tensor] if self.classification else []),
            *([self.classification.activation] if self.classification and self.classification.activation else []),
            *([self.detection.places, self.detection.scores] if self.detection else []),
        ]
        if twice := sorted({name for name in tensors if tensors.count(name) > 1}):
            raise ValueError(f"the tensor {', '.join(twice)} is named twice; each has a name of its own")
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
            value = repr(details["input"])
            shown = value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…"
            return f"{key} = {shown} is wrong: {details['msg']}; correct it"


def _known_keys() -> set[str]:
    sections = (
        Description, IdentitySection, NetworkSection, VolumeInput, RadiographInput, SegmentationSection, SegmentEntry,
        ClassificationSection, DetectionSection, ClassEntry, CodeEntry, TrainingSection, RangeEntry, VerifySection,
    )  # fmt: skip
    return {key for section in sections for key in section.model_fields}
