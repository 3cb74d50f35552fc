"""Rates, areas under curves, calibration and thresholds: by hand, and as scikit-learn has them."""

import warnings

import numpy as np
import pytest

from evaluation.metrics.calibration import calibration_error, reliability
from evaluation.metrics.classification import (
    NONE,
    RATES,
    Answers,
    chosen_thresholds,
    class_rates,
    classification_figures,
)
from evaluation.metrics.ranking import area_under_curve, precision_recall, roc, youden

CLASSES = ("normal", "pneumonia", "viral")


def random_answers(seed: int, count: int = 200) -> Answers:
    """Mostly right; probabilities of two decimals, so that there are ties."""
    random = np.random.default_rng(seed)
    targets = random.integers(3, size=count)
    probabilities = random.dirichlet([1, 1, 1], count)
    probabilities[np.arange(count), targets] += 0.4
    probabilities = np.round(probabilities / probabilities.sum(axis=1, keepdims=True), 2)
    return Answers(CLASSES, targets, probabilities)


def every(answers: Answers) -> dict[str, float]:
    return answers.figures(np.arange(len(answers.targets)))


def test_rates_are_those_of_a_table_counted_by_hand() -> None:
    # of 10: 4 are true, 3 of them are found; 2 of the other 6 are called too
    truth = np.array([[True]] * 4 + [[False]] * 6)
    decided = np.array([[True]] * 3 + [[False]] + [[True]] * 2 + [[False]] * 4)
    rates = {rate: values[0] for rate, values in class_rates(truth, decided).items()}
    assert rates == pytest.approx({"sensitivity": 3 / 4, "specificity": 4 / 6, "ppv": 3 / 5, "npv": 4 / 5, "f1": 6 / 9})
    assert tuple(rates) == RATES


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the extras test and train")
    answers, figures = random_answers(seed), every(random_answers(seed))
    found = answers.probabilities.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(answers.targets, found)
    for index, name in enumerate(CLASSES):
        truth, scores = answers.targets == index, answers.probabilities[:, index]
        assert figures[f"ppv_{name}"] == pytest.approx(precision[index])
        assert figures[f"sensitivity_{name}"] == pytest.approx(recall[index])
        assert figures[f"f1_{name}"] == pytest.approx(f1[index])
        assert figures[f"specificity_{name}"] == pytest.approx(metrics.recall_score(~truth, found != index))
        assert figures[f"npv_{name}"] == pytest.approx(metrics.precision_score(~truth, found != index))
        assert figures[f"auc_{name}"] == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(answers.targets, found))
    assert figures["f1"] == pytest.approx(metrics.f1_score(answers.targets, found, average="macro"))
    pair = answers.targets != 1
    share = answers.probabilities[:, 2] / (answers.probabilities[:, 2] + answers.probabilities[:, 0])
    expected = metrics.roc_auc_score(answers.targets[pair] == 2, share[pair])
    assert figures["auc_viral_vs_normal"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the extras test and train")
    answers = random_answers(seed)
    truth, scores = answers.targets == 0, answers.probabilities[:, 0]
    expected = np.stack(metrics.roc_curve(truth, scores, drop_intermediate=False), axis=1)
    assert roc(scores, truth) == pytest.approx(expected)
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    expected = np.stack([recall[:-1], precision[:-1], thresholds], axis=1)[::-1]
    assert precision_recall(scores, truth) == pytest.approx(expected)


def test_the_area_under_the_curve_counts_ties_half_and_needs_both_sides() -> None:
    assert area_under_curve(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx(0.875)
    assert np.isnan(area_under_curve(np.array([]), np.array([0.5])))


def test_a_class_is_told_from_another_by_their_share_and_not_by_what_a_third_leaves_over() -> None:
    probabilities = np.array([[0.3, 0.5, 0.2], [0.05, 0.9, 0.05], [0.02, 0.9, 0.08], [0.3, 0.3, 0.4]])
    answers = Answers(CLASSES, np.array([0, 0, 2, 2]), probabilities)
    assert every(answers)["auc_viral_vs_normal"] == 1.0
    # by the probability itself the second viral would score less than the first normal
    assert every(answers)["auc_viral"] == 0.75


def test_normal_is_what_others_are_told_from_wherever_the_model_has_it() -> None:
    answers = random_answers(0)
    turned = Answers(("viral", "normal"), (answers.targets == 0).astype(np.int64), answers.probabilities[:, [2, 0]])
    assert "auc_viral_vs_normal" in every(turned)
    assert {name for name in every(answers) if "_vs_" in name} == {
        "auc_pneumonia_vs_normal",
        "auc_viral_vs_normal",
        "auc_viral_vs_pneumonia",
    }


def test_a_class_that_no_case_shows_has_no_figures_but_may_be_the_wrong_answer() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7], [0.0, 0.0, 1.0]])
    figures = every(Answers(CLASSES, np.array([0, 0, 2, 2]), probabilities))
    assert figures["accuracy"] == 0.75
    assert figures["sensitivity"] == (0.5 + 1.0) / 2
    assert not [name for name in figures if "pneumonia" in name]


