"""Intervals by drawing patients anew."""

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.estimate import bootstrap, bootstrap_all


def mean_of(values: NDArray[np.float64]):
    return lambda chosen: float(values[chosen].mean())


def test_the_interval_of_a_mean_is_that_of_its_normal_distribution() -> None:
    values = np.random.default_rng(3).normal(10.0, 2.0, 400)
    found = bootstrap(mean_of(values), [str(index) for index in range(400)])
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_ten_images_of_one_patient_are_no_ten_witnesses() -> None:
    by_patient = np.random.default_rng(5).normal(size=30)
    values, patients = np.repeat(by_patient, 10), np.repeat(np.arange(30), 10).astype(str)
    together, apart = bootstrap(mean_of(values), list(patients)), bootstrap(mean_of(values), list(map(str, range(300))))
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(np.sqrt(10), rel=0.2)


def test_the_cases_of_a_patient_need_not_lie_together() -> None:
    values = np.array([0.0, 1.0, 0.0, 1.0])
    found = bootstrap(mean_of(values), ["a", "b", "a", "b"])
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_of_one_patient_there_is_a_figure_and_no_interval() -> None:
    found = bootstrap(mean_of(np.array([1.0, 2.0])), ["a", "a"])
    assert found.value == 1.5
    assert np.isnan([found.low, found.high]).all()


def test_draws_in_which_a_figure_has_no_value_are_left_out() -> None:
    def share_of_first(chosen: NDArray[np.int64]) -> float:
        return float(np.mean(chosen[chosen < 2] == 0)) if (chosen < 2).any() else float("nan")

    found = bootstrap(share_of_first, ["a", "b", "c", "d"])
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_several_figures_are_those_that_each_alone_would_be() -> None:
    values, patients = np.arange(20.0), [str(index // 2) for index in range(20)]
    together = bootstrap_all(
        lambda chosen: {"mean": float(values[chosen].mean()), "most": float(values[chosen].max())}, patients, seed=4
    )
    assert together["mean"] == bootstrap(mean_of(values), patients, seed=4)
    assert together["most"] == bootstrap(lambda chosen: float(values[chosen].max()), patients, seed=4)


def test_a_seed_gives_the_same_interval_again_and_another_seed_another() -> None:
    values, patients = np.random.default_rng(0).random(50), [str(index) for index in range(50)]
    first, again, other = (bootstrap(mean_of(values), patients, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
