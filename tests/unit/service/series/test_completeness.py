"""The watcher with a real spool and ledger, on a virtual clock."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import ArchiveUnavailable
from service.header import HeaderFacts
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, RECEIVE, DecisionRecord, SeriesRecord
from service.received import Received
from service.series.completeness import Completeness
from service.settings import SeriesSettings
from service.spool import Spool, key_of
from service.versions import Stored
from tests.postgres import PostgresServer
from tests.small_files import dicom

SETTINGS = SeriesSettings(quiet_seconds=2.0, silent_seconds=60.0)
CT = "1.2.840.10008.5.1.4.1.1.2"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def key(series: str = "A") -> str:
    return key_of("1.2", f"1.2.{series}")


class Archive:
    """An archive's answers, and what it was asked."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.away = False
        self.asked = 0
        self.asked_for: set[str] = set()
        self.fetched = 0

    def counts(self, record: SeriesRecord) -> int | None:
        self.asked += 1
        self.asked_for.add(record.sender)
        if self.away:
            raise ArchiveUnavailable("the archive does not answer; it is asked again later")
        return self.count

    def fetch(self, record: SeriesRecord) -> None:
        self.fetched += 1


class Scanner:
    """Stores slices as the receiver does."""

    def __init__(self, folder: Path, archive: Archive | None = None, url: str = "", name: str = "") -> None:
        self.now = 0.0
        self.spool = Spool(folder, "keep-last")
        self.ledger = Ledger(url or f"sqlite:///{folder / 'ledger.sqlite'}", lease_seconds=0.5, name=name)
        self.archive = archive
        self.completeness = self.watcher()

    def watcher(self) -> Completeness:
        counts = self.archive.counts if self.archive else None
        fetch = self.archive.fetch if self.archive else None
        return Completeness(SETTINGS, self.spool, self.ledger, lambda: self.now, counts, fetch, lambda call: call())

    def slice(
        self,
        number: int,
        association: int = 1,
        series: str = "A",
        sop_class: str = CT,
        announced: int | None = None,
        sender: str = "PACS",
    ) -> None:
        uid = f"{series}.{number}"
        self.spool.store(key(series), key_of(uid), dicom(uid.encode()))
        self.completeness.arrived(association, self.facts(number, series, sop_class, announced), sender)

    def facts(self, number: int, series: str = "A", sop_class: str = CT, announced: int | None = None) -> HeaderFacts:
        position = (0.0, 0.0, float(number))
        return HeaderFacts(
            sop_class, f"{series}.{number}", "1.2", f"1.2.{series}", "CT", number, 1, announced, position, AXIAL
        )

    def slices(self, *numbers: int, association: int = 1, series: str = "A") -> None:
        for number in numbers:
            self.slice(number, association, series)

    def released(self, association: int = 1) -> None:
        self.completeness.released(association)

    def aborted(self, association: int = 1) -> None:
        self.completeness.aborted(association)

    def decided(self, series: str = "A") -> list[DecisionRecord]:
        self.completeness.decide()
        return self.ledger.decisions(key(series))

    def complete(self, series: str = "A") -> bool:
        self.completeness.decide()
        [receive] = [job for job in self.ledger.list_jobs(series_key=key(series)) if job.stage == RECEIVE]
        return receive.state == "done"

    def seconds_until_complete(self, series: str = "A") -> float:
        """Pass the time in steps of 0.1 s until the series is complete."""
        began = self.now
        while not self.complete(series):
            self.now = round(self.now + 0.1, 1)
            assert self.now - began < 1000
        return round(self.now - began, 1)


@pytest.fixture
def open_scanner(tmp_path: Path) -> Iterator[Callable[[Archive | None], Scanner]]:
    made: list[Scanner] = []

    def build(archive: Archive | None) -> Scanner:
        made.append(Scanner(tmp_path, archive))
        return made[-1]

    yield build
    for scanner in made:
        scanner.completeness.close()
        scanner.ledger.close()


@pytest.fixture
def scanner(open_scanner: Callable[[Archive | None], Scanner]) -> Scanner:
    return open_scanner(None)


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def with_archive(open_scanner: Callable[[Archive | None], Scanner], archive: Archive) -> Scanner:
    return open_scanner(archive)


# ---- associations and silence --------------------------------------------------------------------------------------


