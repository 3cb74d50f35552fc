"""Claim, finish, retry, bury: every series is one row per stage, always somewhere.

A stage is finished and the next ones are created in one transaction. A worker holds a job by a lease and a fencing
token: when its lease has ended and somebody else has claimed the job, its finish is refused. Each stage may run twice;
what it writes is the same each time.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, case, create_engine, delete, event, func, insert, or_, select, update

from service.commitment import Report
from service.ledger.commitments import (
    TransactionOf,
    forgive,
    is_result,
    keep_refused,
    keep_report,
    keep_verified,
    wake_if_answered,
)
from service.ledger.decisions import keep_decision, select_decisions
from service.ledger.jobs import create_job, select_jobs
from service.ledger.records import (
    CANCELLED,
    COMMIT,
    DEAD,
    DELIVER,
    DONE,
    ENCODED,
    READY,
    RECEIVE,
    RUNNING,
    SENDING,
    SUPERSEDED,
    DecisionRecord,
    Job,
    NextJob,
    ResultRecord,
    SeriesRecord,
    StaleJob,
)
from service.ledger.results import keep_result, select_results, withdraw
from service.ledger.schema import analyses, corrections, decisions, jobs, metadata, results, series
from service.series.evidence import Decision

CRASHES = 5
"""After so many attempts, a job that was running when a node ended without a word is not tried again."""


class Ledger:
    """The record, in SQLite (WAL, synchronous FULL: what a method has written survives a power cut).

    Parameters
    ----------
    url
        SQLAlchemy URL of the database.
    lease_seconds
        How long a claim holds without a heartbeat.
    """

    def __init__(self, url: str, lease_seconds: float = 120.0) -> None:
        self._engine = create_engine(url, connect_args={"timeout": 30})
        self._lease_seconds = lease_seconds
        self._changed = threading.Condition()
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin_immediate)
        with self._engine.begin() as connection:
            metadata.create_all(connection)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    # ---- receiving -------------------------------------------------------------------------------------------------

    def open_series(self, record: SeriesRecord, instances: int, corrected: int = 0) -> bool:
        """Note durably that a series is being received; return whether anything is new.

        A series that was found complete with the same number of instances, as many of them corrected, stays as it is:
        a study that is forwarded again runs nothing new. With other numbers it is opened again and runs again.

        Parameters
        ----------
        corrected
            How often an instance of the series was replaced by a corrected one.
        """
        with self._transaction() as connection:
            known = connection.execute(select(series.c.instances).where(series.c.key == record.key)).scalar()
            if known is not None and (known, _corrected(connection, record.key)) == (instances, corrected):
                return False
            if known is None:
                connection.execute(insert(series).values(**vars(record), instances=0, opened_at=time.time()))
            create_job(connection, record.key, NextJob(RECEIVE), state=RUNNING)
            return True

    def receiving(self) -> list[SeriesRecord]:
        """The series that are not complete yet."""
        with self._engine.begin() as connection:
            return [job.series for job in select_jobs(connection, jobs.c.stage == RECEIVE, jobs.c.state == RUNNING)]

    def complete_series(
        self,
        key: str,
        instances: int,
        note: str,
        next_jobs: Sequence[NextJob],
        decision: Decision | None = None,
        corrected: int = 0,
    ) -> None:
        """A series is whole: finish its receive stage, create the next ones, and keep what that rested on."""
        with self._transaction() as connection:
            if decision is not None:
                keep_decision(connection, key, instances, decision)
            connection.execute(update(series).where(series.c.key == key).values(instances=instances))
            connection.execute(delete(corrections).where(corrections.c.series == key))
            connection.execute(insert(corrections).values(series=key, count=corrected))
            where = and_(jobs.c.series == key, jobs.c.stage == RECEIVE)
            began = connection.execute(select(jobs.c.created_at).where(where)).scalar_one()
            now = time.time()
            values = {"state": DONE, "note": note, "ended_at": now, "seconds": now - began}
            connection.execute(update(jobs).where(where).values(**values))
            for job in next_jobs:
                create_job(connection, key, job)

    # ---- working ---------------------------------------------------------------------------------------------------

    def claim(self, stages: Iterable[str], urgent: Iterable[str] = (), *, only_urgent: bool = False) -> Job | None:
        """Take the next job of these stages that is due, or None.

        Parameters
        ----------
        urgent
            Senders (calling AE titles) whose jobs come before all others.
        only_urgent
            Whether to leave the others alone.
        """
        now = time.time()
        due = and_(
            jobs.c.stage.in_(list(stages)),
            or_(
                and_(jobs.c.state == READY, jobs.c.run_at <= now),
                and_(jobs.c.state == RUNNING, jobs.c.lease_until < now),
            ),
        )
        comes_first = jobs.c.series.in_(select(series.c.key).where(series.c.sender.in_(list(urgent))))
        next_one = (
            select(jobs.c.id)
            .where(and_(due, comes_first) if only_urgent else due)
            .order_by(case((comes_first, 0), else_=1), jobs.c.run_at, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            found = connection.execute(
                update(jobs)
                .where(jobs.c.id == next_one.scalar_subquery())
                .values(
                    state=RUNNING,
                    token=jobs.c.token + 1,
                    attempts=jobs.c.attempts + 1,
                    lease_until=now + self._lease_seconds,
                )
                .returning(jobs.c.id)
            ).scalar()
            return None if found is None else select_jobs(connection, jobs.c.id == found)[0]

    def wait(self, seconds: float) -> None:
        """Sleep until something changes in this process, or for so long."""
        with self._changed:
            self._changed.wait(seconds)

    def heartbeat(self, job: Job) -> None:
        """Prolong the lease of a job. Raises `StaleJob`."""
        with self._engine.begin() as connection:
            self._set(connection, job, lease_until=time.time() + self._lease_seconds)

    def finish(
        self,
        job: Job,
        next_jobs: Sequence[NextJob],
        note: str = "",
        seconds: float = 0.0,
        results: Sequence[ResultRecord] = (),
    ) -> None:
        """Finish a job, keep its results and create the next ones, all or nothing. Raises `StaleJob`."""
        with self._transaction() as connection:
            self._set(connection, job, state=DONE, note=note, seconds=seconds, ended_at=time.time(), lease_until=None)
            for record in results:
                keep_result(connection, record)
            for next_job in next_jobs:
                create_job(connection, job.series.key, next_job)

    def analysis_began(self, job: Job, version: str) -> datetime:
        """When the analysis of a job was begun for the first time: now, unless it is being repeated.

        Results carry this moment, so that a repeat gives the same bytes under the same UIDs.

        Parameters
        ----------
        version
            Of what is analysed and of the model.
        """
        key = {"series": job.series.key, "item": job.item, "model": job.model, "version": version}
        with self._transaction() as connection:
            where = and_(*(analyses.c[name] == value for name, value in key.items()))
            began = connection.execute(select(analyses.c.began_at).where(where)).scalar()
            if began is None:
                began = time.time()
                connection.execute(insert(analyses).values(**key, began_at=began))
        return datetime.fromtimestamp(began, UTC)

    def begin_sending(self, job: Job, archive: str) -> list[ResultRecord]:
        """The results of a job's item and model that are to be sent; from now on they count as sent. Raises `StaleJob`.

        So a report that reaches the archive just before the node ends, or before a later version of it is encoded, is
        known to its successor.
        """
        mine = and_(results.c.series == job.series.key, results.c.item == job.item, results.c.model == job.model)
        waiting = and_(mine, results.c.status.in_((ENCODED, SENDING)))
        with self._transaction() as connection:
            self._set(connection, job, state=RUNNING)
            connection.execute(update(results).where(waiting).values(status=SENDING, archive=archive))
            return select_results(connection, waiting)

    def not_sent(self, job: Job, records: Sequence[ResultRecord]) -> None:
        """The archive has not taken these after all. Raises `StaleJob`."""
        with self._transaction() as connection:
            self._set(connection, job, state=RUNNING)
            withdraw(connection, records, SENDING, ENCODED)

    def withdraw(self, records: Sequence[ResultRecord]) -> None:
        """Never send these, if their sending has not begun: later versions take their place."""
        with self._transaction() as connection:
            withdraw(connection, records, ENCODED, SUPERSEDED)

    def reported(self, report: Report, transaction_of: TransactionOf) -> bool:
        """Write down what an archive reports of storage commitment; return whether anybody had asked it."""
        with self._transaction() as connection:
            return bool(keep_report(connection, report, transaction_of))

    def verified(self, records: Sequence[ResultRecord]) -> None:
        """The archive lists these, which were sent to it."""
        with self._transaction() as connection:
            keep_verified(connection, records)

    def refused(self, records: Sequence[ResultRecord]) -> None:
        """The archive does not have these, which it had taken: they are to be sent again."""
        with self._transaction() as connection:
            keep_refused(connection, records)

    def forgive(self, records: Sequence[ResultRecord]) -> None:
        """Forget how often the archive has refused these."""
        with self._transaction() as connection:
            forgive(connection, records)

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether it is an instance that was made here."""
        with self._engine.begin() as connection:
            return is_result(connection, sop_instance_uid)

    def retry_later(self, job: Job, run_at: float, note: str) -> None:
        """Give a job back, to be tried again from ``run_at``. Raises `StaleJob`."""
        with self._transaction() as connection:
            self._set(connection, job, state=READY, run_at=run_at, note=note, lease_until=None)
            if job.stage == COMMIT:
                wake_if_answered(connection, job)

    def hand_back(self, job: Job) -> None:
        """Give a job back untouched, because the node stops. Raises `StaleJob`."""
        with self._transaction() as connection:
            self._set(connection, job, state=READY, attempts=job.attempts - 1, lease_until=None)

    def bury(self, job: Job, note: str) -> None:
        """Make a job a dead letter: nothing happens to it until an operator says so. Raises `StaleJob`."""
        with self._transaction() as connection:
            self._set(connection, job, state=DEAD, note=note, ended_at=time.time(), lease_until=None)

    def reclaim(self) -> int:
        """At the start of the only node on this ledger: its predecessor's running jobs are ready again.

        What was running at the end of a node `CRASHES` times is likely the reason, and becomes a dead letter; a
        delivery is not, since its attempts count how often the archive was away.
        """
        left = and_(jobs.c.state == RUNNING, jobs.c.stage != RECEIVE)
        fatal = and_(left, jobs.c.attempts >= CRASHES, jobs.c.stage.not_in((DELIVER, COMMIT)))
        note = f"the node ended {CRASHES} times in this stage; look at its log and memory, then retry"
        free = {"lease_until": None, "token": jobs.c.token + 1}
        with self._transaction() as connection:
            connection.execute(update(jobs).where(fatal).values(state=DEAD, note=note, ended_at=time.time(), **free))
            return connection.execute(update(jobs).where(left).values(state=READY, **free)).rowcount

    # ---- looking and operating -------------------------------------------------------------------------------------

    def list_jobs(self, state: str | None = None, series_key: str | None = None) -> list[Job]:
        """Jobs in the order in which they were created; ``series_key`` may be the beginning of one."""
        conditions = []
        if state is not None:
            conditions.append(jobs.c.state == state)
        if series_key is not None:
            conditions.append(jobs.c.series.startswith(series_key, autoescape=True))
        with self._engine.begin() as connection:
            return select_jobs(connection, *conditions)

    def series(self, key: str) -> SeriesRecord | None:
        """What is known of a series from its first instance."""
        with self._engine.begin() as connection:
            row = connection.execute(select(series).where(series.c.key == key)).first()
            return None if row is None else SeriesRecord(key, row.study_uid, row.series_uid, row.modality, row.sender)

    def job(self, id: int) -> Job | None:
        """One job by its number."""
        with self._engine.begin() as connection:
            found = select_jobs(connection, jobs.c.id == id)
            return found[0] if found else None

    def results(self, series_key: str | None = None) -> list[ResultRecord]:
        """What was encoded, in that order, and how far it got."""
        mine = [] if series_key is None else [results.c.series.startswith(series_key, autoescape=True)]
        with self._engine.begin() as connection:
            return select_results(connection, *mine)

    def decisions(self, series_key: str) -> list[DecisionRecord]:
        """Each time a series was found complete, in order; ``series_key`` may be the beginning of one."""
        with self._engine.begin() as connection:
            return select_decisions(connection, decisions.c.series.startswith(series_key, autoescape=True))

    def operator_retry(self, id: int) -> bool:
        """Make a dead or cancelled job ready again; return whether there was one."""
        return self._operate(id, (DEAD, CANCELLED), state=READY, run_at=time.time(), attempts=0, ended_at=None)

    def operator_cancel(self, id: int) -> bool:
        """Cancel a job that has not ended; return whether there was one."""
        return self._operate(id, (READY, RUNNING, DEAD), state=CANCELLED, ended_at=time.time(), lease_until=None)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of jobs by stage and state."""
        with self._engine.begin() as connection:
            rows = connection.execute(
                select(jobs.c.stage, jobs.c.state, func.count()).group_by(jobs.c.stage, jobs.c.state)
            )
            return {(stage, state): count for stage, state, count in rows}

    def ended_before(self, moment: float) -> list[str]:
        """Keys of the series whose work has all ended (done or cancelled) before a moment."""
        unfinished = or_(jobs.c.state.in_((READY, RUNNING, DEAD)), jobs.c.ended_at >= moment)
        busy = select(jobs.c.series).where(unfinished)
        with self._engine.begin() as connection:
            return list(connection.execute(select(series.c.key).where(series.c.key.not_in(busy))).scalars())

    # ---- inner -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection
        with self._changed:
            self._changed.notify_all()

    def _set(self, connection: Connection, job: Job, **values: Any) -> None:
        held = and_(jobs.c.id == job.id, jobs.c.token == job.token, jobs.c.state == RUNNING)
        if connection.execute(update(jobs).where(held).values(**values)).rowcount != 1:
            raise StaleJob(f"job {job.id} ({job.stage}) was taken over, reset or cancelled")

    def _operate(self, id: int, states: Sequence[str], **values: Any) -> bool:
        with self._transaction() as connection:
            where = and_(jobs.c.id == id, jobs.c.state.in_(states))
            return connection.execute(update(jobs).where(where).values(token=jobs.c.token + 1, **values)).rowcount == 1


def ledger_path(spool: Path) -> Path:
    """Where the ledger of a spool folder lies."""
    return spool / "ledger.sqlite"


def open_ledger(spool: Path) -> Ledger:
    """Open the ledger of a spool folder; it is made when it is not there."""
    return Ledger(f"sqlite:///{ledger_path(spool)}")


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions on its own, and late
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    # a transaction that reads first and writes later would fail with SQLITE_BUSY instead of waiting
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _corrected(connection: Connection, key: str) -> int:
    return connection.execute(select(corrections.c.count).where(corrections.c.series == key)).scalar() or 0
