"""Judging the lesions that a model finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from engines.types import Detection, Findings, Image, Radiograph
from evaluation.cases import Case, Lesion
from evaluation.errors import DataError
from evaluation.estimate import Estimate
from evaluation.judgement import Curve
from evaluation.metrics.detection import RATES, Candidates, Scan, detection_figures, figures_of, froc, match
from evaluation.outcome import Outcome


@dataclass(frozen=True)
class LesionJudge:
    """Compares detections with the lesions that are known; see `evaluation.judge.Task`.

    ``least_score`` is that of the package: what has less is never answered, and the FROC curve ends there.
    """

    least_score: float

    def outcome(self, case: Case, image: Image, findings: Findings) -> Outcome[Scan] | None:  # noqa: D102
        if case.lesions is None:
            return None
        if any(len(lesion.low) != image.array.ndim for lesion in case.lesions):
            raise DataError(
                "its lesions are in another kind of coordinates than its image: x, y and z in LPS mm belong to "
                "volumes, rows and columns to X-rays; correct the columns"
            )
        detections = findings.detections.found if findings.detections else ()
        scan = match(_candidates(detections, image), [_in_mm(lesion, image) for lesion in case.lesions])
        hits = int(np.isfinite(scan.scores).sum())
        return Outcome(
            patient=case.patient,
            detail=scan,
            figures={"lesions": len(scan.scores), "lesions_found": hits, "false_positives": len(scan.false)},
            expected=f"{len(scan.scores)} to find",
            answer=f"{hits} found, {len(scan.false)} false",
        )

    def tuned(self, outcomes: Sequence[Outcome[Scan]]) -> Self:  # noqa: D102
        return self

    def metrics(  # noqa: D102
        self, outcomes: Sequence[Outcome[Scan]], rounds: int, seed: int
    ) -> Mapping[str, Estimate]:
        scans, patients = [each.detail for each in outcomes], [each.patient for each in outcomes]
        return detection_figures(scans, patients, rounds, seed)

    def curves(self, outcomes: Sequence[Outcome[Scan]]) -> tuple[Curve, ...]:  # noqa: D102
        scans = [outcome.detail for outcome in outcomes]
        if not any(len(scan.scores) for scan in scans):
            return ()
        points = tuple((float(rate), float(sensitivity)) for rate, sensitivity, _ in froc(scans))
        answered = figures_of(scans)
        mark = (answered["false_positives_per_scan"], answered["lesion_sensitivity"])
        return (Curve("FROC", "false positives per scan", "sensitivity", points, {"all that is answered": mark}),)

    def notes(self, outcomes: Sequence[Outcome[Scan]]) -> tuple[str, ...]:  # noqa: D102
        false = sum(len(outcome.detail.false) for outcome in outcomes)
        lesions = sum(len(outcome.detail.scores) for outcome in outcomes)
        if not outcomes:
            return ()
        notes = [f"There are {lesions} lesions in {len(outcomes)} scans."]
        if false < RATES[-1] * len(outcomes):
            notes.append(
                f"The model answers nothing with a score below {self.least_score:g}, which gives "
                f"{false / len(outcomes):.2f} false positives a scan; at more of them the sensitivity is the same."
            )
        return tuple(notes)


def _candidates(detections: Sequence[Detection], image: Image) -> Candidates:
    axes = image.array.ndim
    scale = _scale(image)
    return Candidates(
        scores=np.array([each.score for each in detections], np.float64),
        low=np.array([each.low for each in detections], np.float64).reshape(-1, axes) * scale,
        high=np.array([each.high for each in detections], np.float64).reshape(-1, axes) * scale,
        diameters=np.array([each.diameter_mm for each in detections], np.float64),
    )


def _in_mm(lesion: Lesion, image: Image) -> Lesion:
    """Give a lesion of an X-ray in mm where its spacing is known, otherwise without its diameter, which is in mm."""
    if not isinstance(image, Radiograph):
        return lesion
    scale = _scale(image)
    low, high = (tuple((np.asarray(corner) * scale).tolist()) for corner in (lesion.low, lesion.high))
    return replace(lesion, low=low, high=high, diameter_mm=lesion.diameter_mm if image.spacing else None)


def _scale(image: Image) -> tuple[float, ...]:
    return image.pixel if isinstance(image, Radiograph) else (1.0, 1.0, 1.0)
