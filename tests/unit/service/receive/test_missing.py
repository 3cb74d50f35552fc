"""What is asked of archives, with archives in the test's own process; real ones are in the integration tests."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.archive.base import Keep
from service.errors import ArchiveUnavailable
from service.header import HeaderFacts, read_facts
from service.ledger.records import SeriesRecord
from service.receive.intake import Intake
from service.receive.missing import MissingInstances
from service.received import Received
from service.spool import Spool, key_of


@dataclass
class Shelf:
    """An archive that holds files."""

    files: dict[str, bytes]
    fetches: bool = True
    fails_after: int | None = None
    together: threading.Barrier | None = None
    asked: list[list[str]] = field(default_factory=list)

    def count(self, study_uid: str, series_uid: str) -> int | None:
        return len(self.files)

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        if self.together:
            self.together.wait()  # nothing has come before each knows what is missing
        return tuple(self.files)

    def fetch(self, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str], keep: Keep) -> int:
        if self.together:
            self.together.wait()
        self.asked.append(list(sop_instance_uids))
        for number, uid in enumerate(sop_instance_uids):
            if number == self.fails_after:
                raise ArchiveUnavailable("shelf: gone")
            keep(self.files[uid])
        return len(sop_instance_uids)


@dataclass
class Told:
    arrived_: list[tuple[int, str, str]] = field(default_factory=list)
    released_: list[int] = field(default_factory=list)
    aborted_: list[int] = field(default_factory=list)

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        return False

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        self.arrived_.append((association, facts.sop_instance_uid, sender))

    def released(self, association: int) -> None:
        self.released_.append(association)

    def aborted(self, association: int) -> None:
        self.aborted_.append(association)


@dataclass
class World:
    spool: Spool
    intake: Intake
    told: Told
    files: dict[str, bytes]
    record: SeriesRecord

    def missing(self, **archives: Shelf) -> MissingInstances:
        return MissingInstances(archives, self.spool, self.intake)


@pytest.fixture
def world(tmp_path: Path, phantom_ct: Path) -> World:
    """Of six slices the first two are here."""
    contents = [file.read_bytes() for file in sorted(phantom_ct.iterdir())[:6]]
    facts = [read_facts(Received.of(content)) for content in contents]
    spool, told = Spool(tmp_path), Told()
    intake = Intake(spool, lambda _: None)
    key = key_of(facts[0].study_uid, facts[0].series_uid)
    record = SeriesRecord(key, facts[0].study_uid, facts[0].series_uid, "CT", "SCANNER")
    for content in contents[:2]:
        intake.take(Received.of(content), "SCANNER", 1)
    intake.tell(told)
    return World(
        spool,
        intake,
        told,
        {one.sop_instance_uid: content for one, content in zip(facts, contents, strict=True)},
        record,
    )


def test_what_is_missing_is_fetched_and_nothing_else(world: World) -> None:
    shelf = Shelf(world.files)
    missing = world.missing(SCANNER=shelf)
    assert missing.count(world.record) == 6
    missing.fetch(world.record)
    assert shelf.asked == [list(world.files)[2:]]
    assert sorted(path.read_bytes() for path in world.spool.instances(world.record.key)) == sorted(world.files.values())
    [association] = {association for association, _, _ in world.told.arrived_}
    assert [(uid, sender) for _, uid, sender in world.told.arrived_] == [(uid, "SCANNER") for uid in shelf.asked[0]]
    assert world.told.released_ == [association]
    missing.fetch(world.record)
    assert len(shelf.asked) == 1, "nothing is missing any more"


def test_nothing_is_asked_of_an_archive_that_is_not_the_senders_or_that_sends_nothing(world: World) -> None:
    shelf, silent = Shelf(world.files), Shelf(world.files, fetches=False)
    assert world.missing(OTHER=shelf).count(world.record) is None
    world.missing(OTHER=shelf).fetch(world.record)
    world.missing(SCANNER=silent).fetch(world.record)
    assert shelf.asked == silent.asked == []
    assert world.told == Told()


def test_a_fetch_that_fails_keeps_what_has_come_and_ends_like_an_association(world: World) -> None:
    with pytest.raises(ArchiveUnavailable):
        world.missing(SCANNER=Shelf(world.files, fails_after=2)).fetch(world.record)
    assert len(world.spool.instances(world.record.key)) == 4
    assert len(world.told.released_) == 1
    assert world.told.aborted_ == [], "an archive that fails is no habit of the sender"


def test_fetches_at_the_same_time_are_told_apart(world: World) -> None:
    shelf = Shelf(world.files, together=threading.Barrier(2, timeout=60))
    missing = world.missing(SCANNER=shelf)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(missing.fetch, world.record) for _ in range(2)]:
            done.result()
    assert len({association for association, _, _ in world.told.arrived_}) == 2
    assert sorted(world.told.released_) == sorted({association for association, _, _ in world.told.arrived_})
