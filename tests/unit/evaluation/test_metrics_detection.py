"""Which lesions are found, at how many false positives."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.cases import Lesion
from evaluation.metrics.detection import (
    Candidates,
    Scan,
    centre_in_lesion,
    detection_figures,
    figures_of,
    froc,
    match,
    overlapping_by,
    pool,
)


def candidates(*each: tuple[float, tuple[float, ...]], size: float = 4.0) -> Candidates:
    """Boxes of one size from scores and centres."""
    centres = np.array([centre for _, centre in each], float).reshape(len(each), -1)
    return Candidates(np.array([score for score, _ in each], float), centres - size / 2, centres + size / 2)


def ball(centre: tuple[float, ...], diameter: float | None, side: float = 0.0) -> Lesion:
    low, high = (tuple(place + sign * side / 2 for place in centre) for sign in (-1, 1))
    return Lesion(low, high, diameter)


def scan(scores: list[float], false: list[float], diameters: list[float] | None = None) -> Scan:
    """A scan with lesions found with these scores; minus infinity is not found."""
    count = len(scores)
    return Scan(
        scores=np.array(scores, float),
        diameters=np.array(diameters or [np.nan] * count, float),
        errors=np.full(count, np.nan),
        false=np.array(false, float),
        repeated=np.zeros(0),
    )


def test_a_candidate_finds_a_lesion_whose_radius_reaches_its_centre() -> None:
    near, far = (0.9, (13.0, 10.0, 10.0)), (0.8, (15.5, 10.0, 10.0))
    assert centre_in_lesion(candidates(near, far), ball((10, 10, 10), 10.0)).tolist() == [True, False]
    # at the very surface it is not found, as in LUNA16
    assert centre_in_lesion(candidates(near, far), ball((10, 10, 10), 6.0)).tolist() == [False, False]


def test_a_lesion_of_unknown_diameter_is_found_in_its_box_and_a_mere_point_in_the_candidates() -> None:
    there = candidates((0.9, (12.0, 10.0)), (0.8, (16.0, 10.0)), size=6.0)
    assert centre_in_lesion(there, ball((10, 10), None, side=5.0)).tolist() == [True, False]
    assert centre_in_lesion(there, ball((14, 10), None)).tolist() == [True, True]
    assert centre_in_lesion(there, ball((10, 14), None)).tolist() == [False, False]


def test_boxes_overlap_by_their_intersection_over_union() -> None:
    # 4 × 4 against 4 × 4 moved by 2: 8 of 24
    there = candidates((0.9, (2.0, 0.0)), (0.5, (9.0, 0.0)), size=4.0)
    lesion = ball((0, 0), None, side=4.0)
    assert overlapping_by(0.33)(there, lesion).tolist() == [True, False]
    assert overlapping_by(0.34)(there, lesion).tolist() == [False, False]
    assert overlapping_by(0.0)(there, lesion).tolist() == [True, False]


def test_a_lesion_is_found_once_and_what_finds_it_again_is_not_false() -> None:
    there = candidates((0.6, (10.0, 10.0)), (0.9, (11.0, 10.0)), (0.3, (30.0, 10.0)), size=5.0)
    found = match(there, [ball((10, 10), 8.0), ball((50, 50), 8.0)])
    assert found.scores.tolist() == [0.9, -np.inf]
    assert found.false.tolist() == [0.3]
    assert found.repeated.tolist() == [0.6]
    assert found.errors[0] == pytest.approx(-3.0)
    assert np.isnan(found.errors[1])


def test_a_candidate_between_two_lesions_finds_both() -> None:
    found = match(candidates((0.7, (10.0, 10.0))), [ball((8, 10), 6.0), ball((12, 10), 6.0)])
    assert found.scores.tolist() == [0.7, 0.7]
    assert not len(found.false)


def test_a_scan_without_lesions_has_only_false_positives_and_one_without_candidates_only_misses() -> None:
    assert match(candidates((0.4, (1.0, 1.0))), []).false.tolist() == [0.4]
    nothing = Candidates(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))
    assert match(nothing, [ball((1, 1, 1), 5.0)]).scores.tolist() == [-np.inf]


def test_sensitivity_is_given_at_as_many_false_positives_as_are_allowed() -> None:
    scans = [scan([0.9, 0.55], [0.8, 0.5]), scan([0.6, 0.3], [0.7, 0.2]), scan([], [0.4, 0.35]), scan([-np.inf], [])]
    # false: 0.8 0.7 0.5 0.4 0.35 0.2 in four scans; found: 0.9 0.6 0.55 0.3 of five
    all_ = pool(scans)
    assert all_.sensitivity_at(0.125) == pytest.approx(1 / 5)
    assert all_.sensitivity_at(0.25) == pytest.approx(1 / 5)
    assert all_.sensitivity_at(0.5) == pytest.approx(3 / 5)
    assert all_.sensitivity_at(1.0) == pytest.approx(3 / 5)
    assert all_.sensitivity_at(1.25) == pytest.approx(4 / 5)
    assert all_.sensitivity_at(8.0) == pytest.approx(4 / 5)


def test_a_lesion_that_scores_as_a_false_positive_is_not_found_before_it() -> None:
    assert pool([scan([0.5], [0.5])]).sensitivity_at(0.5) == 0.0
    assert pool([scan([0.5], [0.5])]).sensitivity_at(1.0) == 1.0


def test_the_curve_goes_through_the_sensitivities_that_are_given() -> None:
    random = np.random.default_rng(3)
    scans = [scan(list(random.random(2)), list(random.random(random.integers(12)) ** 2)) for _ in range(20)]
    curve = froc(scans)
    assert (np.diff(curve[:, :2], axis=0) >= 0).all()
    for rate in (0.125, 0.5, 2.0, 8.0):
        assert pool(scans).sensitivity_at(rate) == curve[curve[:, 0] <= rate, 1].max(initial=0)


def test_sizes_are_told_apart_and_share_all_false_positives() -> None:
    figures = figures_of([scan([0.9, 0.4], [0.5, 0.45], [12.0, 5.0]), scan([-np.inf, 0.8], [], [8.0, 7.9])])
    assert figures["lesion_sensitivity"] == 0.75
    assert figures["lesion_sensitivity_from_8_mm"] == 0.5
    assert figures["lesion_sensitivity_below_8_mm"] == 1.0
    assert figures["froc_sensitivity_at_0.5_below_8_mm"] == 0.5
    assert figures["froc_sensitivity_at_1_below_8_mm"] == 1.0
    assert figures["false_positives_per_scan"] == 1.0
    at = [figures[f"froc_sensitivity_at_{rate}"] for rate in ("0.125", "0.25", "0.5", "1", "2", "4", "8")]
    assert figures["froc_mean"] == pytest.approx(np.mean(at))


def test_average_precision_is_the_area_under_the_steps() -> None:
    # in order: hit, false, hit, and one is never found: 1/3 · 1 + 1/3 · 2/3
    assert pool([scan([0.9, 0.5, -np.inf], [0.7])]).average_precision() == pytest.approx(1 / 3 + 2 / 9)
    # false, hit, hit: a precision of 1/2, then 2/3, which is also to be had at the first
    assert pool([scan([0.9, 0.5], [0.95])]).average_precision() == pytest.approx(2 / 3)


def test_a_second_hit_of_a_lesion_costs_precision() -> None:
    once = scan([0.9, 0.5], [])
    twice = replace(once, repeated=np.array([0.8]))
    assert pool([once]).average_precision() == 1.0
    assert pool([twice]).average_precision() == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert pool([twice]).sensitivity_at(0.125) == 1.0


def test_diameters_err_by_the_sides_of_the_box_less_the_diameter() -> None:
    there = candidates((0.9, (10.0, 10.0, 10.0)), (0.8, (40.0, 40.0, 40.0)), size=6.0)
    figures = figures_of([match(there, [ball((10, 10, 10), 8.0), ball((40, 40, 40), 5.0)])])
    assert figures["diameter_mae_mm"] == pytest.approx(1.5)
    assert figures["diameter_bias_mm"] == pytest.approx(-0.5)


def test_a_diameter_that_the_detector_says_goes_before_the_sides_of_its_box() -> None:
    there = candidates((0.9, (10.0, 10.0)), (0.9, (30.0, 10.0)), (0.9, (50.0, 10.0)), size=6.0)
    told = Candidates(there.scores, there.low, there.high, np.array([9.0, np.nan, 5.0]))
    point = Candidates(told.scores, told.centres, told.centres)
    lesions = [ball((10, 10), 8.0), ball((30, 10), 8.0), ball((50, 10), 8.0)]
    assert match(told, lesions).errors.tolist() == [1.0, -2.0, -3.0]
    assert np.isnan(match(point, lesions).errors).all()


def test_intervals_come_from_drawing_patients() -> None:
    scans = [scan([0.9], [], [10.0]), scan([-np.inf], [0.5], [10.0])] * 10
    figures = detection_figures(scans, [str(index) for index in range(20)], rounds=200)
    assert 0.2 < figures["lesion_sensitivity"].low < 0.5 < figures["lesion_sensitivity"].high < 0.8
    assert np.isnan(figures["froc_mean_below_8_mm"].value)
