import os
from pathlib import Path

import pytest

from service.overwriting import STEP, Overwriting
from service.record import PAGE, PREAMBLE, Record, read_record

SERIES, INSTANCE = "0123456789abcdef", "fedcba9876543210"
OLD = b"x" * (4 * STEP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ready.dcm"
    path.write_bytes(bytes(PREAMBLE) + OLD[PREAMBLE:])
    return path


def content_of(length: int) -> bytes:
    return bytes(PREAMBLE) + os.urandom(length - PREAMBLE)


def opened(path: Path) -> tuple[Overwriting, list[tuple[int, Path]]]:
    given: list[tuple[int, Path]] = []
    return Overwriting(path, lambda capacity, path: given.append((capacity, path))), given


@pytest.mark.parametrize("length", [PREAMBLE + 1, PAGE, PAGE + 1, STEP, 3 * STEP + 77, len(OLD), len(OLD) + 5000])
@pytest.mark.parametrize("piece", [1000, 65_536, 1 << 20])
def test_what_is_brought_in_pieces_is_there_as_a_whole_and_the_record_fits(path: Path, length: int, piece: int) -> None:
    content = memoryview(content_of(length))
    over, given = opened(path)
    for end in range(0, length, piece):
        over.bring(content[:end])
    over.complete(SERIES, INSTANCE, content, os.fdatasync)
    assert path.read_bytes()[PREAMBLE:] == content[PREAMBLE:]
    assert read_record(path) == Record.of(SERIES, INSTANCE, content)
    assert not over.give_up()
    assert given == []


def test_until_all_has_come_there_is_no_record_and_the_file_can_be_given_back(path: Path) -> None:
    content = memoryview(content_of(3 * STEP))
    over, given = opened(path)
    over.bring(content[: 2 * STEP + PAGE])
    written = path.read_bytes()
    assert written[:PAGE] == bytes(PREAMBLE) + OLD[PREAMBLE:PAGE]
    assert written[PAGE : 2 * STEP] == content[PAGE : 2 * STEP]  # so it does not wait for the end
    assert read_record(path) is None
    assert over.give_up()
    assert given == [(len(OLD), path)]
    assert not over.give_up()


def test_more_is_never_written_before_the_end_than_the_file_has(path: Path) -> None:
    content = memoryview(content_of(6 * STEP))
    over, _ = opened(path)
    over.bring(content)
    assert path.stat().st_size == len(OLD)
    over.complete(SERIES, INSTANCE, content, os.fdatasync)
    assert path.read_bytes()[PREAMBLE:] == content[PREAMBLE:]


def test_a_file_that_could_not_be_written_is_told_at_the_end_and_never_given_out_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    content = memoryview(content_of(3 * STEP))
    for complete in (True, False):
        path.write_bytes(OLD)
        over, given = opened(path)
        with monkeypatch.context() as patched:
            patched.setattr("service.overwriting.write_all", full)
            over.bring(content[: 2 * STEP])
        if complete:
            with pytest.raises(OSError, match="No space"):
                over.complete(SERIES, INSTANCE, content, os.fdatasync)
        else:
            assert over.give_up()
            assert not path.exists()
        assert given == []


def test_content_that_is_torn_does_not_fit_its_record(path: Path) -> None:
    content = memoryview(content_of(3 * STEP))
    over, _ = opened(path)
    over.bring(content[: 2 * STEP])
    over.complete(SERIES, INSTANCE, content, os.fdatasync)
    with path.open("r+b") as file:
        file.seek(STEP)
        file.write(b"torn")
    assert read_record(path) is None
