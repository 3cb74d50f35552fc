"""How often a classifier is right: rates by class, areas under curves, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evaluation.estimate import ROUNDS, Estimate, bootstrap_all
from evaluation.metrics.calibration import calibration_error
from evaluation.metrics.ranking import area_under_curve, youden

RATES = ("sensitivity", "specificity", "ppv", "npv", "f1")
NONE = -1
"""The target of a case that shows none of the classes; only where they do not exclude each other."""


def class_rates(truth: NDArray[np.bool_], decided: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Give `RATES` of each class against the rest.

    Parameters
    ----------
    truth, decided
        ``[case, class]``: what it shows, and what it was said to show.

    Returns
    -------
    dict
        ``[class]`` by rate: sensitivity TP / (TP + FN), specificity TN / (TN + FP), PPV TP / (TP + FP),
        NPV TN / (TN + FN), F1 2 TP / (2 TP + FP + FN). NaN where a class is not there or was never answered.
    """
    tp, fp = (truth & decided).sum(axis=0), (~truth & decided).sum(axis=0)
    fn, tn = (truth & ~decided).sum(axis=0), (~truth & ~decided).sum(axis=0)
    return {
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier said of some cases, and what is true.

    Attributes
    ----------
    classes
        Names for the metrics, in the order of the probabilities; an empty name leaves a class out of the figures.
    targets
        ``[case]``: index of the true class, or `NONE`.
    probabilities
        ``[case, class]``.
    exclusive
        Whether a case shows exactly one class: the answer is then the most probable one, otherwise each with 0.5 or
        more.
    thresholds
        By class, for the rates at a threshold (``sensitivity_CLASS_at_threshold`` and so on).
    """

    classes: Sequence[str]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    exclusive: bool = True
    thresholds: Mapping[str, float] | None = None

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """``[case, class]``: whether the case shows the class."""
        return _one_hot(self.targets, len(self.classes))

    @cached_property
    def decided(self) -> NDArray[np.bool_]:
        """``[case, class]``: whether the case was said to show the class."""
        if self.exclusive:
            return _one_hot(self.probabilities.argmax(axis=1), len(self.classes))
        return np.asarray(self.probabilities >= 0.5)

    @cached_property
    def judged(self) -> tuple[int, ...]:
        """The classes that figures are given of: with a name, and true of at least one case."""
        return tuple(index for index, name in enumerate(self.classes) if name and self.truth[:, index].any())

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """``[case, answer]``: probability of the most probable class, or of every class where each stands alone."""
        return np.max(self.probabilities, axis=1)[:, None] if self.exclusive else self.probabilities

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """``[case, answer]``: whether what `confidence` is about is true."""
        return np.any(self.truth & self.decided, axis=1)[:, None] if self.exclusive else self.truth

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Classes that are told from each other: all pairs, the class called normal second, else the earlier one."""
        ordered = sorted(self.judged, key=lambda index: (self.classes[index] != "normal", index))
        return tuple((later, earlier) for earlier, later in combinations(ordered, 2))

    def figures(self, chosen: NDArray[np.int64]) -> dict[str, float]:
        """Give every figure of some of the cases; see docs/evaluation.md for their names."""
        truth, probabilities = self.truth[chosen], self.probabilities[chosen]
        right = (truth == self.decided[chosen]).all(axis=1)
        figures = {"accuracy": float(right.mean()) if len(chosen) else np.nan}
        rates = class_rates(truth, self.decided[chosen])
        areas = np.array([area_under_curve(p[t], p[~t]) for p, t in zip(probabilities.T, truth.T, strict=True)])
        present = [index for index in self.judged if truth[:, index].any()]
        for rate, values in {**rates, "auc": areas}.items():
            counted = values[present]
            if rate == "ppv" or (rate == "npv" and not truth[:, present].all()):
                # A class that is there and was never answered has no PPV, and one that is always answered no NPV;
                # leaving it out would flatter. Where no other class is there, nothing is known of the NPV.
                counted = np.nan_to_num(counted)
            figures[rate] = float(counted.mean()) if len(present) else np.nan
            figures |= {f"{rate}_{self.classes[index]}": float(values[index]) for index in self.judged}
        for one, other in self.pairs:
            figures[f"auc_{self.classes[one]}_vs_{self.classes[other]}"] = self._told_apart(chosen, one, other)
        figures["ece"] = calibration_error(self.confidence[chosen].ravel(), self.correct[chosen].ravel())
        return figures | self._at_thresholds(chosen)

    def told_apart(self, one: int, other: int) -> NDArray[np.float64]:
        """``[case]``: share of the probability of two classes that the first has."""
        both = self.probabilities[:, one] + self.probabilities[:, other]
        return np.asarray(np.divide(self.probabilities[:, one], both, out=np.full(len(both), 0.5), where=both > 0))

    def _told_apart(self, chosen: NDArray[np.int64], one: int, other: int) -> float:
        scores, targets = self.told_apart(one, other)[chosen], self.targets[chosen]
        return area_under_curve(scores[targets == one], scores[targets == other])

    def _at_thresholds(self, chosen: NDArray[np.int64]) -> dict[str, float]:
        limits = self.thresholds or {}
        known = [index for index in self.judged if self.classes[index] in limits]
        least = np.array([limits[self.classes[index]] for index in known])
        rates = class_rates(self.truth[chosen][:, known], self.probabilities[chosen][:, known] >= least)
        return {
            f"{rate}_{self.classes[index]}_at_threshold": float(value)
            for rate, values in rates.items()
            for index, value in zip(known, values, strict=True)
        }


def classification_figures(
    answers: Answers, patients: Sequence[str], rounds: int = ROUNDS, seed: int = 1
) -> dict[str, Estimate]:
    """Estimate every figure of `Answers.figures`, with patients drawn anew."""
    return bootstrap_all(answers.figures, patients, rounds, seed)


def chosen_thresholds(answers: Answers) -> dict[str, float]:
    """Choose a threshold for each class against the rest, on cases that are not those to be judged; see `youden`."""
    found = {
        answers.classes[index]: youden(answers.probabilities[:, index], answers.truth[:, index])
        for index in answers.judged
    }
    return {name: threshold for name, threshold in found.items() if np.isfinite(threshold)}


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))


def _one_hot(indices: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    return np.asarray(indices[:, None] == np.arange(length))
