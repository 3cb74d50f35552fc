"""Judging the classes that a model gives an image."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.packages.description import ClassificationSection
from engines.types import Findings, Image
from evaluation.cases import Case
from evaluation.errors import DataError
from evaluation.estimate import Estimate
from evaluation.judgement import Curve
from evaluation.matching import NORMAL_WORDS, class_names, class_of, words_of
from evaluation.metrics.calibration import BINS, reliability
from evaluation.metrics.classification import NONE, Answers, chosen_thresholds, classification_figures
from evaluation.metrics.ranking import precision_recall, roc
from evaluation.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Answer:
    """The true class's index, and the probabilities ``[class]``."""

    target: int
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class ClassJudge:
    """Compares probabilities with the class that is known; see `evaluation.judge.Task`.

    Attributes
    ----------
    section
        Says which classes there are.
    names
        Of the classes, for the metrics.
    thresholds
        By class, empty before they are chosen.
    """

    section: ClassificationSection
    names: tuple[str, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, section: ClassificationSection, labels: Iterable[str]) -> Self:
        """Make one that speaks as the references do, of which these are all the labels."""
        return cls(section, class_names(labels, section))

    def outcome(self, case: Case, image: Image, findings: Findings) -> Outcome[Answer] | None:  # noqa: D102
        if case.label is None or findings.classification is None:
            return None
        target = self._target(case.label)
        found = findings.classification
        probabilities = np.array([entry.probability for entry in found.classes], np.float64)
        present = [name for name, entry in zip(self.names, found.classes, strict=True) if entry in found.present]
        return Outcome(
            patient=case.patient,
            detail=Answer(target, probabilities),
            figures={f"probability_{name}": float(p) for name, p in zip(self.names, probabilities, strict=True)},
            expected="none" if target == NONE else self.names[target],
            answer=", ".join(present) or "none",
        )

    def _target(self, label: str) -> int:
        index = class_of(label, self.section)
        if index is not None:
            return index
        if not self.section.exclusive and words_of(label) in [words_of(normal) for normal in NORMAL_WORDS]:
            return NONE
        known = ", ".join(entry.label for entry in self.section.classes)
        raise DataError(f"the model has no class {label!r}; it has {known}")

    def tuned(self, outcomes: Sequence[Outcome[Answer]]) -> Self:  # noqa: D102
        return replace(self, thresholds=chosen_thresholds(self._answers(outcomes))) if outcomes else self

    def metrics(  # noqa: D102
        self, outcomes: Sequence[Outcome[Answer]], rounds: int, seed: int
    ) -> Mapping[str, Estimate]:
        patients = [outcome.patient for outcome in outcomes]
        return classification_figures(self._answers(outcomes), patients, rounds, seed)

    def curves(self, outcomes: Sequence[Outcome[Answer]]) -> tuple[Curve, ...]:  # noqa: D102
        if not outcomes:
            return ()
        answers = self._answers(outcomes)
        return (*self._pairs(answers), *self._against_rest(answers), _calibration(answers))

    def notes(self, outcomes: Sequence[Outcome[Answer]]) -> tuple[str, ...]:  # noqa: D102
        if not outcomes:
            return ()
        there = Counter(outcome.expected for outcome in outcomes)
        missing = [name for name in self.names if not there[name]]
        answered = "the most probable class" if self.section.exclusive else "every class with a probability of 0.5"
        notes = [f"The answer to a case is {answered}, as a node says it."]
        if self.thresholds:
            notes.append("Thresholds were chosen on the validation cases, by Youden's index of each class.")
        else:
            notes.append("There are no validation cases: no other thresholds were chosen.")
        if missing:
            notes.append(f"No case is {', '.join(missing)}: there are no figures of it, but it may be answered.")
        return tuple(notes)

    def _answers(self, outcomes: Sequence[Outcome[Answer]]) -> Answers:
        return Answers(
            classes=self.names,
            targets=np.array([outcome.detail.target for outcome in outcomes], np.int64),
            probabilities=np.array([outcome.detail.probabilities for outcome in outcomes]),
            exclusive=self.section.exclusive,
            thresholds=self.thresholds,
        )

    def _pairs(self, answers: Answers) -> Iterable[Curve]:
        for one, other in answers.pairs:
            both = answers.truth[:, one] | answers.truth[:, other]
            curve = roc(answers.told_apart(one, other)[both], answers.truth[both, one])
            yield _curve(f"ROC, {self.names[one]} vs {self.names[other]}", "1 − specificity", "sensitivity", curve)

    def _against_rest(self, answers: Answers) -> Iterable[Curve]:
        for index in answers.judged if len(answers.judged) > 1 else ():
            name, scores, truth = self.names[index], answers.probabilities[:, index], answers.truth[:, index]
            threshold = self.thresholds.get(name)
            for kind, x, y, curve in (
                ("ROC", "1 − specificity", "sensitivity", roc(scores, truth)),
                ("Precision–recall", "recall", "precision", precision_recall(scores, truth)),
            ):
                yield _curve(f"{kind}, {name} vs rest", x, y, curve, threshold)


def _calibration(answers: Answers) -> Curve:
    points = reliability(answers.confidence.ravel(), answers.correct.ravel())
    return Curve(f"Calibration, {BINS} bins", "probability given", "how often it was so", points)


def _curve(title: str, x: str, y: str, curve: NDArray[np.float64], threshold: float | None = None) -> Curve:
    """Make a curve of rows of x, y and threshold; what is called at a threshold is the last point above it."""
    points = tuple((float(a), float(b)) for a, b, _ in curve)
    above = [] if threshold is None else np.flatnonzero(curve[:, 2] >= threshold).tolist()
    return Curve(title, x, y, points, {f"threshold {threshold:.3f}": points[above[-1]]} if above else {})
