"""Two nodes that share no folder, but a store and the list of what is in it."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from service.deliver.capabilities import Capabilities
from service.errors import StoreUnavailable
from service.ledger.catalogue import Catalogue
from service.ledger.database import open_database
from service.local_copies import IN_USE_SECONDS
from service.received import Received
from service.results.storage import all_storages
from service.settings import SpoolSettings
from service.shared_spool import SharedSpool
from service.sharing import Sharing
from service.spool import key_of
from service.store import FolderStore
from service.types import Destination, ResultObject
from service.versions import Duplicates, Stored
from tests.small_files import dicom, said

SERIES, INSTANCE, OTHER = key_of("1"), key_of("1.1"), key_of("1.2")
FIRST, SECOND = b"first " * 500, b"second" * 500

MakeNode = Callable[..., SharedSpool]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def node(tmp_path: Path, store: Path) -> Iterator[MakeNode]:
    made: list[SharedSpool] = []

    def make(name: str, duplicates: Duplicates = "keep-first", cache_mb: int = 100) -> SharedSpool:
        settings = SpoolSettings(path=tmp_path / name, duplicates=duplicates, cache_mb=cache_mb, reserve_mb=0)
        catalogue = Catalogue(open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}"))
        spool = SharedSpool(settings, Sharing(settings.path, FolderStore(store), catalogue), node=name, ready_mb=1)
        spool.lock()
        made.append(spool)
        return spool

    yield make
    for spool in made:
        spool.unlock()


def held(spool: SharedSpool, series: str = SERIES) -> dict[str, bytes]:
    """What a node has of a series when it has fetched that."""
    spool.fetch(series)
    return {path.name: said(path) for path in spool.instances(series)}


def objects(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def test_what_one_node_has_stored_another_has_when_it_has_fetched_it(node: MakeNode) -> None:
    a, b = node("a"), node("b")
    assert a.store(SERIES, INSTANCE, dicom(FIRST)) is Stored.NEW
    assert b.store(SERIES, OTHER, dicom(SECOND)) is Stored.NEW
    assert a.instances(SERIES) == [a.instance_path(SERIES, each) for each in sorted((INSTANCE, OTHER))]
    assert held(a) == held(b) == {f"{INSTANCE}.dcm": FIRST, f"{OTHER}.dcm": SECOND}
    times = [[path.stat().st_mtime_ns for path in each.instances(SERIES)] for each in (a, b)]
    assert times[0] == times[1], "what is made of it is the same on both"
    assert a.state(SERIES) == b.state(SERIES)


def test_an_instance_that_another_node_has_is_a_duplicate_and_costs_no_transfer(node: MakeNode, store: Path) -> None:
    a, b = node("a"), node("b")
    a.store(SERIES, INSTANCE, dicom(FIRST))
    there = objects(store)
    assert b.store(SERIES, INSTANCE, dicom(FIRST)) is Stored.DUPLICATE
    assert objects(store) == there
    assert not b.instance_path(SERIES, INSTANCE).exists()


def test_another_content_goes_to_quarantine_where_each_node_sees_it(node: MakeNode) -> None:
    a, b, c = node("a"), node("b"), node("c")
    a.store(SERIES, INSTANCE, dicom(FIRST))
    assert b.store(SERIES, INSTANCE, dicom(SECOND)) is Stored.BESIDE
    assert held(c) == {f"{INSTANCE}.dcm": FIRST}
    [entry] = c.quarantined()
    assert said(c.quarantined_file(entry)) == SECOND
    assert c.quarantined_size(entry) == len(dicom(SECOND).head)
    c.discard(entry)
    assert list(a.quarantined()) == list(b.quarantined()) == []


def test_a_corrected_instance_counts_on_every_node_and_what_it_replaced_is_known_on_every_node(
    node: MakeNode, store: Path
) -> None:
    a, b = node("a", "keep-last"), node("b", "keep-last")
    a.store(SERIES, INSTANCE, dicom(FIRST))
    before = b.state(SERIES)
    assert held(b) == {f"{INSTANCE}.dcm": FIRST}
    assert b.store(SERIES, INSTANCE, dicom(SECOND)) is Stored.CORRECTED
    assert held(a) == held(b) == {f"{INSTANCE}+1.dcm": SECOND}
    assert (a.corrections(SERIES), b.corrections(SERIES)) == (1, 1)
    assert a.state(SERIES) == b.state(SERIES) != before
    assert a.store(SERIES, INSTANCE, dicom(FIRST)) is Stored.DUPLICATE, "it was here before it was corrected"
    a.clear_away()
    kept = [path for path in objects(store) if path.parent.parent.name == "series"]
    assert len(kept) == 2, "the content that counts, and the fingerprint of the one that does not"


def test_of_two_nodes_that_store_an_image_at_the_same_time_one_is_first(node: MakeNode) -> None:
    nodes = node("a"), node("b")
    start = threading.Barrier(2)

    def store(which: int, instance: str, content: bytes) -> Stored:
        start.wait()
        return nodes[which].store(SERIES, instance, dicom(content))

    for number in range(10):
        instance, contents = key_of(str(number)), (FIRST + bytes([number]), SECOND + bytes([number]))
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(store, (0, 1), (instance, instance), contents))
        assert set(outcomes) == {Stored.NEW, Stored.BESIDE}
        first = contents[outcomes.index(Stored.NEW)]
        assert held(nodes[0])[f"{instance}.dcm"] == held(nodes[1])[f"{instance}.dcm"] == first
    assert len(list(nodes[0].quarantined())) == 10


def test_while_the_store_is_away_nothing_is_stored_and_then_it_goes_on(node: MakeNode, store: Path) -> None:
    a, b = node("a"), node("b")
    store.write_text("no folder")
    with pytest.raises(StoreUnavailable, match="File exists"):
        a.store(SERIES, INSTANCE, dicom(FIRST))
    with pytest.raises(StoreUnavailable):
        a.quarantine(SERIES, b"no DICOM", "it is no DICOM file")
    assert a.instances(SERIES) == b.instances(SERIES) == list(b.quarantined()) == []
    store.unlink()
    assert a.store(SERIES, INSTANCE, dicom(SECOND)) is Stored.NEW, "of the other nobody was told"
    assert held(b) == held(a) == {f"{INSTANCE}.dcm": SECOND}


def test_what_was_listed_although_the_ledger_did_not_say_so_is_in_the_store(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, exchange = node("a"), Catalogue.exchange

    def exchange_and_lose_the_answer(*arguments: Any) -> bool:
        assert exchange(*arguments)
        raise OperationalError("COMMIT", {}, OSError("the connection is lost"))

    with monkeypatch.context() as patched:
        patched.setattr(Catalogue, "exchange", exchange_and_lose_the_answer)
        with pytest.raises(OperationalError):
            a.store(SERIES, INSTANCE, dicom(FIRST))
    assert a.store(SERIES, INSTANCE, dicom(FIRST)) is Stored.DUPLICATE
    assert held(a) == held(node("b")) == {f"{INSTANCE}.dcm": FIRST}


def harm(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [harm, Path.unlink])
def test_what_the_store_has_harmed_or_lost_is_not_read_and_takes_its_place_when_it_is_sent_again(
    node: MakeNode, store: Path, damage: Callable[[Path], object]
) -> None:
    a, b = node("a"), node("b")
    a.store(SERIES, INSTANCE, dicom(FIRST))
    [there] = objects(store)
    damage(there)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=f"{INSTANCE}.*have the series sent again"):
            b.fetch(SERIES)
    assert not b.instance_path(SERIES, INSTANCE).exists()
    assert len(b.instances(SERIES)) == 1, "it is not forgotten"
    assert b.store(SERIES, INSTANCE, dicom(FIRST)) is Stored.NEW
    c = node("c")
    assert held(c) == {f"{INSTANCE}.dcm": FIRST}


def test_what_stages_leave_is_on_another_node_as_it_was_left(node: MakeNode) -> None:
    a, b = node("a"), node("b")
    labels = np.arange(1000, dtype=np.uint16)
    for number, names in enumerate((("labels-0.npy", "probabilities-0.npy"), ("labels-0.npy",))):
        folder = a.work(SERIES, "volume", "model")
        for file in folder.iterdir():
            file.unlink()
        for name in names:
            np.save(folder / name, labels + number)
        a.publish_folder(folder)
        b.fetch_folder(b.work(SERIES, "volume", "model"))
        copies = sorted(b.work(SERIES, "volume", "model").iterdir())
        assert tuple(copy.name for copy in copies) == names, "and nothing of before"
        assert all(np.array_equal(np.load(copy), labels + number) for copy in copies)


def test_a_result_is_on_the_node_that_delivers_it(node: MakeNode) -> None:
    a, b = node("a"), node("b")
    path = a.results(SERIES, "volume", "model") / "SR-1.2.3.dcm"
    path.write_bytes(dicom(FIRST).head)
    a.publish_files(path)
    result = b.result_here(ResultObject("SR", "1", "1.2.3", path, "1.2", ()))
    assert result.path == b.results(SERIES, "volume", "model") / "SR-1.2.3.dcm"
    assert said(result.path) == FIRST


def test_what_an_archive_has_refused_one_node_every_node_knows(node: MakeNode, tmp_path: Path) -> None:
    archive = Destination("pacs", "PACS", "127.0.0.1", 104)
    storages = all_storages()[:3]
    one_folder = [Capabilities("WETREAD", tmp_path) for _ in range(2)]
    for ours in (one_folder, [Capabilities("WETREAD", spool.root, spool) for spool in (node("a"), node("b"))]):
        for known, storage in enumerate(storages):
            ours[known % 2].refused(archive, storage, "no")
            assert len(ours[0].refusals(archive)) == len(ours[1].refusals(archive)) == known + 1


def test_what_is_forgotten_goes_from_the_store_and_from_all_nodes(node: MakeNode, store: Path) -> None:
    a, b = node("a"), node("b")
    for series in (SERIES, OTHER):
        a.store(series, INSTANCE, dicom(FIRST))
        b.fetch(series)
        b.work(series, "volume")
    a.forget(SERIES, before=10.0**10)
    assert held(b), "it has just come, perhaps after it was decided to forget it"
    a.forget(SERIES)
    a.clear_away()
    assert {path.parent.name for path in objects(store)} == {OTHER}
    later(b)
    b.tidy()
    assert sorted(path.name for path in b.root.glob("*/*") if path.parent.name in ("series", "work")) == [OTHER, OTHER]


def test_copies_that_are_too_many_go_the_oldest_first_and_come_again(node: MakeNode) -> None:
    a, b = node("a"), node("b", cache_mb=2)
    keys = [key_of(str(number)) for number in range(4)]
    for key in keys:
        a.store(key, INSTANCE, dicom(bytes(1_000_000)))
        b.fetch(key)
    later(b, but=keys[0])
    b.tidy()
    kept = sorted(path.parent.name for path in b.root.glob("series/*/*.dcm"))
    assert kept == sorted([keys[0], keys[3]]), "that which is at work stays, however old"
    assert len(held(b, keys[1])) == 1


def later(spool: SharedSpool, but: str = "") -> None:
    """As if what a node has had not been used for a while."""
    for folder in spool.root.glob("*/*"):
        if folder.name != but:
            long_ago = folder.stat().st_mtime - 2 * IN_USE_SECONDS
            os.utime(folder, (long_ago, long_ago))


def test_who_starts_again_has_what_was_acknowledged_and_nothing_else(node: MakeNode, tmp_path: Path) -> None:
    a = node("a")
    a.store(SERIES, INSTANCE, dicom(FIRST))
    left = a.instance_folder(SERIES) / f"{OTHER}.dcm"  # its node ended before it was put
    left.write_bytes(dicom(FIRST).head)
    a.unlock()
    again = node("a")
    assert list(held(again)) == [f"{INSTANCE}.dcm"]
    assert again.store(SERIES, OTHER, dicom(SECOND)) is Stored.NEW
    assert held(node("b"))[f"{OTHER}.dcm"] == SECOND


def test_an_instance_in_a_file_of_its_own_is_put_as_well(node: MakeNode) -> None:
    a, b = node("a"), node("b")
    spill = a.spill()
    with closing(spill):
        spill.write(dicom(FIRST).head)
    assert (
        a.store(SERIES, INSTANCE, Received(dicom(FIRST).head[:100], len(dicom(FIRST).head), spill.path)) is Stored.NEW
    )
    assert held(b) == {f"{INSTANCE}.dcm": FIRST}
