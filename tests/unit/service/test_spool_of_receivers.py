"""The spool where several processes of a node store."""

import os
import threading
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.record import PAGE
from service.spool import Spool, key_of
from service.versions import Stored
from tests.small_files import dicom, said

SERIES, ONE, TWO = map(key_of, ("series", "one", "two"))


def a_receiver(root: Path, number: int) -> Spool:
    """A receiver's, with a file that is ready to be written over."""
    spool = Spool(root, ready_mb=1, receiver=number)
    (root / "receivers" / str(number) / "ready" / "one.dcm").write_bytes(bytes(2 * PAGE))
    spool.join()
    return spool


def durable_without_a_place(root: Path) -> Path:
    """What a receiver leaves that is killed as soon as an instance is durable."""
    receiver = a_receiver(root, 2)
    receiver.store(SERIES, ONE, dicom(b"one"))
    receiver.leave()
    left = root / "receivers" / "2" / "ready" / "left.dcm"
    receiver.instance_path(SERIES, ONE).rename(left)
    (root / "receivers" / "2" / "incoming" / "half.part").write_bytes(b"half")
    return left


def test_receivers_and_node_store_into_the_same_series_each_by_its_own_files(tmp_path: Path) -> None:
    node = Spool(tmp_path)
    node.lock()
    first, second = a_receiver(tmp_path, 1), a_receiver(tmp_path, 2)
    assert first.store(SERIES, ONE, dicom(b"one")) is Stored.NEW
    assert second.store(SERIES, ONE, dicom(b"one")) is Stored.DUPLICATE
    assert second.store(SERIES, TWO, dicom(b"two")) is Stored.NEW
    assert node.store(SERIES, TWO, dicom(b"TWO")) is Stored.BESIDE
    assert sorted(map(said, node.instances(SERIES))) == [b"one", b"two"]
    for spool in (first, second):
        spool.leave()


def test_what_a_receiver_has_left_gets_its_place_when_the_node_starts_again(tmp_path: Path) -> None:
    durable_without_a_place(tmp_path)
    node = Spool(tmp_path)
    assert not node.instances(SERIES)
    node.lock()
    assert list(map(said, node.instances(SERIES))) == [b"one"]
    assert not (tmp_path / "receivers").exists()


def test_ready_files_are_kept_for_those_receivers_that_come_again(tmp_path: Path) -> None:
    for number in (1, 2):
        a_receiver(tmp_path, number).leave()
    Spool(tmp_path).lock(receivers=1)
    assert [path.name for path in (tmp_path / "receivers").iterdir()] == ["1"]
    assert len(list((tmp_path / "receivers" / "1" / "ready").iterdir())) == 1


def test_what_a_receiver_has_left_gets_its_place_when_it_is_started_again(tmp_path: Path) -> None:
    left = durable_without_a_place(tmp_path)
    again = Spool(tmp_path, ready_mb=1, receiver=2)
    again.join()
    assert list(map(said, again.instances(SERIES))) == [b"one"]
    assert not left.exists()
    assert not list((tmp_path / "receivers" / "2" / "incoming").iterdir())
    again.leave()


def test_a_receiver_that_lives_on_keeps_other_nodes_out_until_it_has_ended(tmp_path: Path) -> None:
    dead, other = Spool(tmp_path), Spool(tmp_path)
    dead.lock()
    inherited = os.dup(dead.lock_descriptor)
    dead.unlock()
    with pytest.raises(ConfigurationError, match="another node works on it"):
        other.lock()
    (tmp_path / "receivers").mkdir()
    ends = threading.Timer(0.3, os.close, [inherited])
    ends.start()
    other.lock()
    ends.join()
    other.unlock()
