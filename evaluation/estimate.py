"""A figure with its interval, by drawing patients anew (Efron and Tibshirani, An Introduction to the Bootstrap)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 1000
"""Samples of a bootstrap."""

Statistic = Callable[[NDArray[np.int64]], float]
"""A figure of the cases with these indices, which may be there several times; NaN where it has no value."""

Statistics = Callable[[NDArray[np.int64]], Mapping[str, float]]
"""Several figures of the cases with these indices, by name; the same names for all cases."""


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
    return bootstrap_all(lambda chosen: {"": statistic(chosen)}, patients, rounds, seed)[""]


def bootstrap_all(
    statistics: Statistics, patients: Sequence[str], rounds: int = ROUNDS, seed: int = 1
) -> dict[str, Estimate]:
    """Estimate several figures as `bootstrap` does one, all by the same draws."""
    values = statistics(np.arange(len(patients)))
    drawn = [statistics(chosen) for chosen in _draws(patients, rounds, seed)]
    return {name: _estimate(value, [figures[name] for figures in drawn]) for name, value in values.items()}


def _draws(patients: Sequence[str], rounds: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw as many patients as there are; of a single one there is nothing to draw."""
    _, whose = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    order = np.argsort(whose, kind="stable")
    cases_of = np.split(order, np.cumsum(np.bincount(whose))[:-1]) if len(order) else []
    random = np.random.default_rng(seed)
    for _ in range(rounds if len(cases_of) > 1 else 0):
        chosen = random.integers(len(cases_of), size=len(cases_of))
        yield np.concatenate([cases_of[index] for index in chosen])


def _estimate(value: float, drawn: Sequence[float]) -> Estimate:
    finite = [each for each in drawn if np.isfinite(each)]
    low, high = np.percentile(finite, [2.5, 97.5]) if finite else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))
