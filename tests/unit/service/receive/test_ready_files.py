"""Instances that are written over ready files, and answered when they are durable, over real sockets."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from service.receive.intake import Intake
from service.receive.listener import Listener
from service.receive.policy import AssociationPolicy
from service.record import PAGE, read_record
from service.settings import parse
from service.spool import Spool
from service.versions import Stored, place
from tests.ct_slice import ct_slice
from tests.raw_peer import ABORT_RQ, associated, stored
from tests.waiting import eventually

READY = 30


class Node:
    """Receives into a spool that keeps files ready."""

    def __init__(self, root: Path) -> None:
        self.root = root / "spool"
        (self.root / "ready").mkdir(parents=True)
        for number in range(READY):  # no more has room in 16 MB
            (self.root / "ready" / f"{number}.dcm").write_bytes(bytes(130 * PAGE))
        self.spool = Spool(self.root, ready_mb=16)
        self.spool.lock()
        settings = parse({"node": {"ae_title": "NODE", "port": 0, "accept_unknown_senders": True}}, "test")
        self.outcomes: list[str] = []
        self.listener = Listener(settings, AssociationPolicy(settings), Intake(self.spool, self.outcomes.append))
        self.listener.start()

    def ready(self) -> int:
        return len(list((self.root / "ready").iterdir()))

    def durable(self) -> list[Path]:
        """Ready files that hold an instance, and would be found at start."""
        return [path for path in (self.root / "ready").iterdir() if read_record(path)]

    def kept(self) -> set[bytes]:
        return {path.read_bytes()[128:] for path in (self.root / "series").rglob("*.dcm")}

    def stop(self) -> None:
        self.listener.stop()
        self.spool.unlock()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr("service.recycling.QUIET_SECONDS", 3600.0)  # no files are made meanwhile
    running = Node(tmp_path)
    yield running
    running.stop()


def image(folder: Path, number: int, rows: int = 510) -> tuple[str, bytes]:
    """A slice of about half a megabyte: its SOP Instance UID and its data set."""
    values = np.random.default_rng(number).integers(0, 4096, (rows, 512), np.uint16)
    file = ct_slice(folder / f"{number}.dcm", values, z=number, number=number)
    meta = pydicom.filereader.read_file_meta_info(file)
    return str(meta.MediaStorageSOPInstanceUID), file.read_bytes()[144 + meta.FileMetaInformationGroupLength :]


def test_what_is_written_over_ready_files_is_what_was_sent(node: Node, tmp_path: Path) -> None:
    images = [image(tmp_path, number, rows) for number, rows in enumerate([510, 510, 508, 100, 510, 700, 510])]
    with associated(node.listener.port) as peer:
        for uid, data_set in images:
            assert peer.store(uid, data_set, 1 << 16) == 0
    eventually(lambda: node.outcomes == ["new"] * len(images), "all have their places")
    kept = node.kept()
    assert all(any(one.endswith(data_set) for one in kept) for _, data_set in images)
    assert len(kept) == len(images)
    assert node.ready() == READY - 5  # for one they are too small, for one too large


def test_duplicates_and_instances_that_never_end_take_no_ready_file(node: Node, tmp_path: Path) -> None:
    uid, data_set = image(tmp_path, 1)
    other, _ = image(tmp_path, 2)
    with associated(node.listener.port) as peer:
        for _ in range(4):
            assert peer.store(uid, data_set, 1 << 16) == 0
        for content in [*stored(other, data_set, 1 << 16)][:-1]:
            peer.send(content)
        peer.send(ABORT_RQ)
        eventually(lambda: node.ready() == READY - 1, "the file is ready again")
    with associated(node.listener.port) as peer:  # and it can be used
        for number in range(3, 3 + READY - 1):
            assert peer.store(*image(tmp_path, number), 1 << 16) == 0
    outcomes = ["new", "duplicate", "duplicate", "duplicate", *["new"] * (READY - 1)]
    eventually(lambda: node.outcomes == outcomes, "all have their places")
    assert node.ready() == 0


def test_an_instance_is_acknowledged_when_it_is_durable_and_gets_its_place_meanwhile(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged = threading.Event()

    def later(*arguments: Any) -> Stored:
        assert acknowledged.wait(10)
        return place(*arguments)

    monkeypatch.setattr("service.instances.place", later)
    uid, data_set = image(tmp_path, 1)
    with associated(node.listener.port) as peer:
        assert peer.store(uid, data_set, 1 << 16) == 0
        assert node.kept() == set()
        assert len(node.durable()) == 1
        acknowledged.set()
        eventually(lambda: len(node.kept()) == 1, "it has its place")
        assert node.durable() == []


def test_what_was_acknowledged_and_gets_no_place_has_one_after_the_next_start(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, data_set = image(tmp_path, 1)
    with monkeypatch.context() as patch:

        def fails(*_: object) -> None:
            raise OSError(5, "input/output error")

        patch.setattr("service.instances.place", fails)
        with associated(node.listener.port) as peer:
            assert peer.store(uid, data_set, 1 << 16) == 0
            peer.aborted()  # no more should come
    assert node.kept() == set()
    node.spool.unlock()
    again = Spool(node.root, ready_mb=16)
    again.lock()
    assert [one.endswith(data_set) for one in node.kept()] == [True]
    again.unlock()
