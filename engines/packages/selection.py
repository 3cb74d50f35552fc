"""Which images a model is meant for: the selection keys of a package's ``[input]`` (docs/model-package.md).

The same keys narrow the choice in a node's configuration. Every key is optional, and its default lets every image
through. Lists of texts are patterns: letter case does not matter, ``*`` and ``?`` stand for anything, a leading ``!``
excludes; one that is not excluded must match one of the others, where there are others.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def printable(text: str) -> str:
    """Refuse what a line of a result, a log or a terminal cannot show."""
    # A control character or one that turns the writing round may mislead.
    if not text.isprintable() or not text.strip():
        raise ValueError("a text must be in one line, without control characters, and not blank")
    return text


Text = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(printable)]
Pattern = Annotated[str, Field(pattern=r"^!?[^!\s]")]
Patterns = tuple[Pattern, ...]
Length = Annotated[int, Field(ge=1, le=65_536)]
Millimetres = Annotated[float, Field(ge=0.01, le=10_000.0)]


class Section(BaseModel):
    """A table of ``model.toml``: no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Selection(Section):
    """What is asked of any image.

    Attributes
    ----------
    modality, body_part, view, protocol, series_description
        Patterns of Modality, BodyPartExamined, ViewPosition, ProtocolName, SeriesDescription.
    primary_only
        Only what the scanner reconstructed or the detector saw: no localisers, reformats, projections or maps.
    """

    modality: Patterns = ()
    body_part: Patterns = ()
    view: Patterns = ()
    protocol: Patterns = ()
    series_description: Patterns = ()
    primary_only: bool = False


class VolumeSelection(Selection):
    """What is asked of a CT series.

    Attributes
    ----------
    minimum_slices, maximum_slices
        How many slices it has.
    plane
        How its slices lie in the patient; empty for any.
    slice_thickness_mm
        Least and largest SliceThickness.
    kernel
        Patterns of ConvolutionKernel.
    contrast
        ``with`` or ``without`` a contrast agent named in the header, or ``any``.
    max_gap_mm
        Largest distance between neighbouring slices, centre to centre, that may be interpolated over.
    accepts_partial
        Whether it may run although slices may still be missing at an end.
    """

    minimum_slices: Length = 1
    maximum_slices: Length | None = None
    plane: tuple[Literal["axial", "coronal", "sagittal", "oblique"], ...] = ()
    slice_thickness_mm: tuple[Annotated[float, Field(ge=0.0)], Millimetres] | None = None
    kernel: Patterns = ()
    contrast: Literal["any", "with", "without"] = "any"
    max_gap_mm: Millimetres | None = None
    accepts_partial: bool = True

    @model_validator(mode="after")
    def _ranges_grow(self) -> Self:
        if self.maximum_slices is not None and self.maximum_slices < self.minimum_slices:
            raise ValueError("maximum_slices must not be less than minimum_slices")
        if self.slice_thickness_mm is not None and self.slice_thickness_mm[1] < self.slice_thickness_mm[0]:
            raise ValueError("slice_thickness_mm must be [least, largest]")
        return self

    @property
    def bridged_mm(self) -> float:
        """The largest distance between neighbouring slices that may be interpolated over."""
        return float("inf") if self.max_gap_mm is None else self.max_gap_mm


class RadiographSelection(Selection):
    """What is asked of an X-ray.

    Attributes
    ----------
    presentation
        Patterns of PresentationIntentType.
    """

    presentation: Patterns = ()
