"""A figure with its interval, by drawing patients anew (Efron and Tibshirani, An Introduction to the Bootstrap)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 1000
"""Samples of a bootstrap."""

Statistic = Callable[[NDArray[np.int64]], float]
"""A figure of the cases with these indices, which may be there several times; NaN where it has no value."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; NaN where there is no value."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Statistic, patients: Sequence[str], rounds: int = ROUNDS, seed: int = 1) -> Estimate:
    """Estimate a figure of all cases, and its 95 % percentile interval.

    Patients are drawn with replacement, each with all of its cases: two images of one patient are no two witnesses.

    Parameters
    ----------
    statistic
        See `Statistic`.
    patients
        Whose each case is.
    rounds
        How often patients are drawn; rounds in which the figure has no value are left out.
    seed
        The same seed gives the same interval.
    """
    _, whose = np.unique(np.asarray(patients), return_inverse=True)
    order = np.argsort(whose, kind="stable")
    cases_of = np.split(order, np.cumsum(np.bincount(whose))[:-1]) if len(order) else []
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(rounds if len(cases_of) > 1 else 0):
        chosen = random.integers(len(cases_of), size=len(cases_of))
        drawn.append(statistic(np.concatenate([cases_of[index] for index in chosen])))
    finite = [value for value in drawn if np.isfinite(value)]
    low, high = np.percentile(finite, [2.5, 97.5]) if finite else (np.nan, np.nan)
    return Estimate(float(statistic(np.arange(len(whose)))), float(low), float(high))
