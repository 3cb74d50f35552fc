"""What each stage took, as the ledger has it: along the way of the model whose results were committed last."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.ledger.records import ASSEMBLE, COMMIT, DELIVER, ENCODE, INFER, RECEIVE

COMPLETE = "complete"
WAY = (COMPLETE, ASSEMBLE, INFER, ENCODE, DELIVER, COMMIT)
"""From the last response: until the series counts as whole, until it is a volume, and so on."""


@dataclass(frozen=True)
class Job:
    """A row of the ledger that has ended. Times are seconds since the epoch, ``seconds`` is the work alone."""

    stage: str
    model: str
    state: str
    note: str
    ended_at: float
    seconds: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Job":
        """From a row as the database gives it."""
        fields = ("stage", "model", "state", "note")
        return cls(*(row[name] for name in fields), row["ended_at"] or 0.0, row["seconds"] or 0.0)


@dataclass(frozen=True)
class Taken:
    """One series, sent once.

    Attributes
    ----------
    stages
        Seconds until each stage of the last model's way had ended, from the end of the one before; together they are
        the turnaround.
    waited
        What of these was waiting: for the decision, for a thread, for the one before to be written down.
    work
        Seconds that the jobs of each stage were at work, of all models together.
    first
        Seconds until the results of the model that came first were committed.
    objects
        How many results.
    """

    subject: str
    stages: Mapping[str, float]
    waited: Mapping[str, float]
    work: Mapping[str, float]
    first: float
    objects: int

    @property
    def turnaround(self) -> float:
        """Seconds from the last C-STORE response to the last result that was committed."""
        return sum(self.stages.values())

    def with_gpu(self, times: float) -> float:
        """What the turnaround would be if inference alone were so many times as fast."""
        return self.turnaround - self.stages[INFER] * (1 - 1 / times)


def taken(subject: str, answered_at: float, jobs: Sequence[Job], objects: int) -> Taken:
    """What a series took whose last instance was acknowledged at a moment.

    Raises
    ------
    ValueError
        A model has no results.
    """
    commits = sorted((job for job in jobs if job.stage == COMMIT), key=lambda job: job.ended_at)
    if not commits:
        raise ValueError("no results were committed")
    last = commits[-1].model
    stage_of = {COMPLETE: RECEIVE}
    stages, waited, before = dict[str, float](), dict[str, float](), answered_at
    for name in WAY:
        stage = stage_of.get(name, name)
        [job] = [job for job in jobs if job.stage == stage and job.model in ("", last)]
        stages[name] = job.ended_at - before
        waited[name] = stages[name] - (job.seconds if name != COMPLETE else 0.0)
        before = job.ended_at
    work = {stage: sum(job.seconds for job in jobs if job.stage == stage) for stage in WAY[1:]}
    return Taken(subject, stages, waited, work, commits[0].ended_at - answered_at, objects)


def keep(path: Path, one: Taken) -> None:
    """Append to a file of what was measured before."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(one)) + "\n")


def kept(path: Path) -> list[Taken]:
    """All that was measured; nothing where there is no such file."""
    return [Taken(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
