"""The matrix: which subjects are encoded in which forms, and what was written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.types import LabelMap
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import KINDS
from service.results.profile import ResultProfile
from service.types import ResultObject
from tests.conformance.subjects import SUBJECTS, Subject

FORMS: Mapping[str, ResultProfile] = {
    "all": ResultProfile(objects=tuple(KINDS), segmentation="binary", report="comprehensive-3d", captures=3),
    "labelmap": ResultProfile(objects=("SEG", "SR"), segmentation="labelmap", report="comprehensive"),
    "rle": ResultProfile(objects=("SEG", "SR"), segmentation="labelmap-rle", report="enhanced"),
    "jpeg-ls": ResultProfile(objects=("SEG",), segmentation="labelmap-jpeg-ls"),
    "jpeg-2000": ResultProfile(objects=("SEG",), segmentation="labelmap-jpeg-2000"),
    "fractional": ResultProfile(objects=("SEG", "SR"), segmentation="fractional", report="comprehensive-3d"),
}
"""Every kind once; every form of SEG and of SR. What has no form is not written again."""


WITHOUT_SEGMENTS = ("nothing-found", "cr-classes", "ct-detections", "cr-detections")
"""Subjects of which there is no SEG."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """What was written of a subject, and what it was written from."""

    name: str
    subject: Subject
    analysis: Analysis
    objects: tuple[ResultObject, ...]

    def of(self, *kinds: str) -> list[ResultObject]:
        """The objects of some kinds."""
        return [entry for entry in self.objects if entry.kind in kinds]

    @property
    def masks(self) -> list[dict[int, NDArray[np.bool_]]]:
        """Where each segment is anything, by its number in the SEG, for each SEG."""
        return [self._masks(label_map) for label_map in self.analysis.label_maps]

    @property
    def truth(self) -> list[dict[int, int]]:
        """Voxels of each segment by its number in the SEG, for each SEG."""
        return [{number: int(mask.sum()) for number, mask in masks.items()} for masks in self.masks]

    def _masks(self, label_map: LabelMap) -> dict[int, NDArray[np.bool_]]:
        if self.analysis.profile.segmentation == "fractional" and label_map.probabilities is not None:
            likely = dict(zip(label_map.segments, label_map.probabilities > 0, strict=True))
            return {number: likely[segment] for number, segment in enumerate(label_map.present, start=1)}
        return {number: label_map.array == each.number for number, each in enumerate(label_map.present, start=1)}


def case_names() -> list[str]:
    """All cases; where nothing was found there is no SEG to have a form."""
    return [
        f"{subject} {form}"
        for subject in SUBJECTS
        for form, profile in FORMS.items()
        if form == "all" or "SR" in profile.objects or subject not in WITHOUT_SEGMENTS
    ]


def encoded(name: str, subject: Subject, folder: Path) -> Encoded:
    """Write the objects of a case."""
    profile = FORMS[name.split()[1]]
    analysis = Analysis(subject.findings, subject.image, subject.headers, profile)
    return Encoded(name, subject, analysis, encode(analysis, folder))
