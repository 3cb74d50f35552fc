"""How well the candidates of some scans are scored: FROC by nodule, and where the one real nodule comes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from build_engines.recipes.ladder.cad.scans import NODULE, OTHER, Scan, Searched
from evaluation.estimate import Estimate, bootstrap_all
from evaluation.metrics.detection import RATES, SMALL_MM, Candidates, match
from evaluation.metrics.detection import Scan as Matched
from evaluation.metrics.ranking import area_under_curve

Scores = Sequence[NDArray[np.float64]]
"""Of each scan's candidates."""


def judge(searched: Searched, scores: Scores) -> dict[str, Estimate]:
    """Judge the scores of all candidates of `Searched.judged`."""
    matched = [scored(scan, of) for scan, of in zip(searched.judged, scores, strict=True)]
    chests = len(searched.chests)
    figures = froc_figures(matched[:chests])
    figures["candidates_per_scan"] = _exactly(float(np.mean([len(scan.candidates) for scan in searched.chests])))
    figures |= {
        f"lidc_patches.{name}": each for name, each in patch_figures(searched.patches, scores[chests:-1]).items()
    }
    return figures | {f"nlst.{name}": each for name, each in single_figures(matched[-1]).items()}


def scored(scan: Scan, scores: NDArray[np.float64]) -> Matched:
    """Match the candidates of a scan, as balls of their diameters with these scores, to its lesions."""
    halves = np.array([[candidate.diameter_mm / 2] * 3 for candidate in scan.candidates]).reshape(-1, 3)
    return match(Candidates(scores, scan.places - halves, scan.places + halves), scan.lesions)


def froc_figures(matched: Sequence[Matched]) -> dict[str, Estimate]:
    """Estimate sensitivity at each rate of false positives, by size, with nodules drawn anew.

    All scans may be of one chest; the false positives stay the same in all draws, and the intervals say nothing of
    other chests. A nodule is told by its diameter; each is another patient's.
    """
    found = np.concatenate([each.scores for each in matched])
    diameters = np.concatenate([each.diameters for each in matched])
    false = np.sort(np.concatenate([each.false for each in matched]))[::-1]
    allowed = {rate: int(rate * len(matched)) for rate in RATES}
    limits = {rate: false[many] if many < len(false) else -np.inf for rate, many in allowed.items()}

    def figures(chosen: NDArray[np.int64]) -> Mapping[str, float]:
        small = diameters[chosen] < SMALL_MM
        drawn: dict[str, float] = {}
        for words, of in (("", slice(None)), ("_below_8_mm", small), ("_from_8_mm", ~small)):
            there = found[chosen][of]
            rates = {f"froc_sensitivity_at_{rate:g}{words}": _share(there > limits[rate]) for rate in RATES}
            drawn |= {**rates, f"froc_mean{words}": float(np.mean(list(rates.values())))}
            drawn[f"lesion_sensitivity{words}"] = _share(np.isfinite(there))
        return drawn

    return bootstrap_all(figures, [str(diameter) for diameter in diameters])


def patch_figures(scans: Sequence[Scan], scores: Scores) -> dict[str, Estimate]:
    """Estimate how well a nodule is told from what is in its own patch, patches drawn anew.

    ``auc`` is that of all candidates that are the nodule or something else; ``found_first`` the part of the patches
    whose candidate of the highest score is the nodule.
    """
    targets = [scan.targets for scan in scans]

    def figures(chosen: NDArray[np.int64]) -> Mapping[str, float]:
        values = np.concatenate([scores[index] for index in chosen])
        truth = np.concatenate([targets[index] for index in chosen])
        first = [len(scores[index]) and targets[index][np.argmax(scores[index])] == NODULE for index in chosen]
        return {
            "auc": area_under_curve(values[truth == NODULE], values[truth == OTHER]),
            "found_first": float(np.mean(first)),
            "lesion_sensitivity": float(np.mean([NODULE in targets[index] for index in chosen])),
        }

    return bootstrap_all(figures, [str(index) for index in range(len(scans))])


def single_figures(matched: Matched) -> dict[str, Estimate]:
    """Say whether the one nodule of a scan is among the candidates, and how many false positives score higher."""
    (score,) = matched.scores
    found = bool(np.isfinite(score))
    before = float((matched.false > score).sum()) if found else np.nan
    return {"lesion_sensitivity": _exactly(float(found)), "false_positives_before_nodule": _exactly(before)}


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if len(chosen) else np.nan


def _exactly(value: float) -> Estimate:
    """Give a figure of a single case, which has no interval."""
    return Estimate(float(value), np.nan, np.nan)
