"""What an archive gets: which kinds of result objects, in which form."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engines.packages.selection import Section

Kind = Literal["SEG", "HEATMAP-SEG", "SC", "HEATMAP", "PDF", "RTSTRUCT", "GSPS", "KO", "SR"]
"""The kinds of result objects (docs/results.md)."""

SegmentationForm = Literal["binary", "labelmap", "labelmap-rle", "labelmap-jpeg-ls", "labelmap-jpeg-2000", "fractional"]
ReportForm = Literal["comprehensive-3d", "comprehensive", "enhanced"]

LONGEST_UID_ROOT = 30
"""Leaves 33 digits, some 109 bits, for what a UID stands for (PS3.5 9.1: 64 characters in all)."""


class ResultProfile(Section):
    """``[archives.NAME.results]``: what this archive files and its viewers show.

    The same input, model and profile give the same bytes; another profile gives other UIDs.
    """

    objects: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("SEG", "SC", "SR")
    """Which kinds are made. The default shows something in any viewer."""
    segmentation: SegmentationForm = "binary"
    """How a SEG is encoded: every reader of SEG reads binary; a label map is small; fractional has probabilities."""
    report: ReportForm = "comprehensive-3d"
    """The IOD of the SR: some archives and viewers know only the older ones."""
    captures: Annotated[int, Field(ge=0, le=500)] = 24
    """At most so many slices of a volume are drawn as secondary captures, beside the summary page."""
    uid_root: Annotated[str, Field(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$", max_length=LONGEST_UID_ROOT)] = "2.25"
    """Root of all derived UIDs: a registered one of the institution, or 2.25 for UUIDs (PS3.5 B.2)."""

    @field_validator("objects")
    @classmethod
    def _each_once(cls, value: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each kind of object once")
        return value

    @property
    def identity(self) -> str:
        """The profile as a text: part of what UIDs are derived from."""
        return self.model_dump_json()
