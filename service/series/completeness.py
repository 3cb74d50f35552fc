"""When is a series whole?

DICOM has no message that says so. Here a series is complete when the associations that carried it have ended and
nothing has arrived for a quiet time; an association that stays open without a word does not hold it up for ever.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from service.header import HeaderFacts
from service.ledger.ledger import ASSEMBLE, Ledger, NextJob, SeriesRecord
from service.settings import SeriesSettings
from service.spool import Spool, key_of

log = structlog.get_logger()


@dataclass
class _Open:
    """A series that is being received."""

    record: SeriesRecord
    last_arrival: float
    associations: set[int] = field(default_factory=set)


class Completeness:
    """Watches arrivals and creates the assemble job of each series that has become whole.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(
        self, settings: SeriesSettings, spool: Spool, ledger: Ledger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}

    def resume(self) -> None:
        """Take up the series that an earlier run of the node had not found complete; their associations are gone."""
        for record in self._ledger.receiving():
            self._open[record.key] = _Open(record, self._clock())

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """Note durably which series is being received. Called before the instance is acknowledged."""
        key = key_of(facts.study_uid, facts.series_uid)
        with self._lock:
            if key not in self._open:
                record = SeriesRecord(key, facts.study_uid, facts.series_uid, facts.modality, sender)
                if not self._ledger.open_series(record, len(self._spool.instances(key))):
                    return
                self._open[key] = _Open(record, self._clock())
                log.info("series.opened", series=key, modality=facts.modality, sender=sender)
            self._open[key].last_arrival = self._clock()
            self._open[key].associations.add(association)

    def released(self, association: int) -> None:
        """An association has ended; what it carried is complete after the quiet time."""
        with self._lock:
            for series in self._open.values():
                series.associations.discard(association)

    def decide(self) -> None:
        """Complete every series that is due. Call it several times a second."""
        now = self._clock()
        with self._lock:
            for key, series in list(self._open.items()):
                silence = now - series.last_arrival
                if series.associations and silence >= self._settings.silent_seconds:
                    reason = f"silent for {silence:.0f} s in an open association"
                elif not series.associations and silence >= self._settings.quiet_seconds:
                    reason = f"association released, quiet for {silence:.1f} s"
                else:
                    continue
                self._complete(series, reason)
                del self._open[key]

    def _complete(self, series: _Open, reason: str) -> None:
        key = series.record.key
        count = len(self._spool.instances(key))
        self._ledger.complete_series(key, count, f"{count} instances; {reason}", [NextJob(ASSEMBLE)])
        log.info("series.completed", series=key, instances=count, reason=reason)
