"""How long requests for storage commitment stay for their answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import Comprehensive3DSRStorage

import service.deliver.confirmation
from service.commitment import Report
from service.deliver.confirmation import AT_ONCE_SECONDS, LONG_SECONDS, Confirmation
from service.errors import Postponed
from service.ledger.ledger import Ledger
from service.ledger.records import COMMIT, ENCODE, SENT, NextJob, ResultRecord, SeriesRecord
from service.settings import Settings, parse
from service.types import ResultObject

SECONDS = 600.0


class Clock:
    """The true time, and some seconds more."""

    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(service.deliver.confirmation, "time", clock)
    return clock


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """One that waits for the commitment of five series' results."""
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        for number in range(5):
            series = SeriesRecord(f"00a{number}", "1.2.5", f"1.2.6.{number}", "CT", "CT1")
            ledger.open_series(series, 1)
            ledger.complete_series(series.key, 1, "", [NextJob(ENCODE, "volume", "m")])
            job = ledger.claim([ENCODE])
            assert job is not None
            made = ResultObject("SR", str(Comprehensive3DSRStorage), f"1.2.7.{number}", tmp_path / "sr.dcm", "1.2.8")
            sent = ResultRecord(series.key, "volume", "m", made, SENT, "pacs")
            ledger.finish(job, [NextJob(COMMIT, "volume", "m")], results=[sent])
        yield ledger


@pytest.fixture
def settings() -> Settings:
    pacs = {"ae_title": "PACS", "host": "h", "port": 104, "commitment": "require", "commitment_seconds": SECONDS}
    return parse({"archives": {"pacs": pacs}, "senders": {"CT1": {"archive": "pacs"}}}, "test")


def asked(
    ledger: Ledger, confirmation: Confirmation, monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], bool]
) -> list[float]:
    """Ask for all once; how long each request would have stayed. ``answer``: whether to report over its association."""
    stays: list[float] = []

    def ask(_to: Any, _calling: str, transaction: str, records: Any, take: Any, _answered: Any, wait: float) -> None:
        if answer(len(stays)):
            take(Report(transaction, tuple(record.result.sop_instance_uid for record in records)))
        stays.append(wait)

    monkeypatch.setattr(service.deliver.confirmation, "ask", ask)
    waiting = []
    while job := ledger.claim([COMMIT]):
        try:
            ledger.finish(job, [], confirmation.confirm(job).note)
        except Postponed:
            waiting.append(job)
    for job in waiting:
        ledger.retry_later(job, time.time(), "", failed=False)
    return stays


def test_an_archive_that_never_reports_holds_the_thread_once_in_a_while(
    ledger: Ledger, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmation = Confirmation(settings, ledger)
    assert asked(ledger, confirmation, monkeypatch, lambda _: False) == [AT_ONCE_SECONDS, 0.0, 0.0, 0.0, 0.0]
    for _ in range(2):
        clock.ahead += SECONDS
        assert sorted(asked(ledger, confirmation, monkeypatch, lambda _: False)) == [0.0, 0.0, 0.0, 0.0, LONG_SECONDS]


def test_an_archive_that_reports_over_the_association_that_has_asked_is_waited_for(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmation = Confirmation(settings, ledger)
    stays = asked(ledger, confirmation, monkeypatch, lambda number: number in (1, 2))
    assert stays == [AT_ONCE_SECONDS, 0.0, LONG_SECONDS, LONG_SECONDS, 0.0]
