import os
from pathlib import Path

import pytest

from service import recycling
from service.record import PAGE, PREAMBLE, Record, read_record, write_over
from service.recycling import FIRST_SIZES, Ready
from service.spool import key_of

SERIES, INSTANCE = key_of("1.2"), key_of("1.2.3")
FIRST_SIZE = FIRST_SIZES[0]
CONTENT = bytes(PREAMBLE) + b"DICM" + os.urandom(70_001)


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    return ready_in(tmp_path)


def ready_in(root: Path, budget: int = 6 << 20) -> Ready:
    for name in ("incoming", "ready", "series"):
        (root / name).mkdir(exist_ok=True)
    return Ready(root / "ready", root / "incoming", budget)


def record_of(content: bytes) -> Record:
    return Record.of(SERIES, INSTANCE, memoryview(content))


def written_over(ready: Ready, content: bytes = CONTENT) -> Path:
    path = ready.take(len(content))
    assert path is not None
    write_over(path, SERIES, INSTANCE, memoryview(content), os.fdatasync)
    return Path(path)


def filled_for(ready: Ready, content: bytes = CONTENT) -> None:
    """Fill with files for such contents alone."""
    for _ in range(recycling.RECENT):
        ready.take(len(content))
    while ready.fill_one():
        pass


def test_a_record_fits_the_128_bytes_that_are_ours_and_comes_back_as_it_was() -> None:
    record = record_of(CONTENT)
    assert len(record.encode()) == PREAMBLE
    assert Record.decode(record.encode()) == record
    assert record.fits(memoryview(record.encode() + CONTENT[PREAMBLE:] + b"old bytes behind it"))


@pytest.mark.parametrize("preamble", [bytes(PREAMBLE), b"", b"WETREAD\x01", b"WETREAD\x02" + bytes(120)])
def test_what_is_no_record_is_none(preamble: bytes) -> None:
    assert Record.decode(preamble) is None


@pytest.mark.parametrize("place", [8, 20, 24, 36, 128, 200, len(CONTENT) - 1])
def test_a_record_fits_nothing_in_which_one_byte_differs(place: int, tmp_path: Path) -> None:
    content = bytearray(record_of(CONTENT).encode() + CONTENT[PREAMBLE:])
    (tmp_path / "whole").write_bytes(content)
    assert read_record(tmp_path / "whole") == record_of(CONTENT)
    content[place] ^= 1
    (tmp_path / "torn").write_bytes(content)
    assert read_record(tmp_path / "torn") is None


def test_an_instance_written_over_a_file_is_there_from_byte_128_on_and_nothing_behind_it(ready: Ready) -> None:
    filled_for(ready)
    path = written_over(ready)
    assert path.read_bytes()[PREAMBLE:] == CONTENT[PREAMBLE:]
    assert read_record(path) == record_of(CONTENT)


def test_the_blocks_of_a_file_are_written_and_not_only_promised(ready: Ready) -> None:
    ready.fill_one()
    path = ready.take(FIRST_SIZE)
    assert path is not None
    assert Path(path).stat().st_blocks * 512 >= FIRST_SIZE


def test_the_smallest_file_that_is_large_enough_is_given_but_none_twice_as_large(ready: Ready, tmp_path: Path) -> None:
    for size in (3 * PAGE, 5 * PAGE, 40 * PAGE):
        (tmp_path / "ready" / f"{size}").write_bytes(bytes(size))
    assert list(ready.recover()) == []
    assert [ready.take(length) for length in (PAGE, 15 * PAGE)] == [None, None]
    assert ready.take(2 * PAGE + 1) == f"{tmp_path}/ready/{3 * PAGE}"
    assert ready.take(3 * PAGE) == f"{tmp_path}/ready/{5 * PAGE}"
    assert ready.take(3 * PAGE) is None


def test_a_file_is_given_to_one_only(ready: Ready) -> None:
    ready.fill_one()
    assert ready.take(FIRST_SIZE) is not None
    assert ready.take(FIRST_SIZE) is None


def test_the_files_never_take_more_than_their_budget(ready: Ready, tmp_path: Path) -> None:
    while ready.fill_one():
        pass
    total = sum(path.stat().st_size for path in (tmp_path / "ready").iterdir())
    assert 0.8 * (6 << 20) < total <= 6 << 20


def test_without_a_budget_there_are_none(tmp_path: Path) -> None:
    ready = ready_in(tmp_path, budget=0)
    ready.start()
    assert ready.take(1000) is None
    (tmp_path / "ready" / "left").write_bytes(bytes(PAGE))
    assert list(ready.recover()) == []
    assert not (tmp_path / "ready" / "left").exists()
    ready.stop()


def test_without_room_none_is_made(tmp_path: Path) -> None:
    ready_in(tmp_path)
    assert not Ready(tmp_path / "ready", tmp_path / "incoming", 6 << 20, lambda size: False).fill_one()


