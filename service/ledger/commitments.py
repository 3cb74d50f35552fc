"""What archives say of results that they were sent, as the ledger keeps it.

It may come at any time, by any way and more than once, whoever holds the job just then, if anybody does. So what is
said goes to the results; the job of the stage `commit` is only made due, and reads there what has become of them.
"""

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, case, or_, select, update

from service.commitment import Report
from service.ledger.jobs import select_jobs
from service.ledger.records import (
    COMMIT,
    COMMITTED,
    DEAD,
    DONE,
    READY,
    RUNNING,
    SENDING,
    SENT,
    VERIFIED,
    Job,
    ResultRecord,
)
from service.ledger.schema import jobs, results

TransactionOf = Callable[[Job, int], str]
"""The UID of the transaction that a job has opened while it had this token."""


def keep_report(connection: Connection, report: Report, transaction_of: TransactionOf) -> list[Job]:
    """Write down what an archive reports; return the jobs that had asked, none where nobody has.

    An instance that is committed is so whichever request was answered. That it is not kept counts only as the answer to
    the last one: before that it was perhaps sent again.
    """
    named = [*report.committed, *(uid for uid, _ in report.failed)]
    columns = (results.c.series, results.c.item, results.c.model)
    found = connection.execute(select(*columns).where(results.c.sop_instance_uid.in_(named)).distinct()).all()
    asked = []
    for series, item, model in found:
        mine = and_(jobs.c.series == series, jobs.c.item == item, jobs.c.model == model)
        for job in select_jobs(connection, mine, jobs.c.stage == COMMIT):
            tokens = range(job.token, -1, -1)
            token = next((each for each in tokens if transaction_of(job, each) == report.transaction_uid), None)
            if token is not None:
                asked.append(job)
                _keep(connection, job, report.committed, report.refused if token == job.token else ())
    return asked


def _keep(connection: Connection, job: Job, committed: Collection[str], refused: Collection[str]) -> None:
    taken = and_(_of(job), results.c.status.in_((SENT, VERIFIED)))
    kept = update(results).where(taken, results.c.sop_instance_uid.in_(committed)).values(status=COMMITTED)
    changed = connection.execute(kept).rowcount
    lost = _refuse(connection, taken, refused)
    if changed or lost:
        _wake(connection, job, (READY, RUNNING, DEAD, DONE) if lost else (READY, RUNNING, DEAD))


def keep_verified(connection: Connection, records: Sequence[ResultRecord]) -> None:
    """The archive lists these."""
    listed = and_(_named(records), results.c.status == SENT)
    connection.execute(update(results).where(listed).values(status=VERIFIED))


def keep_refused(connection: Connection, records: Sequence[ResultRecord]) -> None:
    """The archive has taken these and has them no more, or never had."""
    _refuse(connection, results.c.status == SENT, [record.result.sop_instance_uid for record in records])


def forgive(connection: Connection, records: Sequence[ResultRecord]) -> None:
    """Forget how often the archive has refused these, so that an operator's retry begins anew."""
    connection.execute(update(results).where(_named(records)).values(refused=0))


def wake_if_answered(connection: Connection, job: Job) -> None:
    """Make a job due that goes back to wait for an answer, if that came while it was on its way."""
    lost = and_(results.c.status == SENDING, results.c.refused > 0)
    counted = select(results.c.status).where(_of(job), or_(results.c.status == SENT, lost))
    statuses = set(connection.execute(counted).scalars())
    if statuses != {SENT}:
        _wake(connection, job, (READY,))


def is_result(connection: Connection, sop_instance_uid: str) -> bool:
    """Whether it is an instance that was made here."""
    found = select(results.c.id).where(results.c.sop_instance_uid == sop_instance_uid)
    return connection.execute(found).first() is not None


def _refuse(connection: Connection, which: ColumnElement[bool], uids: Collection[str]) -> int:
    """Have these sent again: they are as if their sending had been interrupted."""
    lost = update(results).where(which, results.c.sop_instance_uid.in_(uids))
    return connection.execute(lost.values(status=SENDING, refused=results.c.refused + 1)).rowcount


def _wake(connection: Connection, job: Job, states: Collection[str]) -> None:
    lives = case((jobs.c.state == RUNNING, RUNNING), else_=READY)
    due = {"run_at": jobs.c.created_at, "state": lives, "ended_at": None}
    connection.execute(update(jobs).where(jobs.c.id == job.id, jobs.c.state.in_(states)).values(**due))


def _of(job: Job) -> ColumnElement[bool]:
    return and_(results.c.series == job.series.key, results.c.item == job.item, results.c.model == job.model)


def _named(records: Sequence[ResultRecord]) -> ColumnElement[bool]:
    return results.c.sop_instance_uid.in_([record.result.sop_instance_uid for record in records])
