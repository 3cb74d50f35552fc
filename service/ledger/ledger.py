"""Claim, finish, retry, bury: every series is one row per stage, always somewhere.

A stage is finished and the next ones are created in one transaction. A worker holds a job by a lease and a fencing
token: when its lease has ended and somebody else has claimed the job, its finish is refused. Each stage may run twice;
what it writes is the same each time.
"""

import os
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, and_, func, select, true, update
from sqlalchemy.exc import DBAPIError

from service.commitment import Report
from service.errors import LedgerUnavailable
from service.ledger.bell import Bell
from service.ledger.commitments import (
    TransactionOf,
    forgive,
    is_result,
    keep_refused,
    keep_report,
    keep_verified,
    wake_if_answered,
)
from service.ledger.database import open_database
from service.ledger.decisions import select_decisions
from service.ledger.jobs import (
    Whose,
    advance_jobs,
    claim_job,
    create_job,
    expired,
    finish_job,
    free_jobs,
    select_jobs,
    set_job,
)
from service.ledger.migrate import upgrade
from service.ledger.operating import ended_series, forget_history, forget_series, operate, prioritise, rerun
from service.ledger.receiving import (
    adopt_series,
    complete_series,
    hold_series,
    open_series,
    select_series,
    series_being_received,
)
from service.ledger.records import (
    CANCELLED,
    COMMIT,
    DEAD,
    ENCODED,
    READY,
    RUNNING,
    SENDING,
    SUPERSEDED,
    DecisionRecord,
    Job,
    NextJob,
    ResultRecord,
    SeriesRecord,
)
from service.ledger.results import keep_result, select_results, withdraw
from service.ledger.schema import analyses, decisions, jobs, results
from service.ledger.sql import begins, now, upsert
from service.series.evidence import Decision
from service.settings import LedgerSettings

CLOCK_SET_BACK = 2.0
"""Seconds; what a clock is corrected by all the time is less."""


