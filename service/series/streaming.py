"""Series are read while they arrive: one pool of threads for all of them, and a reader for each that is open."""

import threading
from concurrent.futures import ThreadPoolExecutor

from service.header import HeaderFacts
from service.series.reader import SeriesReader
from service.series.slices import SLICES
from service.spool import Spool, key_of

MOST_OPEN = 32
"""Series that are read at the same time; what comes beyond them is read when it is assembled."""


class Streaming:
    """Begins to read each CT instance as soon as it is stored.

    Parameters
    ----------
    threads
        That decode, for all series together.
    """

    def __init__(self, spool: Spool, threads: int) -> None:
        self._spool = spool
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._lock = threading.Lock()
        self._readers: dict[str, SeriesReader] = {}

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """An instance is in the spool. See `service.receive.intake.Arrivals`."""
        if facts.sop_class_uid not in SLICES:
            return
        series = key_of(facts.study_uid, facts.series_uid)
        with self._lock:
            reader = self._readers.get(series)
            if reader is None and len(self._readers) < MOST_OPEN:
                reader = self._readers[series] = self._new_reader(series)
        if reader is not None:
            reader.add(self._spool.instance_path(series, key_of(facts.sop_instance_uid)))

    def released(self, association: int) -> None:
        """Of no interest here."""

    def aborted(self, association: int) -> None:
        """Of no interest here."""

    def take(self, series: str) -> SeriesReader:
        """Hand over the reader of a series that is to be assembled, with what it has read; or a new one."""
        with self._lock:
            return self._readers.pop(series, None) or self._new_reader(series)

    def stop(self) -> None:
        """Give up what is being read."""
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            for reader in self._readers.values():
                reader.discard()
            self._readers.clear()

    def _new_reader(self, series: str) -> SeriesReader:
        return SeriesReader(self._spool.work(series), self._pool)
