"""The ledger's side of reception: which series are being received, and when each was found complete."""

from collections.abc import Collection, Sequence

from service.ledger.base import LedgerBase, running_seconds
from service.ledger.receiving import (
    adopt_series,
    complete_series,
    hold_series,
    instances_of,
    open_series,
    received_since,
    select_series,
    series_being_received,
)
from service.ledger.records import NextJob, SeriesRecord
from service.series.evidence import Decision


class Reception(LedgerBase):
    """Series, until they are whole."""

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

    def keep_receiving(self) -> None:
        """Prolong the leases of the series that this node receives."""
        until = running_seconds() + self._lease_seconds
        with self._database.single() as connection:
            hold_series(connection, self._name, self._lease_seconds)
        self._receiving_until = until

    @property
    def still_receiving(self) -> bool:
        """Whether no other node can have taken over what this one receives: its leases have not ended."""
        return self._among_others is None or running_seconds() < self._receiving_until

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

    def received_since(self, moment: float, senders: Collection[str]) -> list[SeriesRecord]:
        """The series of some senders that were found complete since a moment, and were not fetched."""
        with self._database.reading() as connection:
            return received_since(connection, moment, senders)

    def instances_of(self, key: str) -> int | None:
        """How many instances a series had when it was last found complete; None where it is not known."""
        with self._database.reading() as connection:
            return instances_of(connection, key)

    def series(self, key: str) -> SeriesRecord | None:
        """What is known of a series from its first instance."""
        with self._database.reading() as connection:
            return select_series(connection, key)
