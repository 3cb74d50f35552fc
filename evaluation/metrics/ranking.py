"""How well a score tells one class from another, at all thresholds: ROC, precision and recall."""

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


def area_under_curve(positive: Scores, negative: Scores) -> float:
    """Give the area under the ROC curve: how often a positive scores higher than a negative; ties count half.

    It is the statistic of Mann and Whitney (Hanley and McNeil, Radiology 143, 1982). NaN where one side is empty.
    """
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))


def roc(scores: Scores, truth: Truth) -> NDArray[np.float64]:
    """Give the ROC curve as rows of 1 - specificity, sensitivity and threshold, from (0, 0) to (1, 1).

    A score of the threshold or more is called positive; the first threshold is infinite.
    """
    thresholds, positive, negative = _called(scores, truth)
    start = np.array([[0.0, 0.0, np.inf]])
    curve = np.stack([negative / max(1, (~truth).sum()), positive / max(1, truth.sum()), thresholds], axis=1)
    return np.concatenate([start, curve])


def precision_recall(scores: Scores, truth: Truth) -> NDArray[np.float64]:
    """Give the precision–recall curve as rows of recall, precision and threshold, in the order of falling thresholds.

    Where nothing is called positive there is no precision, so the curve starts at the highest score.
    """
    thresholds, positive, negative = _called(scores, truth)
    return np.stack([positive / max(1, truth.sum()), positive / (positive + negative), thresholds], axis=1)


def youden(scores: Scores, truth: Truth) -> float:
    """Choose the threshold of the largest sensitivity + specificity (Youden, Cancer 3, 1950).

    It lies in the middle between two scores that were seen; of several, the highest. NaN where one class is missing.
    """
    if not truth.any() or truth.all():
        return float("nan")
    thresholds, positive, negative = _called(scores, truth)
    # in whole numbers, so that equal ones are equal
    best = int((positive * int((~truth).sum()) - negative * int(truth.sum())).argmax())
    return float(thresholds[best : best + 2].mean())


def _called(scores: Scores, truth: Truth) -> tuple[Scores, NDArray[np.int64], NDArray[np.int64]]:
    """Give every score that occurs, falling, and how many positives and negatives score as much or more."""
    order = np.argsort(-scores, kind="stable")
    ordered, true = scores[order], truth[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else np.zeros(0, np.int64)
    positive = np.cumsum(true, dtype=np.int64)[last]
    return ordered[last], positive, last + 1 - positive
