"""How many lesions a detector finds, and at how many false positives in a scan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.cases import Lesion
from evaluation.estimate import ROUNDS, Estimate, bootstrap_all

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives in a scan at which sensitivity is given (Setio et al., Medical Image Analysis 42, 2017: LUNA16)."""

SMALL_MM = 8.0
"""Nodules are told apart by this diameter (Fleischner Society, Radiology 284, 2017: one to be looked at sooner)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a detector has found in one scan.

    Attributes
    ----------
    scores
        ``[n]``.
    low, high
        Corners of boxes, ``[n, axis]``; of a mere point both are there.
    diameters
        ``[n]`` in mm, NaN where the detector does not say; None where it says none.
    """

    scores: Floats
    low: Floats
    high: Floats
    diameters: Floats | None = None

    @property
    def centres(self) -> Floats:
        """``[n, axis]``."""
        return (self.low + self.high) / 2

    @property
    def sizes(self) -> Floats:
        """``[n]``: the diameters, or where there is none the mean side of the box; NaN for a mere point."""
        sides = (self.high - self.low).mean(axis=1) if len(self.scores) else np.zeros(0)
        known = np.full(len(sides), np.nan) if self.diameters is None else self.diameters
        return np.where(np.isfinite(known), known, np.where(sides > 0, sides, np.nan))


Hits = Callable[[Candidates, Lesion], NDArray[np.bool_]]
"""Which candidates find a lesion, ``[n]``."""


def centre_in_lesion(candidates: Candidates, lesion: Lesion) -> NDArray[np.bool_]:
    """Whether a candidate's centre is less than the lesion's radius from its centre: the rule of LUNA16.

    Of a lesion of unknown diameter, whether the centre is in its box; of one that is only a point as well, whether the
    point is in the candidate's box.
    """
    if lesion.diameter_mm is not None:
        return np.asarray(np.linalg.norm(candidates.centres - lesion.centre, axis=1) < lesion.diameter_mm / 2)
    if lesion.low == lesion.high:
        return np.asarray(np.all((candidates.low <= lesion.low) & (candidates.high >= lesion.low), axis=1))
    return np.asarray(np.all((candidates.centres >= lesion.low) & (candidates.centres <= lesion.high), axis=1))


