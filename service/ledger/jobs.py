"""Jobs in the ledger: one stage of one series, item and model; who has them, and for how long.

The statements that every job goes through are built once: building one takes longer than a database needs for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Float,
    Text,
    and_,
    bindparam,
    cast,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from service.ledger.records import (
    COMMIT,
    DEAD,
    DELIVER,
    DONE,
    READY,
    RECEIVE,
    ROUTINE,
    RUNNING,
    STAT,
    Job,
    NextJob,
    SeriesRecord,
    StaleJob,
)
from service.ledger.schema import jobs, series
from service.ledger.sql import now, upsert

CRASHES = 5
"""After so many attempts, a job that was running when a node ended without a word is not tried again."""
_ABOUT = (series.c.study_uid, series.c.series_uid, series.c.modality, series.c.sender)
"""What a job says of its series."""


def create_job(
    connection: Connection,
    key: str,
    job: NextJob,
    state: str = READY,
    *,
    priority: int = ROUTINE,
    owner: str = "",
    lease_seconds: float | None = None,
) -> None:
    """Create a job; one that is there already starts afresh, and whoever runs it now runs in vain."""
    values = {
        "series": key, "stage": job.stage, "item": job.item, "model": job.model, "state": state, "owner": owner,
        "priority": priority if job.priority is None else job.priority, "lease": lease_seconds,
    }  # fmt: skip
    connection.execute(_create(connection.dialect.name), values)


@cache
def _create(dialect: str) -> Executable:
    fresh = {
        "state": bindparam("state"), "run_at": now(), "attempts": 0, "note": "", "created_at": now(), "ended_at": None,
        "seconds": None, "priority": bindparam("priority"), "owner": bindparam("owner"),
        "lease_until": now() + bindparam("lease", type_=Float),
    }  # fmt: skip
    which: dict[str, Any] = {name: bindparam(name) for name in ("series", "stage", "item", "model")}
    insert = upsert(dialect, jobs).values(**which, token=0, **fresh)
    return insert.on_conflict_do_update(index_elements=[*which], set_={**fresh, "token": jobs.c.token + 1})


def select_jobs(connection: Connection, *conditions: Any) -> list[Job]:
    """The jobs for which all conditions hold, in the order in which they were created."""
    query = select(jobs, *_ABOUT).join(series).where(*conditions).order_by(jobs.c.id)
    return [_job(row) for row in connection.execute(query)]


@dataclass(frozen=True)
class Whose:
    """Jobs on the series of these senders (calling AE titles), ``only`` these or all but these."""

    senders: tuple[str, ...]
    only: bool = True


def claim_job(
    connection: Connection,
    stages: Iterable[str],
    only_urgent: bool,
    owner: str,
    lease_seconds: float,
    whose: Whose | None = None,
) -> Job | None:
    """Take the next job of these stages that is due, or None; what another one is just taking is passed over."""
    claim = _claim(tuple(stages), only_urgent, whose)
    row = connection.execute(claim, {"owner": owner, "lease": lease_seconds}).first()
    return None if row is None else _job(row)


@cache
def _claim(stages: tuple[str, ...], only_urgent: bool, whose: Whose | None) -> Executable:
    due = [jobs.c.state == READY, jobs.c.stage.in_(stages), jobs.c.run_at <= now()]
    if only_urgent:
        due.append(jobs.c.priority <= STAT)
    if whose is not None:
        # asked of each job that is due, not of every series that there ever was
        sent = and_(series.c.key == jobs.c.series, series.c.sender.in_(whose.senders))
        theirs = select(series.c.key).where(sent).correlate(jobs).exists()
        due.append(theirs if whose.only else not_(theirs))
    next_one = (
        select(jobs.c.id)
        .where(*due)
        .order_by(jobs.c.priority, jobs.c.run_at, jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = {
        "state": RUNNING, "token": jobs.c.token + 1, "attempts": jobs.c.attempts + 1, "owner": bindparam("owner"),
        "lease_until": now() + bindparam("lease", type_=Float),
    }  # fmt: skip
    # without the cast, or joined to the claim, SQLite would look through all series
    its = series.c.key == cast(jobs.c.series, Text)
    about = [select(column).where(its).correlate(jobs).scalar_subquery().label(column.name) for column in _ABOUT]
    return update(jobs).where(jobs.c.id == next_one.scalar_subquery()).values(**taken).returning(*jobs.c, *about)


def set_job(connection: Connection, job: Job, **values: Any) -> None:
    """Change a job that is held. Raises `StaleJob`."""
    held = and_(jobs.c.id == job.id, jobs.c.token == job.token, jobs.c.state == RUNNING)
    if connection.execute(update(jobs).where(held).values(**values)).rowcount != 1:
        raise _stale(job)


def finish_job(connection: Connection, job: Job, note: str, seconds: float) -> int:
    """Finish a job that is held; return its priority, which may have changed meanwhile. Raises `StaleJob`."""
    values = {"which": job.id, "held": job.token, "said": note, "spent": seconds}
    priority = connection.execute(_finish(), values).scalar()
    if priority is None:
        raise _stale(job)
    return int(priority)


@cache
def _finish() -> Executable:
    held = and_(jobs.c.id == bindparam("which"), jobs.c.token == bindparam("held"), jobs.c.state == RUNNING)
    said: dict[str, Any] = {"note": bindparam("said"), "seconds": bindparam("spent")}
    done = update(jobs).where(held).values(state=DONE, ended_at=now(), lease_until=None, **said)
    return done.returning(jobs.c.priority)


def _stale(job: Job) -> StaleJob:
    return StaleJob(f"job {job.id} ({job.stage}) was taken over, reset or cancelled")


def expired() -> ColumnElement[bool]:
    """Whether the lease of a running job has ended."""
    return or_(jobs.c.lease_until < now(), jobs.c.lease_until.is_(None))


def free_jobs(connection: Connection, left: ColumnElement[bool]) -> int:
    """Make those running jobs ready that somebody has left; return how many.

    One that was left `CRASHES` times is likely the reason, and becomes a dead letter; delivery and commitment are not,
    since their attempts count how often the archive was away.
    """
    running = and_(jobs.c.state == RUNNING, jobs.c.stage != RECEIVE, left)
    fatal = and_(running, jobs.c.attempts >= CRASHES, jobs.c.stage.not_in((DELIVER, COMMIT)))
    note = f"the node ended {CRASHES} times in this stage; look at its log and memory, then retry"
    free = {"lease_until": None, "token": jobs.c.token + 1}
    connection.execute(update(jobs).where(fatal).values(state=DEAD, note=note, ended_at=now(), **free))
    return connection.execute(update(jobs).where(running).values(state=READY, **free)).rowcount


def advance_jobs(connection: Connection, seconds: float) -> None:
    """Make all that is to be done later be done so much sooner, because the clock was set back."""
    later = and_(jobs.c.state.in_((READY, RUNNING)), jobs.c.run_at > now())
    connection.execute(update(jobs).where(later).values(run_at=jobs.c.run_at - seconds))
    connection.execute(update(jobs).where(jobs.c.created_at > now()).values(created_at=jobs.c.created_at - seconds))
    leases = update(jobs).where(jobs.c.state == RUNNING, jobs.c.lease_until > now())
    connection.execute(leases.values(lease_until=jobs.c.lease_until - seconds))


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        series=SeriesRecord(row.series, row.study_uid, row.series_uid, row.modality, row.sender),
        stage=row.stage,
        item=row.item,
        model=row.model,
        state=row.state,
        attempts=row.attempts,
        token=row.token,
        note=row.note,
        created_at=row.created_at,
        run_at=row.run_at,
        ended_at=row.ended_at,
        seconds=row.seconds,
        priority=row.priority,
        owner=row.owner,
    )
