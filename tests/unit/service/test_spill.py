from pathlib import Path

import pytest

from service.errors import OutOfResources
from service.spill import Spill


def test_what_comes_in_pieces_lies_in_one_file(tmp_path: Path) -> None:
    claimed: list[int] = []
    spill = Spill(tmp_path / "one.part", claimed.append)
    spill.write(memoryview(b"first "))
    spill.write(memoryview(b"second"))
    spill.close()
    spill.close()
    assert spill.path.read_bytes() == b"first second"
    assert claimed == [6, 6]


def test_what_is_discarded_is_gone_and_what_was_moved_away_stays(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "one.part", lambda length: None)
    spill.discard()
    spill.discard()
    assert list(tmp_path.iterdir()) == []
    moved = Spill(tmp_path / "two.part", lambda length: None)
    moved.path.rename(tmp_path / "stored")
    moved.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["stored"]


def test_nothing_is_written_for_which_there_is_no_room(tmp_path: Path) -> None:
    def full(length: int) -> None:
        raise OutOfResources("no room")

    spill = Spill(tmp_path / "one.part", full)
    with pytest.raises(OutOfResources, match="no room"):
        spill.write(memoryview(b"x"))
    assert spill.path.read_bytes() == b""
    spill.discard()


def test_a_folder_that_cannot_be_written_says_that_there_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(OutOfResources, match="cannot be written"):
        Spill(tmp_path / "gone" / "one.part", lambda length: None)