def test_a_class_that_is_never_answered_counts_as_a_ppv_of_nothing() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.6, 0.0, 0.4]])
    figures = every(Answers(CLASSES, np.array([0, 0, 2]), probabilities))
    assert np.isnan(figures["ppv_viral"])
    assert figures["ppv"] == pytest.approx((2 / 3 + 0) / 2)


def test_of_one_class_alone_the_npv_is_unknown_but_of_several_one_that_is_always_answered_has_none() -> None:
    sure = np.array([[0.9, 0.1, 0.0]] * 4)
    assert np.isnan(every(Answers(CLASSES, np.zeros(4, np.int64), sure))["npv"])
    assert every(Answers(CLASSES, np.array([0, 0, 0, 2]), sure))["npv"] == pytest.approx((0 + 3 / 4) / 2)


def test_classes_that_stand_alone_are_right_where_all_of_them_are() -> None:
    probabilities = np.array([[0.1, 0.2], [0.7, 0.9], [0.2, 0.8], [0.6, 0.1], [0.3, 0.4]])
    answers = Answers(("effusion", "mass"), np.array([NONE, 0, 1, NONE, NONE]), probabilities, exclusive=False)
    figures = every(answers)
    assert figures["accuracy"] == 0.6
    assert (figures["sensitivity_effusion"], figures["specificity_effusion"]) == (1.0, 0.75)
    assert (figures["sensitivity_mass"], figures["specificity_mass"]) == (1.0, 0.75)


def test_the_calibration_error_is_the_mean_gap_of_the_bins_by_their_size() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, True])
    assert calibration_error(confidence, correct, bins=10) == pytest.approx((4 * 0.2 + 2 * 0.45) / 6)
    assert reliability(confidence, correct, bins=10) == ((pytest.approx(0.55), 1.0), (pytest.approx(0.95), 0.75))


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0


def test_probabilities_that_are_drawn_as_they_say_have_a_small_calibration_error() -> None:
    random = np.random.default_rng(2)
    confidence = random.random(20_000)
    assert calibration_error(confidence, random.random(20_000) < confidence) < 0.02
    assert calibration_error(confidence**2, random.random(20_000) < confidence) > 0.1


def test_youden_chooses_the_middle_between_the_two_scores_that_part_the_classes_best() -> None:
    scores, truth = np.array([0.1, 0.2, 0.6, 0.4, 0.8, 0.9]), np.array([False, False, False, True, True, True])
    assert youden(scores, truth) == pytest.approx(0.7)
    assert np.isnan(youden(scores, np.ones(6, bool)))


def test_rates_at_a_threshold_are_those_of_what_scores_as_much() -> None:
    answers = random_answers(1)
    limits = chosen_thresholds(answers)
    at = Answers(CLASSES, answers.targets, answers.probabilities, thresholds=limits)
    truth, called = answers.targets == 1, answers.probabilities[:, 1] >= limits["pneumonia"]
    figures = every(at)
    assert figures["sensitivity_pneumonia_at_threshold"] == pytest.approx(called[truth].mean())
    assert figures["specificity_pneumonia_at_threshold"] == pytest.approx((~called[~truth]).mean())
    assert "sensitivity_pneumonia_at_threshold" not in every(answers)


def test_a_figure_lies_within_its_interval_and_nothing_warns() -> None:
    answers = random_answers(6, count=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = classification_figures(answers, [str(index // 2) for index in range(40)], rounds=200)
    assert {name for name, each in figures.items() if not each.low <= each.value <= each.high} <= {"ece"}
    assert figures["accuracy"].low < figures["accuracy"].high
