"""Judging a model: each case is run as a node runs it, and what is known of it compared with the answer."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from engines.errors import WetreadError
from engines.packages.package import ModelPackage
from engines.types import Findings, Image
from evaluation.cases import Case
from evaluation.estimate import ROUNDS, Estimate
from evaluation.judge_classes import ClassJudge
from evaluation.judge_lesions import LesionJudge
from evaluation.judge_segments import SegmentJudge
from evaluation.judgement import CaseResult, Curve, Judgement
from evaluation.outcome import Outcome

FEWEST = 5
"""Cases that a value of a subgroup needs."""

T = TypeVar("T")


class Models(Protocol):
    """What is judged: an `engines.serving.engine_set.EngineSet`, or anything that runs a model like one."""

    def run(self, name: str, image: Image, /) -> Findings:
        """Run a model over an image, and before it the model that it is cropped to, if need be."""
        ...


class Task(Protocol[T]):
    """One of the things that a model does: how its answers are compared with references, and what comes of it."""

    def outcome(self, case: Case, image: Image, findings: Findings) -> Outcome[T] | None:
        """Compare an answer with what is known; None where nothing is.

        Raises
        ------
        DataError
            What is known does not fit the image or the model.
        """

    def tuned(self, outcomes: Sequence[Outcome[T]]) -> Self:
        """Give the same with thresholds chosen on cases that are not judged."""

    def metrics(self, outcomes: Sequence[Outcome[T]], rounds: int, seed: int) -> Mapping[str, Estimate]:
        """Estimate all figures of some cases."""

    def curves(self, outcomes: Sequence[Outcome[T]]) -> tuple[Curve, ...]:
        """Give what a report draws."""

    def notes(self, outcomes: Sequence[Outcome[T]]) -> tuple[str, ...]:
        """Say what a reader has to know."""


@dataclass(frozen=True, eq=False)
class _Record:
    """A case, with its outcome for each task, or the problem that it met."""

    case: Case
    outcomes: tuple[Outcome[Any] | None, ...] = ()
    problem: str = ""

    @property
    def result(self) -> CaseResult:
        there = [outcome for outcome in self.outcomes if outcome]
        return CaseResult(
            name=self.case.name,
            groups=self.case.groups,
            figures={name: value for outcome in there for name, value in outcome.figures.items()},
            expected="; ".join(outcome.expected for outcome in there),
            answer="; ".join(outcome.answer for outcome in there),
            problem=self.problem,
        )


def judge(
    package: ModelPackage,
    models: Models,
    cases: Sequence[Case],
    data: str,
    *,
    validation: Sequence[Case] = (),
    rounds: int = ROUNDS,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judgement:
    """Judge a model on cases of which something is known that it answers.

    Parameters
    ----------
    package
        Of the model.
    models
        Runs it, under the package's name.
    cases
        What it is judged on. One that cannot be read or analysed, or of which nothing fits, becomes a `CaseResult`
        with its problem, and counts in no figure.
    data
        Which data, in words.
    validation
        Other cases, on which the thresholds of a classifier are chosen.
    rounds, seed
        Of the bootstrap.
    progress
        Called after every image with how many are done, of how many.
    """
    tasks = _tasks(package, (*cases, *validation))
    tuning = tuple(case for case in validation if package.description.classification and case.label is not None)
    total = len(tuning) + len(cases)
    records = []
    for done, case in enumerate((*tuning, *cases), start=1):
        records.append(_record(package, models, tasks, case))
        progress(done, total)
    tuned_on, judged = records[: len(tuning)], records[len(tuning) :]
    if tuned_on:
        tasks = tuple(task.tuned(_outcomes(tuned_on, index)) for index, task in enumerate(tasks))
    good = [record for record in judged if not record.problem]
    return Judgement(
        model=f"{package.name} {package.identity.version}",
        data=data,
        n=len(good),
        metrics=_metrics(tasks, good, rounds, seed),
        subgroups=_subgroups(tasks, good, rounds, seed),
        curves=tuple(curve for index, task in enumerate(tasks) for curve in task.curves(_outcomes(good, index))),
        thresholds={name: value for task in tasks for name, value in getattr(task, "thresholds", {}).items()},
        cases=tuple(record.result for record in judged),
        notes=(
            *(note for index, task in enumerate(tasks) for note in task.notes(_outcomes(good, index))),
            *_general_notes(judged, good),
        ),
    )


def _tasks(package: ModelPackage, cases: Iterable[Case]) -> tuple[Task[Any], ...]:
    described = package.description
    labels = [case.label for case in cases if case.label is not None]
    tasks: list[Task[Any]] = []
    if described.classification:
        tasks.append(ClassJudge.of(described.classification, labels))
    if described.segmentation:
        tasks.append(SegmentJudge(package.segments))
    if described.detection:
        tasks.append(LesionJudge(described.detection.least_score))
    return tuple(tasks)


def _record(package: ModelPackage, models: Models, tasks: Sequence[Task[Any]], case: Case) -> _Record:
    try:
        image = case.image()
        findings = models.run(package.name, image)
        outcomes = tuple(task.outcome(case, image, findings) for task in tasks)
    except WetreadError as error:
        return _Record(case, problem=str(error))
    except (OSError, ValueError, RuntimeError) as error:  # the last is SimpleITK's
        # Not its words: they may hold what is in the file.
        return _Record(case, problem=f"the image or its reference cannot be read ({type(error).__name__})")
    known = any(outcome is not None for outcome in outcomes)
    return _Record(case, outcomes, "" if known else "nothing is known of it that the model answers")


def _outcomes(records: Iterable[_Record], task: int) -> list[Outcome[Any]]:
    there = (record.outcomes[task] for record in records if not record.problem)
    return [outcome for outcome in there if outcome is not None]


def _metrics(tasks: Sequence[Task[Any]], records: Sequence[_Record], rounds: int, seed: int) -> dict[str, Estimate]:
    """All figures that have a value."""
    metrics: dict[str, Estimate] = {}
    for index, task in enumerate(tasks):
        outcomes = _outcomes(records, index)
        if outcomes:
            metrics |= task.metrics(outcomes, rounds, seed)
    return {name: figure for name, figure in metrics.items() if np.isfinite(figure.value)}


def _subgroups(
    tasks: Sequence[Task[Any]], records: Sequence[_Record], rounds: int, seed: int
) -> dict[str, tuple[int, Mapping[str, Estimate]]]:
    subgroups: dict[str, tuple[int, Mapping[str, Estimate]]] = {}
    for key in dict.fromkeys(key for record in records for key in record.case.groups):
        counts = Counter(record.case.groups[key] for record in records if record.case.groups.get(key))
        for value, count in sorted(counts.items()) if len(counts) > 1 else ():
            if count >= FEWEST:
                of_value = [record for record in records if record.case.groups.get(key) == value]
                subgroups[f"{key} = {value}"] = (count, _metrics(tasks, of_value, rounds, seed))
    return subgroups


def _general_notes(judged: Sequence[_Record], good: Sequence[_Record]) -> Iterable[str]:
    if len(good) < len(judged):
        reasons = Counter(record.problem for record in judged if record.problem)
        most, _ = reasons.most_common(1)[0]
        yield (
            f"{len(judged) - len(good)} of {len(judged)} cases could not be judged and count in no figure; "
            f"most often: {most}"
        )
    if len({record.case.patient for record in good}) == 1:
        yield "All cases are one patient's: there are no intervals."
