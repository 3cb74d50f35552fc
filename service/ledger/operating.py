"""What an operator does with the ledger, and what is forgotten in time."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, or_, select, true, update

from service.ledger.jobs import create_job
from service.ledger.records import (
    ASSEMBLE,
    CANCELLED,
    DEAD,
    DELIVER,
    DONE,
    ENCODED,
    INFER,
    READY,
    RECEIVE,
    RUNNING,
    SENDING,
    SUPERSEDED,
    NextJob,
)
from service.ledger.schema import decisions, jobs, results, series
from service.ledger.sql import begins, now

_BATCH = 500
"""So many series are forgotten in one transaction, so that it holds up nobody for long."""


def rerun(connection: Connection, key: str, stage: str, model: str) -> int:
    """Run the work on a series again from a stage on; return how many jobs that makes.

    What follows is created anew by that stage. From `DELIVER` on, objects that an archive has are sent once more.

    Parameters
    ----------
    model
        Only this model's; from `INFER` on it may be one that has not run on the series. Empty for all.
    """
    if stage == ASSEMBLE:
        done = select(jobs.c.item, jobs.c.model, jobs.c.priority).where(jobs.c.series == key, jobs.c.stage == RECEIVE)
        again = [("", "", row.priority) for row in connection.execute(done)]
    else:
        query = select(jobs.c.item, jobs.c.model, jobs.c.priority).where(jobs.c.series == key, jobs.c.stage == stage)
        rows = connection.execute(query.order_by(jobs.c.id)).all()
        again = [(row.item, row.model, row.priority) for row in rows if not model or row.model == model]
        if model and stage == INFER and not again:
            again = list({row.item: (row.item, model, row.priority) for row in rows}.values())
    for item, name, priority in again:
        if stage == DELIVER:
            mine = and_(results.c.series == key, results.c.item == item, results.c.model == name)
            seen = mine, results.c.status.not_in((ENCODED, SUPERSEDED))
            connection.execute(update(results).where(*seen).values(status=SENDING))  # the archive may have them
        create_job(connection, key, NextJob(stage, item, name), priority=priority)
    return len(again)


def operate(connection: Connection, id: int, states: tuple[str, ...], **values: Any) -> bool:
    """Change a job in one of these states; whoever runs it now runs in vain. Return whether there was one."""
    where = and_(jobs.c.id == id, jobs.c.state.in_(states))
    return connection.execute(update(jobs).where(where).values(token=jobs.c.token + 1, **values)).rowcount == 1


def retry_dead(connection: Connection, stage: str | None) -> int:
    """Make all dead jobs ready again, or those of a stage; return how many."""
    where = and_(jobs.c.state == DEAD, true() if stage is None else jobs.c.stage == stage)
    again = {"state": READY, "run_at": now(), "attempts": 0, "ended_at": None, "token": jobs.c.token + 1}
    return connection.execute(update(jobs).where(where).values(**again)).rowcount


def prioritise(connection: Connection, beginning: str, priority: int) -> int:
    """Give a priority to all jobs of some series that have not ended, and to what follows them; return how many."""
    mine = and_(begins(jobs.c.series, beginning), jobs.c.state.in_((READY, RUNNING)))
    return connection.execute(update(jobs).where(mine).values(priority=priority)).rowcount


def prioritise_study(connection: Connection, study_uid: str, priority: int) -> None:
    """Give a priority to all jobs of a study that have not ended and come later; so to what follows them."""
    active = and_(jobs.c.state.in_((READY, RUNNING)), jobs.c.priority > priority)
    theirs = and_(series.c.key == jobs.c.series, series.c.study_uid == study_uid)
    mine = select(series.c.key).where(theirs).correlate(jobs).exists()  # asked of each active job, not of every series
    connection.execute(update(jobs).where(active, mine).values(priority=priority))


def ended_series(moment: float) -> Select[str]:
    """The keys of the series whose work has all ended (done or cancelled) before a moment."""
    ended = and_(jobs.c.state.in_((DONE, CANCELLED)), jobs.c.stage == RECEIVE, jobs.c.ended_at < moment)
    other = jobs.alias()
    goes_on = or_(other.c.state.in_((READY, RUNNING, DEAD)), other.c.ended_at >= moment)
    busy = select(other.c.id).where(other.c.series == jobs.c.series, goes_on)
    return select(jobs.c.series).where(ended, ~busy.exists())


def forget_history(connection: Connection, moment: float) -> int:
    """Forget the jobs and decisions of some series whose work ended before; return of how many, 0 when none is left.

    Their results and counts stay, so that they are recognised when they come again.
    """
    keys = connection.execute(ended_series(moment).limit(_BATCH)).scalars().all()
    for table in (decisions, jobs):
        connection.execute(delete(table).where(table.c.series.in_(keys)))
    return len(keys)


def forget_series(connection: Connection, moment: float) -> int:
    """Forget some series without jobs that were opened before altogether; return how many, 0 when none is left."""
    has_jobs: ColumnElement[bool] = select(jobs.c.id).where(jobs.c.series == series.c.key).exists()
    old = select(series.c.key).where(series.c.opened_at < moment, ~has_jobs).limit(_BATCH)
    keys = connection.execute(old).scalars().all()
    connection.execute(delete(series).where(series.c.key.in_(keys)))
    return len(keys)