class Ledger:
    """The record, in SQLite or PostgreSQL; what a method has written survives a power cut.

    Every method raises `sqlalchemy.exc.DBAPIError` while the database is away or full; it works again afterwards.

    Parameters
    ----------
    url
        Of the database: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.
    lease_seconds
        How long a claim holds without a heartbeat.
    name
        Of this node among those that share the ledger; one that starts again under its name has its work back at once.
        Default: of this process.
    urgent
        Senders (calling AE titles) whose series come before all others.
    """

    def __init__(self, url: str, lease_seconds: float = 120.0, name: str = "", urgent: Collection[str] = ()) -> None:
        self._database = open_database(url)
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._among_others = self._name if self._database.shared else None
        self._lease_seconds = lease_seconds
        self._urgent = frozenset(urgent)
        self._bell = Bell()
        self._heard = threading.local()
        self._look_at = 0.0
        self._clock_ahead = time.time() - time.monotonic()
        upgrade(self._database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

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
        counts = (instances, corrected)
        with self._database.writing() as connection:
            return open_series(connection, record, counts, self._urgent, self._name, self._lease_seconds)

    def receiving(self) -> list[SeriesRecord]:
        """The series that are not complete yet."""
        with self._database.reading() as connection:
            return series_being_received(connection)

    def adopt(self) -> list[SeriesRecord]:
        """The series that are not complete yet and that no other node receives: from now on they are this one's."""
        with self._database.writing() as connection:
            return adopt_series(connection, self._among_others, self._lease_seconds)

    def complete_series(
        self,
        key: str,
        instances: int,
        note: str,
        next_jobs: Sequence[NextJob],
        decision: Decision | None = None,
        corrected: int = 0,
        *,
        yielding: bool = False,
    ) -> None:
        """A series is whole: finish its receive stage, create the next ones, and keep what that rested on.

        Parameters
        ----------
        yielding
            Whether another node's decision counts, where one receives the series now or has found the same.
        """
        counts, unless_by = (instances, corrected), self._among_others if yielding else None
        with self._making_ready() as connection:
            complete_series(connection, key, counts, note, next_jobs, decision, unless_by)

    # ---- working ---------------------------------------------------------------------------------------------------

    def claim(self, stages: Iterable[str], *, only_urgent: bool = False, whose: Whose | None = None) -> Job | None:
        """Take the next job of these stages that is due, by priority, or None.

        Parameters
        ----------
        only_urgent
            Whether to leave alone what is less than urgent.
        whose
            On whose series; None for all.
        """
        self._heard.strokes = self._bell.strokes
        self._look_round()
        with self._database.single() as connection:
            return claim_job(connection, stages, only_urgent, self._name, self._lease_seconds, whose)

    def wait(self, seconds: float) -> None:
        """Sleep until there may be more work than when this thread claimed last, or for so long."""
        self._database.listen(self._bell.ring)
        self._bell.wait(getattr(self._heard, "strokes", self._bell.strokes), seconds)

    def heartbeat(self, job: Job) -> None:
        """Prolong the lease of a job. Raises `StaleJob`."""
        with self._database.single() as connection:
            set_job(connection, job, lease_until=now() + self._lease_seconds)

    def keep_receiving(self) -> None:
        """Prolong the leases of the series that this node receives."""
        with self._database.single() as connection:
            hold_series(connection, self._name, self._lease_seconds)

    def finish(
        self,
        job: Job,
        next_jobs: Sequence[NextJob],
        note: str = "",
        seconds: float = 0.0,
        results: Sequence[ResultRecord] = (),
    ) -> None:
        """Finish a job, keep its results and create the next ones, all or nothing. Raises `StaleJob`."""
        with self._making_ready() if next_jobs else self._database.writing() as connection:
            priority = finish_job(connection, job, note, seconds)
            for record in results:
                keep_result(connection, record)
            for next_job in next_jobs:
                create_job(connection, job.series.key, next_job, priority=priority)

    def analysis_began(self, job: Job, version: str) -> datetime:
        """When the analysis of a job was begun for the first time: now, unless it is being repeated.

        Results carry this moment, so that a repeat gives the same bytes under the same UIDs.

        Parameters
        ----------
        version
            Of what is analysed and of the model.
        """
        key = {"series": job.series.key, "item": job.item, "model": job.model, "version": version}
        with self._database.writing() as connection:
            connection.execute(
                upsert(connection.dialect.name, analyses).values(**key, began_at=now()).on_conflict_do_nothing()
            )
            where = and_(*(analyses.c[name] == value for name, value in key.items()))
            began = connection.execute(select(analyses.c.began_at).where(where)).scalar_one()
        return datetime.fromtimestamp(began, UTC)

    def begin_sending(self, job: Job, archive: str) -> list[ResultRecord]:
        """The results of a job's item and model that are to be sent; from now on they count as sent. Raises `StaleJob`.

        So a report that reaches the archive just before the node ends, or before a later version of it is encoded, is
        known to its successor.
        """
        mine = and_(results.c.series == job.series.key, results.c.item == job.item, results.c.model == job.model)
        waiting = and_(mine, results.c.status.in_((ENCODED, SENDING)))
        with self._database.writing() as connection:
            set_job(connection, job, state=RUNNING)
            connection.execute(update(results).where(waiting).values(status=SENDING, archive=archive))
            return select_results(connection, waiting)

    def not_sent(self, job: Job, records: Sequence[ResultRecord]) -> None:
        """The archive has not taken these after all. Raises `StaleJob`."""
        with self._database.writing() as connection:
            set_job(connection, job, state=RUNNING)
            withdraw(connection, records, SENDING, ENCODED)

    def withdraw(self, records: Sequence[ResultRecord]) -> None:
        """Never send these, if their sending has not begun: later versions take their place."""
        with self._database.writing() as connection:
            withdraw(connection, records, ENCODED, SUPERSEDED)

    def reported(self, report: Report, transaction_of: TransactionOf) -> bool:
        """Write down what an archive reports of storage commitment; return whether anybody had asked it."""
        with self._making_ready() as connection:
            return bool(keep_report(connection, report, transaction_of))

    def verified(self, records: Sequence[ResultRecord]) -> None:
        """The archive lists these, which were sent to it."""
        with self._database.writing() as connection:
            keep_verified(connection, records)

    def refused(self, records: Sequence[ResultRecord]) -> None:
        """The archive does not have these, which it had taken: they are to be sent again."""
        with self._database.writing() as connection:
            keep_refused(connection, records)

    def forgive(self, records: Sequence[ResultRecord]) -> None:
        """Forget how often the archive has refused these."""
        with self._database.writing() as connection:
            forgive(connection, records)

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether it is an instance that was made here."""
        with self._database.reading() as connection:
            return is_result(connection, sop_instance_uid)

    def retry_later(self, job: Job, run_at: float, note: str, *, failed: bool = True) -> None:
        """Give a job back, to be tried again from ``run_at`` by this machine's clock. Raises `StaleJob`.

        Parameters
        ----------
        failed
            Whether this attempt counts; not where it was only not time yet.
        """
        from_now = max(0.0, run_at - time.time())
        attempts = job.attempts if failed else job.attempts - 1
        with self._database.writing() as connection:
            later = {"run_at": now() + from_now, "attempts": attempts}
            set_job(connection, job, state=READY, note=note, lease_until=None, **later)
            if job.stage == COMMIT:
                wake_if_answered(connection, job)

    def hand_back(self, job: Job) -> None:
        """Give a job back untouched, because the node stops. Raises `StaleJob`."""
        with self._making_ready() as connection:
            set_job(connection, job, state=READY, attempts=job.attempts - 1, lease_until=None)

    def bury(self, job: Job, note: str) -> None:
        """Make a job a dead letter: nothing happens to it until an operator says so. Raises `StaleJob`."""
        with self._database.writing() as connection:
            set_job(connection, job, state=DEAD, note=note, ended_at=now(), lease_until=None)

    def reclaim(self) -> int:
        """At the start of a node: its predecessor's running jobs are ready again; return how many.

        Its predecessor is every earlier node, unless several share the ledger: then it is the one of the same name.
        What was running too often when a node ended becomes a dead letter (`service.ledger.jobs.CRASHES`).
        """
        left = jobs.c.owner == self._name if self._database.shared else true()
        with self._making_ready() as connection:
            return free_jobs(connection, left)

    # ---- looking and operating -------------------------------------------------------------------------------------

    def list_jobs(self, state: str | None = None, series_key: str | None = None) -> list[Job]:
        """Jobs in the order in which they were created; ``series_key`` may be the beginning of one."""
        conditions = []
        if state is not None:
            conditions.append(jobs.c.state == state)
        if series_key is not None:
            conditions.append(begins(jobs.c.series, series_key))
        with self._database.reading() as connection:
            return select_jobs(connection, *conditions)

    def series(self, key: str) -> SeriesRecord | None:
        """What is known of a series from its first instance."""
        with self._database.reading() as connection:
            return select_series(connection, key)

    def job(self, id: int) -> Job | None:
        """One job by its number."""
        with self._database.reading() as connection:
            found = select_jobs(connection, jobs.c.id == id)
            return found[0] if found else None

    def results(self, series_key: str | None = None) -> list[ResultRecord]:
        """What was encoded, in that order, and how far it got."""
        mine = [] if series_key is None else [begins(results.c.series, series_key)]
        with self._database.reading() as connection:
            return select_results(connection, *mine)

    def decisions(self, series_key: str) -> list[DecisionRecord]:
        """Each time a series was found complete, in order; ``series_key`` may be the beginning of one."""
        with self._database.reading() as connection:
            return select_decisions(connection, begins(decisions.c.series, series_key))

    def operator_retry(self, id: int) -> bool:
        """Make a dead or cancelled job ready again; return whether there was one."""
        with self._making_ready() as connection:
            return operate(connection, id, (DEAD, CANCELLED), state=READY, run_at=now(), attempts=0, ended_at=None)

    def operator_cancel(self, id: int) -> bool:
        """Cancel a job that has not ended; return whether there was one."""
        with self._database.writing() as connection:
            return operate(connection, id, (READY, RUNNING, DEAD), state=CANCELLED, ended_at=now(), lease_until=None)

    def rerun(self, series_key: str, stage: str, model: str = "") -> int:
        """Run the work on a series again from a stage on; return how many jobs that makes. See `operating.rerun`."""
        with self._making_ready() as connection:
            return rerun(connection, series_key, stage, model)

    def prioritise(self, series_key: str, priority: int) -> int:
        """Give a priority to the jobs of a series that have not ended, and so to what follows; return how many."""
        with self._database.writing() as connection:
            return prioritise(connection, series_key, priority)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of jobs by stage and state."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(jobs.c.stage, jobs.c.state, func.count()).group_by(jobs.c.stage, jobs.c.state)
            )
            return {(stage, state): count for stage, state, count in rows}

    def ended_before(self, moment: float) -> list[str]:
        """Keys of the series whose work has all ended (done or cancelled) before a moment."""
        with self._database.reading() as connection:
            return list(connection.execute(ended_series(moment)).scalars())

    def forget(self, history_before: float, series_before: float) -> None:
        """Forget what was done on series whose work ended before a moment; and some series altogether.

        Parameters
        ----------
        history_before
            Jobs and decisions go. Results and counts stay, so that a series is recognised when it comes again.
        series_before
            Of these series nothing stays: to the node they are new when they come again.
        """
        for forget, moment in ((forget_history, history_before), (forget_series, series_before)):
            more = 1
            while more:
                with self._database.writing() as connection:
                    more = forget(connection, moment)

    def check(self) -> list[str]:
        """Look the whole ledger over; what is wrong with it, empty for nothing."""
        return self._database.check()

    def backup(self, target: Path) -> None:
        """Copy the ledger to a new file while nodes work on. Raises `ConfigurationError`."""
        self._database.backup(target)

    # ---- inner -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _making_ready(self) -> Iterator[Connection]:
        """A transaction after which there may be work."""
        with self._database.writing() as connection:
            yield connection
        self._bell.ring()
        self._database.notify()

    def _look_round(self) -> None:
        """Now and then: what a node has left that died or stood still for too long is ready again.

        On a single machine its clock is the ledger's. Where that was set back, what waited goes on waiting as long as
        it was to, and not until the clock has caught up.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + min(5.0, self._lease_seconds / 4)
        ahead = time.time() - time.monotonic()
        set_back, self._clock_ahead = self._clock_ahead - ahead, ahead
        with self._database.writing() as connection:
            free_jobs(connection, expired())
            if set_back > CLOCK_SET_BACK and not self._database.shared:
                advance_jobs(connection, set_back)


def ledger_path(spool: Path) -> Path:
    """Where the ledger of a spool folder lies, unless the settings name another one."""
    return spool / "ledger.sqlite"


def open_ledger(spool: Path, settings: LedgerSettings | None = None, urgent: Collection[str] = ()) -> Ledger:
    """Open the ledger of a node; it is made when it is not there, and brought to this version.

    Parameters
    ----------
    spool
        The spool folder.
    urgent
        Senders (calling AE titles) whose series come before all others.

    Raises
    ------
    ConfigurationError
        The URL is of no database that the ledger can be kept in, or the ledger is of a later version.
    LedgerUnavailable
        The database cannot be reached.
    """
    settings = settings or LedgerSettings()
    url = settings.url.get_secret_value() or f"sqlite:///{ledger_path(spool)}"
    try:
        return Ledger(url, settings.lease_seconds, settings.node, urgent)
    except DBAPIError as error:
        where = "ledger.url" if settings.url.get_secret_value() else str(ledger_path(spool))
        raise LedgerUnavailable(f"{where}: the ledger cannot be opened: {str(error.orig).strip()}") from None
