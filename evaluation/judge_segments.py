"""Judging the segments that a model finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.types import Findings, Image, Segment
from evaluation.cases import Case
from evaluation.errors import DataError
from evaluation.estimate import Estimate
from evaluation.judgement import Curve
from evaluation.matching import segments_of
from evaluation.metrics.segmentation import Agreement, compare, segmentation_figures
from evaluation.outcome import Outcome

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SegmentJudge:
    """Compares label maps with the masks that are known; see `evaluation.judge.Task`."""

    segments: tuple[Segment, ...]

    def outcome(self, case: Case, image: Image, findings: Findings) -> Outcome[Agreement] | None:  # noqa: D102
        masks = case.masks() if case.masks else {}
        if not masks:
            return None
        matches = segments_of(list(masks), self.segments)
        if not matches:
            known = ", ".join(segment.label for segment in self.segments)
            raise DataError(f"the model has no segment {', '.join(masks)}; it has {known}")
        shape = image.array.shape
        for label, mask in masks.items():
            if mask.shape != shape:
                raise DataError(f"the mask {label} has shape {list(mask.shape)}, its image {list(shape)}")
        reference = {name: _united([masks[label] for label in match.references]) for name, match in matches.items()}
        found = {name: _found(findings, match.segments, shape) for name, match in matches.items()}
        agreement = compare(reference, found, image)
        return Outcome(
            patient=case.patient,
            detail=agreement,
            figures=agreement.figures,
            expected=_words(reference),
            answer=_words(found),
            ignored=tuple(label for label in masks if not any(label in each.references for each in matches.values())),
        )

    def tuned(self, outcomes: Sequence[Outcome[Agreement]]) -> Self:  # noqa: D102
        return self

    def metrics(  # noqa: D102
        self, outcomes: Sequence[Outcome[Agreement]], rounds: int, seed: int
    ) -> Mapping[str, Estimate]:
        agreements, patients = [each.detail for each in outcomes], [each.patient for each in outcomes]
        return segmentation_figures(agreements, patients, rounds, seed)

    def curves(self, outcomes: Sequence[Outcome[Agreement]]) -> tuple[Curve, ...]:  # noqa: D102
        return ()

    def notes(self, outcomes: Sequence[Outcome[Agreement]]) -> tuple[str, ...]:  # noqa: D102
        overlapping = sum(outcome.detail.confusion is None for outcome in outcomes)
        ignored = dict.fromkeys(label for outcome in outcomes for label in outcome.ignored)
        notes = []
        if overlapping:
            notes.append(f"Segments overlap in {overlapping} of {len(outcomes)} cases, which count in no pixel figure.")
        if ignored:
            notes.append(f"The model has no segment for {', '.join(ignored)}, which was not compared.")
        return tuple(notes)


def _united(masks: Sequence[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce([mask.astype(bool) for mask in masks]))


def _found(findings: Findings, numbers: Sequence[int], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, np.bool_)
    for label_map in findings.label_maps:
        mask |= np.isin(label_map.array, numbers)
    return mask


def _words(masks: Mapping[str, Mask]) -> str:
    return ", ".join(name for name, mask in masks.items() if mask.any()) or "none"
