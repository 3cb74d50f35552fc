from collections.abc import Iterator
from pathlib import Path

import pytest

from service.header import HeaderFacts
from service.ledger.ledger import ASSEMBLE, Ledger
from service.series.completeness import Completeness
from service.settings import SeriesSettings
from service.spool import Spool, key_of

SERIES = key_of("1.2", "1.2.3")
SETTINGS = SeriesSettings(quiet_seconds=2.0, silent_seconds=60.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scanner:
    """Stores slices as the receiver does."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.spool = Spool(folder)
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.completeness = Completeness(SETTINGS, self.spool, self.ledger, self.clock)

    def slice(self, number: int, association: int = 1) -> None:
        self.spool.store(SERIES, key_of(str(number)), str(number).encode())
        facts = HeaderFacts("1.2.840.10008.5.1.4.1.1.2", str(number), "1.2", "1.2.3", "CT")
        self.completeness.arrived(association, facts, "PACS")

    def complete(self) -> bool:
        self.completeness.decide()
        return (ASSEMBLE, "ready") in self.ledger.counts()


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    scanner = Scanner(tmp_path)
    yield scanner
    scanner.ledger.close()


def test_a_series_is_complete_when_released_and_quiet(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.clock.now = 10
    assert not scanner.complete()
    scanner.completeness.released(1)
    assert scanner.complete()


def test_the_quiet_time_runs_from_the_last_arrival(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.completeness.released(1)
    scanner.clock.now = 1.9
    assert not scanner.complete()
    scanner.slice(2, association=2)
    scanner.completeness.released(2)
    scanner.clock.now = 3.8
    assert not scanner.complete()
    scanner.clock.now = 4.0
    assert scanner.complete()


def test_an_open_association_holds_it_up_but_not_for_ever(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.clock.now = 59
    assert not scanner.complete()
    scanner.clock.now = 60
    assert scanner.complete()


def test_two_associations_must_both_have_ended(scanner: Scanner) -> None:
    scanner.slice(1, association=1)
    scanner.slice(2, association=2)
    scanner.completeness.released(1)
    scanner.clock.now = 10
    assert not scanner.complete()
    scanner.completeness.released(2)
    assert scanner.complete()


def test_after_a_restart_the_series_completes_without_its_association(scanner: Scanner) -> None:
    scanner.slice(1)
    again = Completeness(SETTINGS, scanner.spool, scanner.ledger, scanner.clock)
    again.resume()
    again.decide()
    assert (ASSEMBLE, "ready") not in scanner.ledger.counts()
    scanner.clock.now = 2
    again.decide()
    assert (ASSEMBLE, "ready") in scanner.ledger.counts()


def test_the_same_slices_again_change_nothing_and_a_late_one_opens_the_series(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.completeness.released(1)
    scanner.clock.now = 2
    assert scanner.complete()
    job = scanner.ledger.claim([ASSEMBLE])
    assert job is not None
    scanner.ledger.finish(job, [])
    scanner.slice(1, association=2)
    scanner.completeness.released(2)
    scanner.clock.now = 10
    assert not scanner.complete()
    scanner.slice(2, association=3)
    scanner.completeness.released(3)
    scanner.clock.now = 20
    assert scanner.complete()
