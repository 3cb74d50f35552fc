"""Series in the ledger: which are being received, by whom, and when each was found complete.

The statements on one series follow one another: each begins by locking its row.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, true, update

from service.ledger.decisions import keep_decision
from service.ledger.jobs import create_job, expired, select_jobs
from service.ledger.records import DONE, RECEIVE, ROUTINE, RUNNING, STAT, NextJob, SeriesRecord
from service.ledger.schema import corrections, decisions, jobs, series
from service.ledger.sql import now, upsert
from service.series.evidence import FETCHED, Decision

_BEING_RECEIVED = and_(jobs.c.stage == RECEIVE, jobs.c.state == RUNNING)


def select_series(connection: Connection, key: str) -> SeriesRecord | None:
    """What is known of a series from its first instance."""
    row = connection.execute(select(series).where(series.c.key == key)).first()
    return None if row is None else SeriesRecord(key, row.study_uid, row.series_uid, row.modality, row.sender)


def open_series(
    connection: Connection,
    record: SeriesRecord,
    counts: tuple[int, int],
    urgent: Collection[str],
    owner: str,
    lease_seconds: float,
) -> bool:
    """Note that a series is being received by a node; return whether anything is new.

    Parameters
    ----------
    counts
        How many instances it has, and how many of them were corrected.
    urgent
        Senders whose series come first.
    """
    columns = {name: value.replace("\0", "") for name, value in vars(record).items()}  # PostgreSQL takes no NUL
    fresh = (
        upsert(connection.dialect.name, series).values(**columns, instances=0, opened_at=now()).on_conflict_do_nothing()
    )
    new = connection.execute(fresh).rowcount == 1
    if not new and _known_counts(connection, record.key) == counts:
        return False
    priority = STAT if record.sender in urgent else ROUTINE
    receive = NextJob(RECEIVE, priority=priority)
    create_job(connection, record.key, receive, RUNNING, owner=owner, lease_seconds=lease_seconds)
    return True


def complete_series(
    connection: Connection,
    key: str,
    counts: tuple[int, int],
    note: str,
    next_jobs: Sequence[NextJob],
    decision: Decision | None,
    unless_by: str | None = None,
) -> None:
    """A series is whole: finish its receive stage, create the next ones, and keep what that rested on.

    Parameters
    ----------
    counts
        As for `open_series`.
    unless_by
        A node. Nothing happens where another one receives the series now, or has found it complete just so: then that
        one's decision counts.
    """
    known = _known_counts(connection, key)
    where = and_(jobs.c.series == key, jobs.c.stage == RECEIVE)
    received = connection.execute(select(jobs.c.state, jobs.c.owner, jobs.c.priority).where(where)).one()
    elsewhere = unless_by is not None and received.owner != unless_by
    if elsewhere and (received.state == RUNNING or known == counts):
        return
    if decision is not None:
        keep_decision(connection, key, counts[0], decision)
    connection.execute(update(series).where(series.c.key == key).values(instances=counts[0]))
    connection.execute(delete(corrections).where(corrections.c.series == key))
    connection.execute(insert(corrections).values(series=key, count=counts[1]))
    ended = {"state": DONE, "note": note, "ended_at": now(), "lease_until": None}
    connection.execute(update(jobs).where(where).values(seconds=now() - jobs.c.created_at, **ended))
    for job in next_jobs:
        create_job(connection, key, job, priority=received.priority)


def received_since(connection: Connection, moment: float, senders: Collection[str]) -> list[SeriesRecord]:
    """The series of some senders that were found complete since a moment, and were not fetched."""
    fetched = decisions.c.evidence.contains(f'"name": "{FETCHED}"')
    last = select(func.max(decisions.c.id)).where(decisions.c.series == jobs.c.series).correlate(jobs).scalar_subquery()
    ours = select(decisions.c.id).where(decisions.c.id == last, fetched).exists()
    since = and_(jobs.c.stage == RECEIVE, jobs.c.state == DONE, jobs.c.ended_at >= moment)
    return [job.series for job in select_jobs(connection, since, series.c.sender.in_(senders), ~ours)]


def instances_of(connection: Connection, key: str) -> int | None:
    """How many instances a series had when it was last found complete; None where it is not known."""
    return connection.execute(select(series.c.instances).where(series.c.key == key)).scalar()


def adopt_series(connection: Connection, owner: str | None, lease_seconds: float) -> list[SeriesRecord]:
    """The series that are being received and that nobody else receives any more; they are this node's now.

    Parameters
    ----------
    owner
        This node, where several share the ledger; None for the only one.
    """
    left: ColumnElement[bool] = true() if owner is None else or_(jobs.c.owner == owner, expired())
    mine = update(jobs).where(_BEING_RECEIVED, left).values(owner=owner or "", lease_until=now() + lease_seconds)
    found = connection.execute(mine.returning(jobs.c.id)).scalars().all()
    return [job.series for job in select_jobs(connection, jobs.c.id.in_(found))]


def hold_series(connection: Connection, owner: str, lease_seconds: float) -> None:
    """A node goes on receiving its series."""
    mine = update(jobs).where(_BEING_RECEIVED, jobs.c.owner == owner)
    connection.execute(mine.values(lease_until=now() + lease_seconds))


def series_being_received(connection: Connection) -> list[SeriesRecord]:
    """The series that are not complete yet, whoever receives them."""
    return [job.series for job in select_jobs(connection, _BEING_RECEIVED)]


def _known_counts(connection: Connection, key: str) -> tuple[int, int]:
    """How many instances a series had when it was last found complete, and how many corrected; locks its row."""
    locked = select(series.c.instances).where(series.c.key == key).with_for_update(key_share=True)
    instances = connection.execute(locked).scalar_one()
    corrected = connection.execute(select(corrections.c.count).where(corrections.c.series == key)).scalar() or 0
    return instances, corrected