def test_a_released_series_without_a_gap_is_complete_at_once_and_says_why(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3, 4)
    assert not scanner.complete()
    scanner.released()
    assert scanner.seconds_until_complete() == 0.6
    [job] = scanner.ledger.list_jobs("ready")
    assert job.stage == ASSEMBLE
    [receive] = scanner.ledger.list_jobs("done")
    assert receive.note == "4 instances: released +50, no gap +20, quiet 0.6 s +30"
    [decision] = scanner.decided()
    assert (decision.instances, decision.partial, round(decision.points)) == (4, False, 100)
    assert [(one.name, round(one.points)) for one in decision.evidence] == [
        ("released", 50),
        ("no gap", 20),
        ("quiet", 30),
    ]


def test_an_open_association_holds_it_up_but_not_for_ever(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.now = 9.9
    assert not scanner.complete()
    scanner.now = 10.0
    assert scanner.complete()


def test_what_is_acknowledged_and_not_yet_told_of_keeps_a_series_open(scanner: Scanner) -> None:
    second = scanner.facts(2)
    assert not scanner.completeness.expects(1, second), "the ledger does not know the series"
    scanner.slice(1)
    assert not scanner.completeness.expects(2, second), "over this association nothing of it has come"
    assert scanner.completeness.expects(1, second)
    scanner.now = 100.0
    assert not scanner.complete()
    scanner.slice(2)
    assert scanner.seconds_until_complete() == 10.0


def test_what_never_got_its_place_is_waited_for_until_its_association_ends(scanner: Scanner) -> None:
    scanner.slice(1)
    assert scanner.completeness.expects(1, scanner.facts(2))
    scanner.now = 100.0
    assert not scanner.complete()
    scanner.aborted()
    assert scanner.seconds_until_complete() > 0


def test_two_associations_must_both_have_ended(scanner: Scanner) -> None:
    scanner.slice(1, association=1)
    scanner.slice(2, association=2)
    scanner.released(1)
    scanner.now = 5
    assert not scanner.complete()
    scanner.released(2)
    assert scanner.seconds_until_complete() == 1.0


def test_silence_is_measured_by_the_pauses_between_a_senders_associations(scanner: Scanner) -> None:
    for number in range(1, 11):
        scanner.slice(number, association=number)
        scanner.released(number)
        scanner.now += 0.8
        assert not scanner.complete()
    scanner.now -= 0.8
    assert scanner.seconds_until_complete() == 1.2  # 30 % of five pauses
    scanner.slices(1, 2, 3, association=99, series="B")
    scanner.released(99)
    assert scanner.seconds_until_complete("B") == 1.2


def test_a_series_that_was_started_early_teaches_how_long_its_sender_pauses(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.released()
    scanner.seconds_until_complete()
    scanner.now = 4.0
    scanner.slice(4, association=2)
    scanner.released(2)
    assert scanner.seconds_until_complete() == 6.0
    assert [decision.instances for decision in scanner.decided()] == [3, 4]
    scanner.slices(1, 2, 3, association=3, series="B")
    scanner.released(3)
    assert scanner.seconds_until_complete("B") == 6.0


def test_another_series_in_the_same_association_is_evidence_until_the_first_goes_on(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.slice(1, series="B")
    assert scanner.seconds_until_complete() == 0.8
    [decision] = scanner.decided()
    assert [one.name for one in decision.evidence] == ["moved on", "no gap", "quiet"]


def test_interleaved_series_are_not_taken_for_moved_on(scanner: Scanner) -> None:
    for number in range(1, 6):
        scanner.slice(number)
        scanner.slice(number, series="B")
    scanner.now = 7.9
    assert not scanner.complete()
    assert not scanner.complete("B")
    scanner.now = 8.0
    assert scanner.complete()
    assert scanner.complete("B")


def test_an_association_that_goes_on_with_other_series_does_not_stall(scanner: Scanner) -> None:
    for number in range(1, 6):
        scanner.slice(number)
        scanner.slice(number, series="B")
    for number in range(6, 22):
        scanner.now = round(scanner.now + 0.1, 1)
        scanner.slice(number, series="B")
    assert scanner.complete()
    assert not scanner.complete("B")


def test_the_header_may_announce_how_many_come(scanner: Scanner) -> None:
    for number in (1, 2, 3):
        scanner.slice(number, announced=3)
    scanner.released()
    assert scanner.complete()


def test_an_x_ray_starts_at_once_and_each_further_image_starts_too(scanner: Scanner) -> None:
    scanner.slice(1, sop_class=DX)
    assert len(scanner.decided()) == 1
    scanner.slice(2, sop_class=DX)
    assert [decision.instances for decision in scanner.decided()] == [1, 2]


# ---- what speaks against -------------------------------------------------------------------------------------------


def test_an_association_that_is_lost_after_its_last_slice_came_by_another_one_is_nothing_against(
    scanner: Scanner,
) -> None:
    scanner.slices(1, 2, 3)  # the node takes too long to answer; its sender connects anew
    scanner.slices(3, 4, association=2)
    scanner.aborted(1)  # noticed when the answer is written
    scanner.slice(5, association=2)
    scanner.released(2)
    assert scanner.seconds_until_complete() == 0.6
    [decision] = scanner.decided()
    assert (decision.instances, decision.partial) == (5, False)


def test_a_gap_makes_it_wait_and_then_partial_and_the_missing_slice_makes_it_whole(scanner: Scanner) -> None:
    scanner.slices(1, 2, 4, 5)
    scanner.released()
    assert scanner.seconds_until_complete() == 30.0
    [first] = scanner.decided()
    assert first.partial
    assert first.against == ("1 gap in the slice positions",)
    scanner.slice(3, association=2)
    scanner.released(2)
    scanner.now += 60
    assert [(decision.instances, decision.partial) for decision in scanner.decided()] == [(4, True), (5, False)]


def test_after_an_abort_it_waits_for_the_sender_to_come_again(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.aborted()
    scanner.released()  # late, and of no meaning: the association has ended
    scanner.now = 40
    assert not scanner.complete()
    scanner.slices(1, 2, 3, 4, 5, association=2)
    scanner.released(2)
    assert scanner.seconds_until_complete() == 0.6
    assert not scanner.decided()[-1].partial


def test_when_the_sender_does_not_come_again_it_is_partial(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.aborted()
    assert scanner.seconds_until_complete() == 48.0
    assert scanner.decided()[-1].partial


def test_a_sender_that_always_aborts_is_not_waited_for(scanner: Scanner) -> None:
    for number in range(5):
        scanner.slices(1, 2, 3, association=number, series=str(number))
        scanner.aborted(number)
        scanner.seconds_until_complete(str(number))
    scanner.slices(1, 2, 3, association=9)
    scanner.aborted(9)
    assert scanner.seconds_until_complete() == 0.6
    assert not scanner.decided()[-1].partial


# ---- the archive ---------------------------------------------------------------------------------------------------


def test_the_archives_count_completes_a_series_at_once(with_archive: Scanner, archive: Archive) -> None:
    archive.count = 4
    with_archive.slices(1, 2, 4, 5)  # the gap is in the archive too
    with_archive.complete()
    assert not archive.asked, "the association is open"
    with_archive.released()
    with_archive.complete()
    assert with_archive.complete()
    [decision] = with_archive.decided()
    assert not decision.partial
    assert archive.asked == 1


def test_where_the_archive_has_more_it_is_asked_again_and_the_rest_fetched_once(
    with_archive: Scanner, archive: Archive
) -> None:
    archive.count = 5
    with_archive.slices(1, 2, 3)
    with_archive.released()
    while with_archive.now < 4.9:
        assert not with_archive.complete()
        with_archive.now += 0.1
    assert (archive.asked, archive.fetched) == (1, 0)
    while with_archive.now < 20:
        assert not with_archive.complete()
        with_archive.now += 0.1
    assert archive.asked == 4
    assert archive.fetched == 1
    with_archive.slices(4, 5, association=2)
    with_archive.released(2)
    assert with_archive.seconds_until_complete() == 0.1
    assert not with_archive.decided()[-1].partial


def test_what_the_archive_has_more_does_not_hold_a_series_up_for_ever(with_archive: Scanner, archive: Archive) -> None:
    archive.count = 5
    with_archive.slices(1, 2, 3)
    with_archive.released()
    assert with_archive.seconds_until_complete() == 120.0
    [decision] = with_archive.decided()
    assert decision.partial
    assert decision.against == ("the archive has 5",)


def test_an_archive_that_is_away_or_does_not_know_the_series_is_no_evidence(
    with_archive: Scanner, archive: Archive
) -> None:
    archive.away = True
    with_archive.slices(1, 2, 3)
    with_archive.released()
    assert with_archive.seconds_until_complete() == 0.6
    archive.away = False
    with_archive.slices(1, 2, 3, association=2, series="B")
    with_archive.released(2)
    assert with_archive.seconds_until_complete("B") == 0.6
    assert archive.asked == 2


def test_an_archive_that_grows_while_the_sender_pauses_is_not_asked_too_soon(
    with_archive: Scanner, archive: Archive
) -> None:
    for number in range(1, 8):
        archive.count = number
        with_archive.slice(number, association=number)
        with_archive.released(number)
        for _ in range(10):
            with_archive.complete()
            with_archive.now += 0.1
    assert [decision.instances for decision in with_archive.decided()] == [1], "only the first pause is a surprise"


def test_the_archive_is_asked_in_another_thread(tmp_path: Path, archive: Archive) -> None:
    scanner = Scanner(tmp_path, archive)
    waiting: list[Callable[[], None]] = []
    watcher = Completeness(
        SETTINGS, scanner.spool, scanner.ledger, lambda: scanner.now, archive.counts, background=waiting.append
    )
    scanner.completeness = watcher
    archive.count = 2
    scanner.slices(1, 2)
    scanner.released()
    assert not scanner.complete()
    assert not scanner.complete()
    assert (archive.asked, len(waiting)) == (0, 1)
    waiting.pop()()
    assert scanner.complete()
    scanner.ledger.close()


def test_an_answer_that_is_on_its_way_is_waited_for_but_not_for_long(tmp_path: Path, archive: Archive) -> None:
    scanner = Scanner(tmp_path, archive)
    waiting: list[Callable[[], None]] = []
    scanner.completeness = Completeness(
        SETTINGS, scanner.spool, scanner.ledger, lambda: scanner.now, archive.counts, background=waiting.append
    )

    def silent_until(seconds: float, series: str) -> bool:
        """Whether it is complete so long after its last slice; it is looked at each 0.3 s."""
        until = scanner.now + seconds
        while scanner.now < until - 0.01 and not scanner.complete(series):
            scanner.now += 0.3
        return scanner.complete(series)

    archive.count = 5
    scanner.slices(1, 2, 3)
    scanner.released()
    assert not silent_until(1.5, "A"), "silence is enough, but the archive may be about to say that it has more"
    assert silent_until(1.5, "A"), "it takes too long"

    scanner.slices(1, 2, 3, association=2, series="B")
    scanner.released(2)
    assert not silent_until(1.5, "B")
    waiting.pop()()
    assert not silent_until(5, "B"), "it has more"

    archive.away = True
    for association, series in ((3, "C"), (4, "D")):
        scanner.slices(1, 2, 3, association=association, series=series)
        scanner.released(association)
        assert silent_until(1.5, series) == (series == "D"), "one that failed the last time is not waited for"
        while waiting:
            waiting.pop()()
    assert scanner.complete("C")
    scanner.ledger.close()


# ---- restarts and late slices --------------------------------------------------------------------------------------


def test_after_a_restart_the_series_completes_without_its_association(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.completeness = scanner.watcher()
    scanner.completeness.resume()
    assert scanner.seconds_until_complete() == 2.0


def test_after_a_restart_a_sender_that_was_cut_off_has_time_to_come_back(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.completeness = scanner.watcher()
    scanner.completeness.resume(interrupted=True)
    scanner.now = 50.0
    assert not scanner.complete()
    scanner.slices(4, 5, 6, association=2)
    scanner.released(2)
    assert scanner.seconds_until_complete() == 0.6
    [decision] = scanner.decided()
    assert (decision.instances, decision.partial) == (6, False)


def test_after_a_restart_a_series_that_nobody_brings_more_of_is_complete_and_not_partial(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.completeness = scanner.watcher()
    scanner.completeness.resume(interrupted=True)
    assert scanner.seconds_until_complete() == 60.0
    [decision] = scanner.decided()
    assert not decision.partial


def test_a_slice_that_is_stored_while_its_series_becomes_complete_is_no_gap_when_more_come(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.released()
    scanner.spool.store(key(), key_of("A.4"), dicom(b"A.4"))  # its thread has not told of it yet
    scanner.seconds_until_complete()
    scanner.slices(4, 5, 6, association=2)
    scanner.released(2)
    scanner.seconds_until_complete()
    assert [(decision.instances, decision.against) for decision in scanner.decided()] == [(4, ()), (6, ())]


def test_a_node_that_stood_still_tells_the_ledger_of_each_slice_before_it_is_acknowledged(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.database()
    one, two = (Scanner(tmp_path, url=url, name=name) for name in ("one", "two"))
    with closing(one.ledger), closing(two.ledger):
        one.slices(1, 2, 3)
        time.sleep(0.6)  # its lease ends
        two.completeness.resume(interrupted=True)
        two.seconds_until_complete()
        assert one.ledger.receiving() == []
        one.slice(4)
        assert [series.key for series in one.ledger.receiving()] == [key()]
        one.ledger.keep_receiving()
        one.released()
        one.seconds_until_complete()
        assert [decision.instances for decision in one.decided()] == [3, 4]


def test_what_another_node_has_found_complete_is_open_no_longer_when_a_node_goes_on(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.database()
    one, two = (Scanner(tmp_path, url=url, name=name) for name in ("one", "two"))
    with closing(one.ledger), closing(two.ledger):
        one.slices(1, 2, 3)
        time.sleep(0.6)
        two.completeness.resume(interrupted=True)
        two.seconds_until_complete()
        one.completeness.reopen()
        one.ledger.keep_receiving()
        one.slice(4)
        assert [series.key for series in one.ledger.receiving()] == [key()]


def test_after_a_restart_the_slices_that_came_before_are_known(scanner: Scanner, phantom_ct: Path) -> None:
    from service.header import read_facts

    files = sorted(phantom_ct.iterdir())
    del files[10]
    facts = [read_facts(Received.of(file.read_bytes())) for file in files]
    series = key_of(facts[0].study_uid, facts[0].series_uid)
    for file, one in zip(files, facts, strict=True):
        scanner.spool.store(series, key_of(one.sop_instance_uid), Received.of(file.read_bytes()))
        scanner.completeness.arrived(1, one, "PACS")
    scanner.completeness = scanner.watcher()
    scanner.completeness.resume()
    scanner.now = 59.9
    scanner.completeness.decide()
    assert not scanner.ledger.decisions(series)
    scanner.now = 60.0
    scanner.completeness.decide()
    [decision] = scanner.ledger.decisions(series)
    assert decision.against == ("1 gap in the slice positions",)


def test_the_same_slices_again_change_nothing_and_a_late_one_opens_the_series(scanner: Scanner) -> None:
    scanner.slice(1)
    scanner.released()
    scanner.seconds_until_complete()
    job = scanner.ledger.claim([ASSEMBLE])
    assert job is not None
    scanner.ledger.finish(job, [])
    scanner.slice(1, association=2)
    scanner.released(2)
    scanner.now = 200
    assert len(scanner.decided()) == 1
    scanner.slice(2, association=3)
    scanner.released(3)
    assert scanner.seconds_until_complete() == 1.0, "nobody would have waited so long: no habit is learnt from it"
    assert [decision.instances for decision in scanner.decided()] == [1, 2]


def test_a_corrected_slice_opens_the_series_and_the_same_again_does_not(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.released()
    scanner.seconds_until_complete()
    scanner.spool.store(key(), key_of("A.2"), dicom(b"corrected"))
    scanner.slice(2, association=2)  # its earlier content, a duplicate by now
    assert not scanner.complete()
    scanner.released(2)
    scanner.seconds_until_complete()
    scanner.slices(1, 2, 3, association=3)
    assert scanner.complete()
    assert [decision.instances for decision in scanner.decided()] == [3, 3]


def test_a_corrected_slice_counts_when_it_is_sent_again_after_the_node_ended_before_it_knew(scanner: Scanner) -> None:
    scanner.slices(1, 2, 3)
    scanner.released()
    scanner.seconds_until_complete()
    scanner.spool.store(key(), key_of("A.2"), dicom(b"corrected"))  # and here the node ends; nothing was acknowledged
    scanner.completeness = scanner.watcher()
    scanner.completeness.resume()
    assert scanner.complete()
    assert scanner.spool.store(key(), key_of("A.2"), dicom(b"corrected")) is Stored.DUPLICATE
    scanner.slice(2, association=2)
    assert not scanner.complete()


def test_a_series_stays_its_first_senders_whoever_brings_more_of_it(
    open_scanner: Callable[[Archive | None], Scanner],
) -> None:
    archive = Archive()
    scanner = open_scanner(archive)
    scanner.slices(1, 2, 3)
    scanner.released()
    scanner.seconds_until_complete()
    scanner.completeness = scanner.watcher()  # nothing is remembered but what is in the ledger
    scanner.slice(4, association=2, sender="OTHER")
    scanner.released(2)
    scanner.seconds_until_complete()
    assert archive.asked_for == {"PACS"}
