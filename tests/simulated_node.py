"""The real watcher and the real ledger on a virtual clock, with simulated senders and archives (`tests.scanner`)."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from service.header import HeaderFacts
from service.ledger.ledger import Ledger
from service.ledger.records import NextJob, SeriesRecord
from service.series.completeness import Completeness
from service.series.evidence import Decision
from service.settings import SeriesSettings
from service.spool import Spool, key_of
from tests.scanner import Habit, Sent, traffic

TICK = 0.1
"""The node looks so often whether a series is complete, in seconds."""
LATENCY = 0.2
"""Seconds that an archive takes to answer."""

NONE, SOURCE, GROWING = ARCHIVES = ("no archive", "archive that forwards", "archive that receives too")
"""What answers how many images a series has: nothing; the archive that has it all before it forwards it; one that
receives at the same time as the node."""


class _Shelf:
    """What the watcher needs of a spool: which instances are there."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, None]] = {}

    def store(self, facts: HeaderFacts) -> None:
        series = self._files.setdefault(key_of(facts.study_uid, facts.series_uid), {})
        series[key_of(facts.sop_instance_uid)] = None

    def instances(self, series: str) -> list[Path]:
        return [Path(f"{instance}.dcm") for instance in self._files.get(series, {})]

    def corrections(self, series: str) -> int:
        return 0

    def fetch(self, series: str) -> None:
        """All are here."""


class _Recording(Ledger):
    """The real ledger; it also writes down when, on the virtual clock, a series was opened and found complete."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.now = 0.0
        self.open: set[str] = set()
        self.sent: dict[str, Sent] = {}

    def open_series(self, record: SeriesRecord, instances: int, corrected: int = 0) -> bool:
        opened = super().open_series(record, instances, corrected)
        if opened:
            self.open.add(record.key)
        return opened

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
        super().complete_series(key, instances, note, next_jobs, decision, corrected, yielding=yielding)
        assert decision is not None
        self.open.remove(key)
        self.sent[key].decisions.append((self.now, instances, decision))


def play(habit: Habit, archive: str, studies: int, seed: int, url: str = "sqlite://") -> list[Sent]:
    """Send studies to a node of its own, and return all series."""
    ledger, shelf = _Recording(url), _Shelf()
    calls: list[tuple[float, int, Callable[[], None]]] = []
    order = itertools.count()

    def ask(record: SeriesRecord) -> int | None:
        series = ledger.sent[record.key]
        if archive == SOURCE:
            return series.planned
        return len(shelf.instances(record.key))

    def later(call: Callable[[], None]) -> None:
        heapq.heappush(calls, (ledger.now + LATENCY, next(order), call))

    watcher = Completeness(
        SeriesSettings(), cast(Spool, shelf), ledger, lambda: ledger.now, None if archive == NONE else ask, None, later
    )

    def pass_time(until: float) -> None:
        """Let the node look every tenth of a second, as long as there is something to look at."""
        while ledger.open and ledger.now + TICK <= until:
            ledger.now += TICK
            while calls and calls[0][0] <= ledger.now:
                heapq.heappop(calls)[2]()
            watcher.decide()
        if not ledger.open and until < float("inf"):
            ledger.now = until

    for events, sent in traffic(habit, studies, seed):
        ledger.sent.update(sent)
        for event in events:
            pass_time(event.at)
            before, ledger.now = ledger.now, max(ledger.now, event.at)
            if event.facts is not None:
                shelf.store(event.facts)
                watcher.arrived(event.association, event.facts, "SENDER")
            elif event.aborted:
                watcher.aborted(event.association)
            else:
                watcher.released(event.association)
            if ledger.open:
                ledger.now = before  # the node looks at its own beat, not at that of the sender
        pass_time(float("inf"))
    ledger.close()
    for series in ledger.sent.values():
        series.evidence |= archive != NONE
    return list(ledger.sent.values())
