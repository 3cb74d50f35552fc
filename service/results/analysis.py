"""All that the result objects of one model about one image are made of, and checked against."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydicom import Dataset

from engines.types import Findings, Image, LabelMap, Segment
from service.results.detected import Detected, detected
from service.results.predecessors import Predecessor, version_of
from service.results.profile import ResultProfile
from service.results.source import Source, read_source
from service.results.uids import ResultUIDs
from service.results.wording import worded


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found, in what, for whom.

    Attributes
    ----------
    findings
        Label maps and measurements on the image's grid, classes, detections; in words that results can hold
        (`service.results.wording`), whatever they were given in.
    image
        What was analysed.
    headers
        The source data sets without pixel data, one per slice in the volume's order; one for an X-ray and for a
        multi-frame image.
    profile
        What the archive gets.
    revision
        Which corrections of the source images this rests on, empty where there were none.
    predecessors
        The reports that the new one supersedes.
    """

    findings: Findings
    image: Image
    headers: Sequence[Dataset]
    profile: ResultProfile = field(default_factory=ResultProfile)
    revision: str = ""
    predecessors: Sequence[Predecessor] = ()

    def __post_init__(self) -> None:
        header = self.headers[0] if self.headers else Dataset()
        object.__setattr__(self, "findings", worded(self.findings, header))

    @cached_property
    def source(self) -> Source:
        """The source as results need it. Raises `Quarantined` where it lacks what a result must refer to."""
        return read_source(self.headers, self.image, self.profile.uid_root)

    @cached_property
    def uids(self) -> ResultUIDs:
        """The UIDs of all its result objects."""
        profile = self.profile
        series_uid = str(self.headers[0].get("SeriesInstanceUID", ""))  # the first one is enough
        return ResultUIDs.about(
            self.findings, self.image, series_uid, self.revision, profile.identity, profile.uid_root
        )

    @cached_property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The label maps in which any segment has a voxel: each becomes a SEG of its own, its part counted from 1."""
        return tuple(label_map for label_map in self.findings.label_maps if label_map.present)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All segments that have a voxel, whichever label map they are in."""
        return tuple(segment for label_map in self.label_maps for segment in label_map.present)

    @cached_property
    def detected(self) -> tuple[Detected, ...]:
        """All detections on the slices that they are on, the highest score first."""
        return detected(self.findings, self.image)

    @property
    def version(self) -> int:
        """Which version of the results this is: 1 where it supersedes none."""
        return version_of(self.predecessors)

    @property
    def series_uids(self) -> frozenset[str]:
        """The series of all objects that it can be written as."""
        parts = range(1, max(len(self.label_maps), 1) + 1)
        return frozenset(self.uids.series(kind, part) for kind in self.profile.objects for part in parts)
