"""What is fetched by rules (``[fetch.NAME]``), in a thread of its own.

Of several nodes that receive one at a time has a rule's turn, which the ledger gives. What was fetched before, the
ledger knows: a study whose series were all complete here, with as many instances as the archive has, is not fetched
again, also when its files are gone.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import structlog
from sqlalchemy.exc import DBAPIError

from service.archive.base import Sought, StudyEntry
from service.deliver.windows import Windows
from service.errors import ArchiveUnavailable, ConfigurationError, PermanentError, TransientError, told_by_place
from service.ledger.ledger import Ledger
from service.ledger.turns import Turn
from service.operate.fetch import INCOMPLETE, RECEIVING, SENT
from service.operate.fetch_way import study_fetch
from service.settings import FetchSettings, Settings
from service.spool import Spool

log = structlog.get_logger()

LOOK_SECONDS = 1.0
TURN_SECONDS = 900.0
"""So long a node may take for one study; after that another one has its turn."""
AGAIN_SECONDS = 300.0
"""After so long a turn is taken again in which something could not be fetched."""
FAILURES = 3
"""After so many studies in a row that the archive did not send, it is left alone until the next turn."""
REMEMBERED = 10_000
STOP_SECONDS = 10.0


class Fetching(threading.Thread):
    """Takes the turns of all rules.

    Raises
    ------
    ConfigurationError
        A rule names an archive, sender or way that is not there.
    """

    def __init__(self, settings: Settings, spool: Spool, ledger: Ledger) -> None:
        super().__init__(name="fetching", daemon=True)
        self._stopping = threading.Event()
        self._rules = [
            FetchRule(name, rule, settings, spool, ledger, self._stopping.is_set)
            for name, rule in settings.fetch.items()
        ]

    def run(self) -> None:
        """Fetch until `stop`."""
        while not self._stopping.wait(LOOK_SECONDS):
            for rule in self._rules:
                try:
                    rule.look()
                except DBAPIError as error:  # the next look finds the ledger again
                    log.warning("fetch.failed", rule=rule.name, reason=str(error.orig).strip())
                except Exception as error:  # without this thread nothing would ever be fetched again
                    log.error("fetch.failed", rule=rule.name, reason=told_by_place(error))  # noqa: TRY400

    def stop(self) -> None:
        """End, also amid a study: the next turn goes on with it. An archive that does not answer is not waited for."""
        self._stopping.set()
        self.join(STOP_SECONDS)


@dataclass(frozen=True)
class Wish:
    """A study to be fetched, ``itself`` or only earlier ones of its patient, and how many instances it has there."""

    study_uid: str
    instances: int | None = None
    itself: bool = True


class FetchRule:
    """One rule.

    Parameters
    ----------
    stopping
        Whether the node ends.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        rule: FetchSettings,
        settings: Settings,
        spool: Spool,
        ledger: Ledger,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._rule = rule
        self._ledger = ledger
        self._stopping = stopping
        self._clock = clock
        self._windows = Windows.of(rule.windows)
        try:
            self._archive, self._study = study_fetch(
                settings, spool, ledger, rule.archive, rule.by or "", rule.sender or "", rule.modalities
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"fetch.{name}: {error}") from None
        mine = [title for title, each in settings.senders.items() if each.archive == rule.archive]
        self._senders = [rule.sender] if rule.sender else mine
        self._seen: dict[str, int] = {}
        """Studies that are done with, and how many instances the archive had of each then."""

    def look(self) -> None:
        """Take the rule's turn if it is due and in its window. Raises `DBAPIError` where the ledger is away."""
        if not self._is_open():
            return
        turn = self._ledger.take_turn(f"fetch.{self.name}", TURN_SECONDS)
        if turn is None:
            return
        every = self._rule.every_minutes * 60
        done = False
        try:
            done = self._take(turn)
        except (TransientError, PermanentError) as error:
            log.warning("fetch.failed", rule=self.name, archive=self._rule.archive, reason=str(error))
        finally:
            self._ledger.end_turn(turn, every if done else min(every, AGAIN_SECONDS), done=done)

    def _take(self, turn: Turn) -> bool:
        """Fetch what is to be fetched; return whether that is all here. Raises as `service.archive.base.Archive`."""
        failed = in_a_row = looked_at = 0
        for wish in self._wishes(turn):
            if self._stopping() or not self._is_open():
                return False
            self._ledger.hold_turn(turn, TURN_SECONDS)
            try:
                whole = self._fulfil(wish)
            except ArchiveUnavailable as error:
                log.warning("fetch.study_failed", rule=self.name, reason=str(error))
                failed, in_a_row = failed + 1, in_a_row + 1
                if in_a_row == FAILURES:
                    raise
                continue
            except PermanentError as error:  # another time would not change it
                log.warning("fetch.study_refused", rule=self.name, reason=str(error))
                whole = True
            in_a_row = 0
            looked_at += 1
            failed += not whole
            if whole:
                self._remember(wish)
        log.info("fetch.turn_ended", rule=self.name, studies=looked_at, failed=failed)
        return not failed

    def _fulfil(self, wish: Wish) -> bool:
        """Fetch a study, its earlier ones, or both; return whether all is here. Raises as `StudyFetch.fetch`."""
        studies = [wish.study_uid] if wish.itself else []
        studies += self._study.earlier(wish.study_uid, self._rule.priors) if self._rule.priors else ()
        whole = True
        for study in studies:
            if self._study.is_here(study):
                continue
            for one in self._study.fetch(study, self._watch):
                log.info("fetch.series", rule=self.name, series=one.series, instances=one.fetched, state=one.state)
                whole &= one.state not in (INCOMPLETE, RECEIVING, SENT)  # which the next turn finds here
        return whole

    def _wishes(self, turn: Turn) -> Iterator[Wish]:
        if self._rule.studies == "received":
            since = max(turn.done_until, turn.began_at - (self._rule.days + 1) * 86400)
            received = self._ledger.received_since(since, self._senders)
            yield from (Wish(study, itself=False) for study in dict.fromkeys(one.study_uid for one in received))
            return
        for entry in self._found():
            if entry.instances is None or self._seen.get(entry.study_uid) != entry.instances:
                yield Wish(entry.study_uid, entry.instances)

    def _found(self) -> list[StudyEntry]:
        """The studies that the archive lists and that match, oldest first."""
        today = date.fromtimestamp(self._clock())
        dates = f"{today - timedelta(days=self._rule.days):%Y%m%d}-{today:%Y%m%d}"
        found: dict[str, StudyEntry] = {}
        for modality in self._rule.modalities:
            for entry in self._archive.search(Sought(dates, modality, self._rule.description)):
                found[entry.study_uid] = entry
        return sorted(found.values(), key=lambda entry: entry.date)

    def _remember(self, wish: Wish) -> None:
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        if wish.itself and wish.instances is not None:
            self._seen[wish.study_uid] = wish.instances

    def _watch(self, *_: object) -> None:
        """Be told of what comes; raise where the node ends, which ends the fetch."""
        if self._stopping():
            raise ArchiveUnavailable("the node ends")

    def _is_open(self) -> bool:
        now = self._clock()
        return self._windows.opens_at(now) <= now
