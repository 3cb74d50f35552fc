"""What the ledger keeps, and the words for how far it got."""

from dataclasses import dataclass

from service.series.evidence import Evidence
from service.types import ResultObject

ENCODED, SENDING, SENT, VERIFIED, COMMITTED, SUPERSEDED = STATUSES = (
    "encoded", "sending", "sent", "verified", "committed", "superseded",
)  # fmt: skip
IN_ARCHIVE = (SENT, VERIFIED, COMMITTED)
"""What an archive has, as far as it has told."""
RECEIVE, ASSEMBLE, INFER, ENCODE, DELIVER, COMMIT = STAGES = (
    "receive", "assemble", "infer", "encode", "deliver", "commit",
)  # fmt: skip
READY, RUNNING, DONE, DEAD, CANCELLED = STATES = ("ready", "running", "done", "dead", "cancelled")

STAT, ROUTINE = 0, 100
"""Priorities of jobs: what is smaller comes first."""


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
    """A job to create when its predecessor is finished; with that one's priority where it has none of its own."""

    stage: str
    item: str = ""
    model: str = ""
    priority: int | None = None


@dataclass(frozen=True)
class Job:
    """A row of ``jobs``, with its series. ``owner`` is the node that holds it, or held it last."""

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
    priority: int = ROUTINE
    owner: str = ""


@dataclass(frozen=True)
class ResultRecord:
    """A row of ``results``: one encoded object and how far it got.

    Attributes
    ----------
    status
        What is known of it, and never more (docs/delivery.md): ``encoded``; ``sending``: it may have reached the
        archive; ``sent``: the archive has taken it; ``verified``: the archive lists it; ``committed``: the archive has
        taken responsibility for it (PS3.4 J); ``superseded``: a later version took its place.
    archive
        The one that it was sent to; empty for what never was.
    refused
        How often an archive that had taken it has told that it does not have it, or does not keep it.
    """

    series: str
    item: str
    model: str
    result: ResultObject
    status: str
    archive: str
    refused: int = 0


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