def test_sizes_follow_what_arrives_and_what_nobody_needs_makes_room(ready: Ready, tmp_path: Path) -> None:
    while ready.fill_one():
        pass
    filled_for(ready)
    sizes = [path.stat().st_size for path in (tmp_path / "ready").iterdir()]
    assert sum(size < 200_000 for size in sizes) > len(sizes) / 2
    assert sum(sizes) <= 6 << 20


@pytest.mark.parametrize("length", [200, 5000, 40_000])
def test_small_instances_get_files_that_are_given_to_them(length: int, tmp_path: Path) -> None:
    ready = ready_in(tmp_path, budget=1 << 20)
    for _ in range(recycling.RECENT):
        ready.take(length)
    assert all(ready.fill_one() for _ in range(3))
    assert ready.take(length) is not None


def test_once_the_files_are_as_they_should_be_nothing_is_written_anew(ready: Ready) -> None:
    for number in range(200):
        ready.take(60_000 if number % 3 else 700_000)
        if number > 150:
            while ready.fill_one():
                pass
    assert not ready.fill_one()
    ready.take(60_000)
    rounds = 0
    while ready.fill_one():
        rounds += 1
    assert rounds <= 2


def test_a_file_that_is_given_back_is_written_over_again_and_its_record_is_gone(ready: Ready, tmp_path: Path) -> None:
    ready.take(len(CONTENT))
    forgotten = tmp_path / "series" / "one.dcm"
    forgotten.write_bytes(record_of(CONTENT).encode() + CONTENT[PREAMBLE:])
    inode = forgotten.stat().st_ino
    ready.give(forgotten)
    assert not forgotten.exists()
    assert ready.take(len(CONTENT)) is None, "it has a record still"
    assert ready.fill_one()
    [path] = (tmp_path / "ready").iterdir()
    assert read_record(path) is None
    assert path.read_bytes()[:PREAMBLE] == bytes(PREAMBLE)
    assert (path.stat().st_ino, path.stat().st_size % PAGE) == (inode, 0)
    assert ready.take(len(CONTENT)) == str(path)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_file_that_somebody_has_open_or_that_has_two_names_is_removed(ready: Ready, tmp_path: Path) -> None:
    ready.take(len(CONTENT))
    linked, opened = tmp_path / "series" / "linked.dcm", tmp_path / "series" / "opened.dcm"
    for path in (linked, opened):
        path.write_bytes(CONTENT)
    (tmp_path / "backup").hardlink_to(linked)
    with opened.open("rb") as reader:
        ready.give(linked)
        ready.give(opened)
        assert [ready.fill_one(), ready.fill_one()] == [True, True]
        assert list((tmp_path / "ready").iterdir()) == list((tmp_path / "incoming").iterdir()) == []
        assert reader.read() == (tmp_path / "backup").read_bytes() == CONTENT


def test_what_is_of_no_size_that_arrives_or_beyond_the_budget_is_removed(ready: Ready, tmp_path: Path) -> None:
    while ready.fill_one():
        pass
    files = {(size, number) for size in (1000, FIRST_SIZE) for number in range(4)}
    for size, number in files:
        path = tmp_path / "series" / f"{size}-{number}.dcm"
        path.write_bytes(bytes(size))
        ready.give(path)
    while ready.fill_one():
        pass
    left = [path.stat().st_size for name in ("ready", "incoming", "series") for path in (tmp_path / name).iterdir()]
    assert min(left) >= FIRST_SIZE
    assert sum(left) <= 6 << 20


def test_all_are_removed_where_room_is_needed(ready: Ready, tmp_path: Path) -> None:
    ready.fill_one()
    (tmp_path / "series" / "one.dcm").write_bytes(bytes(FIRST_SIZE))
    ready.give(tmp_path / "series" / "one.dcm")
    ready.spare()
    assert list((tmp_path / "ready").iterdir()) == list((tmp_path / "incoming").iterdir()) == []
    assert ready.take(FIRST_SIZE) is None


def test_at_start_instances_are_found_and_cut_and_all_else_is_ready_again(ready: Ready, tmp_path: Path) -> None:
    filled_for(ready)
    stopped = written_over(ready)
    torn = ready.take(len(CONTENT))
    assert torn is not None
    with Path(torn).open("r+b") as file:
        file.write(record_of(CONTENT).encode() + CONTENT[PREAMBLE:5000])
    with stopped.open("ab") as file:  # as where the cut was lost
        file.write(b"old bytes")
    again = ready_in(tmp_path)
    [(record, path)] = again.recover()
    assert (record, path) == (record_of(CONTENT), stopped)
    assert path.read_bytes()[PREAMBLE:] == CONTENT[PREAMBLE:]
    given = set()
    while (path_given := again.take(len(CONTENT))) is not None:
        given.add(path_given)
    assert torn in given
    assert str(stopped) not in given