def overlapping_by(least: float) -> Hits:
    """Give the rule that a candidate's box and the lesion's have an intersection over union of ``least`` or more."""

    def hits(candidates: Candidates, lesion: Lesion) -> NDArray[np.bool_]:
        low, high = np.maximum(candidates.low, lesion.low), np.minimum(candidates.high, lesion.high)
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        sizes = np.prod(candidates.high - candidates.low, axis=1)
        union = sizes + np.prod(np.subtract(lesion.high, lesion.low)) - shared
        return np.asarray((shared > 0) & (shared >= least * union))

    return hits


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan's lesions and candidates, matched.

    Attributes
    ----------
    scores
        ``[lesion]``: the highest score of a candidate that finds it; minus infinity if none does.
    diameters
        ``[lesion]`` in mm; NaN where unknown.
    errors
        ``[lesion]`` in mm: diameter of the candidate with that score less that of the lesion; NaN where either is
        unknown.
    false
        ``[n]``: scores of the candidates that find no lesion.
    repeated
        ``[n]``: scores of those that find only lesions that another one finds with a higher score. In FROC they count
        neither as hits nor as false, as in LUNA16.
    """

    scores: Floats
    diameters: Floats
    errors: Floats
    false: Floats
    repeated: Floats


def match(candidates: Candidates, lesions: Sequence[Lesion], hits: Hits = centre_in_lesion) -> Scan:
    """Match the candidates of a scan with its lesions; each lesion is found once, by the highest score."""
    found_by = np.array([hits(candidates, lesion) for lesion in lesions]).reshape(len(lesions), len(candidates.scores))
    scores, errors = np.full(len(lesions), -np.inf), np.full(len(lesions), np.nan)
    diameters = np.array([np.nan if lesion.diameter_mm is None else lesion.diameter_mm for lesion in lesions])
    best = np.zeros(len(candidates.scores), np.bool_)
    for index, row in enumerate(found_by):
        if row.any():
            which = int(np.where(row, candidates.scores, -np.inf).argmax())
            best[which], scores[index] = True, candidates.scores[which]
            errors[index] = candidates.sizes[which] - diameters[index]
    finds = found_by.any(axis=0)
    return Scan(
        scores=scores,
        diameters=diameters.astype(np.float64),
        errors=errors,
        false=candidates.scores[~finds],
        repeated=candidates.scores[finds & ~best],
    )


@dataclass(frozen=True, eq=False)
class Pool:
    """The lesions and candidates of many scans together; fields as of `Scan`, candidates by falling score."""

    count: int
    scores: Floats
    diameters: Floats
    errors: Floats
    false: Floats
    repeated: Floats

    def sensitivity_at(self, rate: float, of: NDArray[np.bool_] | None = None) -> float:
        """Give the largest sensitivity with no more false positives in a scan than ``rate``; NaN without lesions.

        The curve has steps here; LUNA16 draws lines between its points, which gives a little more.

        Parameters
        ----------
        rate
            False positives in a scan, the mean of the scans.
        of
            Which lesions count; all if None. False positives are always all of them.
        """
        counted = self.scores if of is None else self.scores[of]
        allowed = min(rate * self.count + 1e-9, len(self.false))
        limit = self.false[int(allowed)] if allowed < len(self.false) else -np.inf
        return float((counted > limit).mean()) if len(counted) else float("nan")

    def average_precision(self) -> float:
        """Give the mean precision over recall, as PASCAL VOC 2010; repeated count as false. NaN without lesions."""
        if not len(self.scores):
            return float("nan")
        thresholds = np.unique(self.scores[np.isfinite(self.scores)])[::-1]
        right = _as_high(self.scores, thresholds)
        wrong = _as_high(self.false, thresholds) + _as_high(self.repeated, thresholds)
        best = np.maximum.accumulate((right / (right + wrong))[::-1])[::-1]
        return float((np.diff(right, prepend=0) * best).sum() / len(self.scores))


def pool(scans: Sequence[Scan]) -> Pool:
    """Put scans together."""

    def every(of: str) -> Floats:
        return np.concatenate([np.zeros(0), *(getattr(scan, of) for scan in scans)])

    return Pool(
        count=len(scans),
        scores=every("scores"),
        diameters=every("diameters"),
        errors=every("errors"),
        false=np.sort(every("false"))[::-1],
        repeated=np.sort(every("repeated"))[::-1],
    )


def froc(scans: Sequence[Scan]) -> Floats:
    """Give the FROC curve as rows of false positives a scan, sensitivity and threshold, in the order of falling scores.

    A score of the threshold or more counts.
    """
    all_ = pool(scans)
    thresholds = np.unique(np.concatenate([all_.scores[np.isfinite(all_.scores)], all_.false]))[::-1]
    false, found = _as_high(all_.false, thresholds), _as_high(all_.scores, thresholds)
    return np.stack([false / max(1, len(scans)), found / max(1, len(all_.scores)), thresholds], axis=1)


def detection_figures(
    scans: Sequence[Scan], patients: Sequence[str], rounds: int = ROUNDS, seed: int = 1
) -> dict[str, Estimate]:
    """Estimate every figure of `figures_of`, with patients drawn anew; one entry of ``patients`` for each scan."""
    return bootstrap_all(lambda chosen: figures_of([scans[index] for index in chosen]), patients, rounds, seed)


def figures_of(scans: Sequence[Scan]) -> Mapping[str, float]:
    """Give ``froc_sensitivity_at_RATE`` and their mean, of all lesions and by size, and what all candidates come to.

    ``lesion_sensitivity`` and ``false_positives_per_scan`` are those of all candidates, whatever their score: of what
    the model answers.
    """
    all_ = pool(scans)
    groups: dict[str, NDArray[np.bool_]] = {"": np.ones(len(all_.scores), np.bool_)}
    groups |= {"_below_8_mm": all_.diameters < SMALL_MM, "_from_8_mm": all_.diameters >= SMALL_MM}
    figures: dict[str, float] = {}
    for group, of in groups.items():
        sensitivities = {f"froc_sensitivity_at_{rate:g}{group}": all_.sensitivity_at(rate, of) for rate in RATES}
        figures |= sensitivities
        figures[f"froc_mean{group}"] = float(np.mean(list(sensitivities.values())))
        figures[f"lesion_sensitivity{group}"] = all_.sensitivity_at(np.inf, of)
    known = all_.errors[~np.isnan(all_.errors)]
    figures["false_positives_per_scan"] = len(all_.false) / len(scans) if scans else np.nan
    figures["average_precision"] = all_.average_precision()
    figures["diameter_mae_mm"] = float(np.abs(known).mean()) if len(known) else np.nan
    figures["diameter_bias_mm"] = float(known.mean()) if len(known) else np.nan
    return figures


def _as_high(scores: Floats, thresholds: Floats) -> NDArray[np.int64]:
    """Count the scores of each threshold or more."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, "left")
