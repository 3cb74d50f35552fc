import os
from pathlib import Path

import pytest

from service.errors import ConfigurationError, OutOfResources
from service.spool import Spool, key_of
from service.versions import Stored
from tests.small_files import dicom, said


def test_an_instance_is_stored_bit_for_bit(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.store("series", "one", dicom(b"one")) is Stored.NEW
    assert said(spool.instance_path("series", "one")) == b"one"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_same_content_is_quarantined_once_and_the_file_stays_where_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", dicom(b"broken"))
    for _ in range(2):
        entry = spool.quarantine("series", spool.instance_path("series", "one"), "why")
    assert list(spool.quarantined()) == [entry]
    assert said(tmp_path / entry.path) == b"broken"
    assert spool.instance_path("series", "one").exists()


def test_two_nodes_cannot_work_on_one_spool(tmp_path: Path) -> None:
    first, second = Spool(tmp_path), Spool(tmp_path)
    first.lock()
    with pytest.raises(ConfigurationError, match="another node works on it"):
        second.lock()
    first.unlock()
    second.lock()


def test_what_a_crash_left_half_written_is_removed_at_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "incoming" / "left.part").write_bytes(b"half")
    spool.lock()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_spool_that_cannot_be_written_is_refused_with_the_key_and_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"spool\.path = .*cannot be written.*create it"):
        Spool(tmp_path / "file" / "spool")


def test_a_spool_that_vanishes_says_that_there_is_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool" / "incoming").rmdir()
    with pytest.raises(OutOfResources, match="cannot be written"):
        spool.store("series", "one", dicom(b"x"))
    assert not spool.writable()


def test_forgetting_a_series_leaves_the_quarantine(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", dicom(b"x"))
    spool.quarantine("series", b"y", "why")
    spool.work("series", "volume")
    spool.forget("series")
    assert spool.instances("series") == []
    assert len(list(spool.quarantined())) == 1
    assert not (tmp_path / "work" / "series").exists()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "a/b", "", "\x00", "x" * 10_000])
def test_no_uid_can_point_out_of_the_spool(uid: str, tmp_path: Path) -> None:
    key = key_of(uid)
    assert len(key) == 16
    assert os.sep not in key
    assert key != key_of(uid + "1")


def test_what_comes_to_quarantine_again_keeps_its_name_and_its_first_date(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.quarantine("series", b"broken", "why")
    again = spool.quarantine("series", b"broken", "another reason")
    assert (again.id, again.since) == (first.id, first.since)
    assert [entry.reason for entry in spool.quarantined()] == ["another reason"]
    assert len(first.id) == 16


def test_what_is_discarded_leaves_the_quarantine_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", dicom(b"broken"))
    entry = spool.quarantine("series", dicom(b"broken"), "why")
    other = spool.quarantine("series", b"other", "why")
    spool.discard(entry)
    assert list(spool.quarantined()) == [other]
    assert spool.instance_path("series", "one").exists()
