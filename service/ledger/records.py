"""What the ledger keeps, and the words for how far it got."""

from dataclasses import dataclass

from service.series.evidence import Evidence
from service.types import ResultObject

ENCODED, SENDING, SENT, SUPERSEDED = ("encoded", "sending", "sent", "superseded")
RECEIVE, ASSEMBLE, INFER, ENCODE, DELIVER = STAGES = ("receive", "assemble", "infer", "encode", "deliver")
READY, RUNNING, DONE, DEAD, CANCELLED = STATES = ("ready", "running", "done", "dead", "cancelled")


@dataclass(frozen=True)
class SeriesRecord:
    """A row of ``series``: what is known of a series from its first instance."""

    key: str
    study_uid: str
    series_uid: str
    modality: str
    sender: str


@dataclass(frozen=True)
class NextJob:
    """A job to create when its predecessor is finished."""

    stage: str
    item: str = ""
    model: str = ""


@dataclass(frozen=True)
class Job:
    """A row of ``jobs``, with its series."""

    id: int
    series: SeriesRecord
    stage: str
    item: str
    model: str
    state: str
    attempts: int
    token: int
    note: str
    created_at: float
    run_at: float
    ended_at: float | None
    seconds: float | None


@dataclass(frozen=True)
class ResultRecord:
    """A row of ``results``: one encoded object and how far it got.

    ``status`` is ``encoded``, ``sending`` (it may have reached the archive), ``sent`` or ``superseded``; ``archive``
    names the one that it was sent to, and stays empty for what never was.
    """

    series: str
    item: str
    model: str
    result: ResultObject
    status: str
    archive: str


@dataclass(frozen=True)
class DecisionRecord:
    """A row of ``decisions``: when a series was found complete, with how many instances, and what that rested on.

    The last one of a series is what its jobs rest on; ``partial`` says that something spoke for more to come.
    """

    series: str
    decided_at: float
    instances: int
    partial: bool
    points: float
    evidence: tuple[Evidence, ...]
    against: tuple[str, ...]


class StaleJob(Exception):
    """The job was claimed by somebody else, reset or cancelled meanwhile: what this worker did does not count."""
