"""Series are read while they arrive: one pool of threads for all of them, and a reader for each that is open.

What has to be decoded is begun at once: it takes longer than to arrive. Slices that lie in their files as they are take
a third of a millisecond, but of the same processors as receiving: where they come so fast that this would slow their
sender down, they wait until fewer come, or until their series is assembled.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from service.header import HeaderFacts
from service.series.pixel_description import NATIVE
from service.series.reader import SeriesReader
from service.series.slices import SLICES
from service.spool import Spool, key_of

MOST_OPEN = 32
"""Series that are read at the same time; what comes beyond them is read when it is assembled."""

IDLE_SECONDS = 900.0
"""A series of which nothing has come for so long is not assembled soon; one that was sent again as it was, never."""

MANY = 15
"""So many slices from one `Streaming.tick` to the next are fast: 150 in a second."""


@dataclass
class _Open:
    reader: SeriesReader
    last: float
    waiting: list[str] = field(default_factory=list)
    """Instances, by their keys."""


class Streaming:
    """Begins to read each CT instance when it is stored, or soon after: `tick` is to be called ten times a second.

    Parameters
    ----------
    threads
        That decode, for all series together.
    clock
        Monotonic seconds.
    """

    def __init__(self, spool: Spool, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
        self._came = 0
        """Slices since the last tick."""
        self._stopped = False

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        """Always: nothing is lost where a slice is not read here."""
        return True

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """An instance is in the spool. See `service.receive.intake.Arrivals`."""
        if facts.sop_class_uid not in SLICES:
            return
        series = key_of(facts.study_uid, facts.series_uid)
        instance = key_of(facts.sop_instance_uid)
        with suppress(OSError):  # it is stored; what cannot be read now is read when it is assembled
            reader = self._reader(series)
            if facts.transfer_syntax_uid not in NATIVE and reader is not None:
                reader.add([self._spool.instance_path(series, instance)])
            else:
                self._wait(series, instance)

    def tick(self) -> None:
        """Begin to read what waits, where few came since the last time."""
        with self._lock:
            came, self._came = self._came, 0
            if came > MANY:
                return
            waiting = [(key, one.reader, one.waiting.copy()) for key, one in self._open.items() if one.waiting]
            for one in self._open.values():
                one.waiting.clear()
        for series, reader, instances in waiting:
            with suppress(OSError):
                reader.add([self._spool.instance_path(series, instance) for instance in instances])

    def _wait(self, series: str, instance: str) -> None:
        with self._lock:
            self._came += 1
            if series in self._open:
                self._open[series].waiting.append(instance)

    def _reader(self, series: str) -> SeriesReader | None:
        """The reader of a series, a new one where there is room, or None."""
        now = self._clock()
        idle: list[SeriesReader] = []
        with self._lock:
            if self._stopped:
                return None
            if series not in self._open:
                idle = [
                    self._open.pop(key).reader for key, one in [*self._open.items()] if now - one.last > IDLE_SECONDS
                ]
                if len(self._open) < MOST_OPEN:
                    self._open[series] = _Open(self._new_reader(series), now)
            found = self._open.get(series)
            if found is not None:
                found.last = now
        for reader in idle:
            reader.discard()
        return found.reader if found else None

    def released(self, association: int) -> None:
        """Of no interest here."""

    def aborted(self, association: int) -> None:
        """Of no interest here."""

    def take(self, series: str) -> SeriesReader:
        """Hand over the reader of a series that is to be assembled, with what it has read; or a new one."""
        with self._lock:
            found = self._open.pop(series, None)
        return found.reader if found else self._new_reader(series)

    def stop(self) -> None:
        """Give up what is being read."""
        with self._lock:
            self._stopped = True
            readers = [one.reader for one in self._open.values()]
            self._open.clear()
        for reader in readers:
            reader.discard()
        self._pool.shutdown(cancel_futures=True)

    def _new_reader(self, series: str) -> SeriesReader:
        return SeriesReader(self._spool.work(series), self._pool)
