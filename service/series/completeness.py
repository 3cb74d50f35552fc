"""When is a series whole? Watches arrivals, weighs the evidence, and lets each series start once.

What counts as evidence is in `service.series.evidence`; what is known of one series in `service.series.incoming`.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import structlog

from service.errors import Quarantined, WetreadError
from service.header import HeaderFacts, facts_of
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, STAT, NextJob, SeriesRecord
from service.series.evidence import Decision, Observed, judge
from service.series.incoming import Asked, Incoming
from service.series.rhythm import Rhythm
from service.settings import SeriesSettings
from service.spool import Spool, key_of
from service.versions import instance_of

log = structlog.get_logger()

ASK_AGAIN_SECONDS = 5.0
"""How soon the archive is asked again while it says that it has more."""
RECENT = 256
"""So many complete series are remembered, for slices that come late."""

Count = Callable[[SeriesRecord], int | None]
Fetch = Callable[[SeriesRecord], object]
Background = Callable[[Callable[[], None]], object]
Urgent = Callable[[SeriesRecord], bool]


class Completeness:
    """Watches arrivals and creates the assemble job of each series that has become whole.

    Parameters
    ----------
    clock
        Monotonic seconds.
    counts
        How many instances of a series the archive has; None where it does not know. May take long and raise anything.
    fetch
        Has the archive send what is missing of a series; what comes is told by `arrived`. May take long and raise
        anything.
    background
        Runs a call some time soon in another thread; default: a pool of two threads.
    urgent
        Whether a series that is whole comes before others, whoever its sender is.
    """

    def __init__(
        self,
        settings: SeriesSettings,
        spool: Spool,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
        counts: Count | None = None,
        fetch: Fetch | None = None,
        background: Background | None = None,
        urgent: Urgent | None = None,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._ledger = ledger
        self._clock = clock
        self._counts = counts
        self._fetch = fetch
        self._urgent = urgent
        self._pool = ThreadPoolExecutor(2, "archive") if counts and not background else None
        self._background: Background | None = background or (self._pool.submit if self._pool else None)
        self._lock = threading.Lock()
        self._rhythm = Rhythm()
        self._open: dict[str, Incoming] = {}
        self._recent: OrderedDict[str, Incoming] = OrderedDict()
        self._carried: dict[int, set[str]] = {}
        """By association that is open: the series that it has brought."""
        self._silent: set[str] = set()
        """Senders whose archive does not answer."""

    def resume(self, *, interrupted: bool = False) -> None:
        """Take up the series that nobody receives any more and that are not complete; their associations are gone.

        An earlier run of the node has left them, or another node that has died. Call it now and then.

        Parameters
        ----------
        interrupted
            Whether they may have been cut off just now, because the node ended and starts again: their senders are
            given time to come back.
        """
        with self._lock:
            for record in self._ledger.adopt():
                if record.key not in self._open:
                    series = Incoming(record, self._clock(), interrupted=interrupted)
                    self._open[record.key] = self._with_spool(series)

    def reopen(self) -> None:
        """This node has stood still, or the ledger was away, for longer than its leases last: another one may have
        found complete what is open here. What has come since opens it again; nothing was acknowledged meanwhile that
        the ledger did not hear of (`arrived`).
        """
        with self._lock:
            for series in list(self._open.values()):
                self._reopen(series.record)

    def _reopen(self, record: SeriesRecord) -> bool:
        """Have the ledger note that a series is received here; it is open here no longer if that is nothing new."""
        new = self._ledger.open_series(
            record, len(self._spool.instances(record.key)), self._spool.corrections(record.key)
        )
        if not new and record.key in self._open:
            self._close(self._open[record.key])
        return new

    def _close(self, series: Incoming) -> None:
        """A series is complete, here or elsewhere."""
        del self._open[series.record.key]
        series.asked = Asked()
        self._recent[series.record.key] = series
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def close(self) -> None:
        """Ask archives no more; what is being asked or fetched ends first."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        """Whether the series is being received over this association already: so the ledger knows of it.

        From now on it is not completed until `arrived` is called, or the association has ended.
        """
        key = key_of(facts.study_uid, facts.series_uid)
        with self._lock:
            series = self._open.get(key)
            if series is None or key not in self._carried.get(association, ()) or not self._ledger.still_receiving:
                return False
            series.expected.add(association)
            return True

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """Note durably which series is being received. An error keeps an instance from being acknowledged."""
        key = key_of(facts.study_uid, facts.series_uid)
        with self._lock:
            carried = self._carried.setdefault(association, set())
            begins = key not in carried
            carried.add(key)
            for other in carried & self._open.keys() - {key}:
                self._open[other].alive_until = self._clock()
                self._open[other].moved_on |= begins
            if key not in self._open or not self._ledger.still_receiving:
                # a series stays its first sender's, whoever brings more of it
                record = self._ledger.series(key) or SeriesRecord(
                    key, facts.study_uid, facts.series_uid, facts.modality, sender
                )
                if not self._reopen(record):
                    if key in self._recent:  # it was stored, and counted, while the series became complete
                        self._recent[key].take(facts)
                    return
                if key not in self._open:
                    known = self._recent.pop(key, None) or Incoming(record, self._clock())
                    self._open[key] = self._with_spool(known, but=key_of(facts.sop_instance_uid))
                    log.info("series.opened", series=key, modality=facts.modality, sender=sender)
            self._open[key].arrived(association, facts, self._clock(), self._settings)

    def released(self, association: int) -> None:
        """An association has ended as its sender meant it to."""
        self._ended(association, aborted=False)

    def aborted(self, association: int) -> None:
        """An association was aborted or lost. One that ended before is left alone."""
        self._ended(association, aborted=True)

    def _ended(self, association: int, aborted: bool) -> None:
        with self._lock:
            for key in self._carried.pop(association, ()):
                series = self._open.get(key) or self._recent.get(key)
                if series is not None:
                    series.ended(association, aborted, self._clock())

    def decide(self) -> None:
        """Complete every series for which there is evidence enough. Call it several times a second."""
        calls: list[Callable[[], None]] = []
        with self._lock:
            now = self._clock()
            for series in [one for one in self._open.values() if not one.expected]:
                usual = self._rhythm.usual(series.record.sender)
                observed = series.observed(usual)
                decision = judge(observed, self._settings, now)
                if decision.complete:
                    if not self._answer_awaited(series, now):
                        self._complete(series, decision)
                elif self._worth_asking(series, observed, now):
                    series.asked = replace(series.asked, at=now, arrivals=series.arrivals, pending=True)
                    calls.append(partial(self._ask, series))
                elif self._fetch and series.asked.short > 1 and not series.asked.fetched:
                    series.asked = replace(series.asked, fetched=True)
                    calls.append(partial(self._call_for, series))
        for call in calls:
            assert self._background is not None
            self._background(call)

    def _complete(self, series: Incoming, decision: Decision) -> None:
        key, sender = series.record.key, series.record.sender
        count = len(self._spool.instances(key))
        note = f"{count} {'instance' if count == 1 else 'instances'}: {decision}"
        corrected = self._spool.corrections(key)
        first = NextJob(ASSEMBLE, priority=STAT if self._urgent and self._urgent(series.record) else None)
        self._ledger.complete_series(key, count, note, [first], decision, corrected, yielding=True)
        log.info(
            "series.completed",
            series=key,
            instances=count,
            partial=decision.partial,
            evidence={one.name: round(one.points) for one in decision.evidence},
            against=list(decision.against),
        )
        self._rhythm.note(sender, replace(series.pauses, aborts=series.lost))
        self._close(series)

    def _with_spool(self, series: Incoming, but: str = "") -> Incoming:
        """A series, and what else of it (all ``but`` one) lies in the spool, from an earlier run or another node."""
        self._spool.fetch(series.record.key)
        for path in self._spool.instances(series.record.key):
            if instance_of(path) != but and not series.knows(instance_of(path)):
                try:
                    series.take(facts_of(path))
                except (OSError, Quarantined):  # it could be read when it came; assembly will say what is wrong
                    series.take_unread(instance_of(path))
        return series

    # ---- the archive -----------------------------------------------------------------------------------------------

    def _worth_asking(self, series: Incoming, observed: Observed, now: float) -> bool:
        """Whether the archive's count would tell something now.

        An archive that forwards image by image while it receives has as many as we at each moment. So it is asked only
        after a silence that is longer than the sender's usual pauses, and a longer one in an association that stalls or
        after one that was lost.
        """
        asked = series.asked
        if self._counts is None or asked.pending:
            return False
        patience = observed.usual_pause
        if observed.open and not observed.moved_on:
            patience = max(2 * patience, self._settings.quiet_seconds)
        elif observed.lost:
            patience = self._settings.quiet_ceiling_seconds / 2
        if now - series.last_event < patience:
            return False
        again = asked.count is not None and asked.count > series.instances and now - asked.at >= ASK_AGAIN_SECONDS
        return again or asked.arrivals != series.arrivals

    def _answer_awaited(self, series: Incoming, now: float) -> bool:
        """Whether the archive is just being asked, and may be about to say that it has more."""
        asked = series.asked
        answers = asked.pending and series.record.sender not in self._silent
        return answers and now - asked.at < self._settings.quiet_seconds

    def _ask(self, series: Incoming) -> None:
        assert self._counts is not None
        sender = series.record.sender
        try:
            count = self._counts(series.record)
            self._silent.discard(sender)
        except Exception as error:  # whatever it is: there is one piece of evidence less
            count = None
            if sender not in self._silent:
                self._silent.add(sender)
                log.warning("archive.count_failed", series=series.record.key, sender=sender, reason=_reason(error))
        with self._lock:
            if self._open.get(series.record.key) is not series:  # complete meanwhile
                return
            asked = series.asked
            more = count is not None and count > series.instances
            short = (asked.short + 1 if asked.arrivals == series.arrivals else 1) if more else 0
            series.asked = replace(asked, count=count, pending=False, short=short)

    def _call_for(self, series: Incoming) -> None:
        assert self._fetch is not None
        key = series.record.key
        log.info("series.fetching", series=key, instances=series.instances, archive=series.asked.count)
        try:
            self._fetch(series.record)
        except Exception as error:
            log.warning("archive.fetch_failed", series=key, reason=_reason(error))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WetreadError) else type(error).__name__
