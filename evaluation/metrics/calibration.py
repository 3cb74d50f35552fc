"""Whether probabilities mean what they say."""

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of equal width, as in Guo et al., On Calibration of Modern Neural Networks (ICML 2017)."""


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS) -> float:
    """Give the expected calibration error (ECE): the mean distance of confidence and accuracy, by bins of confidence.

    Parameters
    ----------
    confidence
        ``[answer]``, 0–1: the probability that was given to each answer.
    correct
        ``[answer]``: whether it was right.
    bins
        How many, of equal width; each counts by its number of answers.
    """
    if not len(confidence):
        return float("nan")
    bin_of = _bins_of(confidence, bins)
    excess = np.bincount(bin_of, weights=confidence - correct, minlength=bins)
    return float(np.abs(excess).sum() / len(confidence))


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> tuple[tuple[float, float], ...]:
    """Give mean confidence and accuracy of every bin that has an answer."""
    bin_of = _bins_of(confidence, bins)
    return tuple(
        (float(confidence[bin_of == each].mean()), float(correct[bin_of == each].mean())) for each in np.unique(bin_of)
    )


def _bins_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
