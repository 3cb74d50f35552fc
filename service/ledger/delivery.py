"""The ledger's side of delivery: how far each result got, and what archives say of it."""

from collections.abc import Collection, Sequence

from sqlalchemy import and_, select, update

from service.commitment import Report
from service.ledger.base import LedgerBase
from service.ledger.commitments import TransactionOf, forgive, is_result, keep_refused, keep_report, keep_verified
from service.ledger.jobs import set_job
from service.ledger.records import DELIVER, ENCODED, READY, RUNNING, SENDING, SUPERSEDED, Job, ResultRecord
from service.ledger.results import count_results, select_results, withdraw
from service.ledger.schema import jobs, results, series
from service.ledger.sql import begins, now


class Delivery(LedgerBase):
    """Results, on their way to an archive and there."""

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

    def archive_is_back(self, senders: Collection[str]) -> None:
        """The archive of these senders (calling AE titles) takes results again: those that it did not take are due."""
        theirs = select(series.c.key).where(series.c.key == jobs.c.series, series.c.sender.in_(senders))
        waits = and_(jobs.c.stage == DELIVER, jobs.c.state == READY, jobs.c.attempts > 0, jobs.c.run_at > now())
        with self._making_ready() as connection:
            due = update(jobs).where(waits, theirs.correlate(jobs).exists()).values(run_at=now())
            connection.execute(due)

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

    def result_counts(self) -> dict[tuple[str, str], int]:
        """Number of results by archive and status."""
        with self._database.reading() as connection:
            return count_results(connection)

    def results(self, series_key: str | None = None) -> list[ResultRecord]:
        """What was encoded, in that order, and how far it got."""
        mine = [] if series_key is None else [begins(results.c.series, series_key)]
        with self._database.reading() as connection:
            return select_results(connection, *mine)
