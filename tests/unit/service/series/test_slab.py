import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.types import Volume
from service.errors import Quarantined
from service.series.assembly import assemble_from
from service.series.reader import SeriesReader
from service.series.slab import IN_A_ROW, ROOM_BELOW, SLOTS, FileSlab, MemorySlab, Slot, copy_of, lie_in_a_row
from tests.ct_slice import VALUES, ct_slice

INT16 = np.dtype(np.int16)
COUNT = 12


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def write_series(folder: Path, numbers: Sequence[int | None], upwards: bool = True) -> list[Path]:
    """Slices 2 mm apart in the order of their places, with these numbers and values of their own."""
    places = range(len(numbers)) if upwards else range(len(numbers), 0, -1)
    return [
        ct_slice(folder / f"{index:03}.dcm", VALUES + index, 2.0 * place, number)
        for index, (place, number) in enumerate(zip(places, numbers, strict=True))
    ]


def assembled(reader: SeriesReader, arrivals: Sequence[Path], files: Sequence[Path]) -> NDArray[np.generic]:
    for file in arrivals:
        reader.add([file])
    [item] = assemble_from(reader, files).items
    assert isinstance(item.image, Volume)
    return item.image.array


def shuffled(files: Sequence[Path], seed: int = 0) -> list[Path]:
    return [files[index] for index in np.random.default_rng(seed).permutation(len(files))]


ARRIVALS = {
    "in order": lambda files: files,
    "backwards": lambda files: files[::-1],
    "shuffled": shuffled,
    "first half last": lambda files: [*files[COUNT // 2 :], *files[: COUNT // 2]],
}


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("arrival", list(ARRIVALS))
@pytest.mark.parametrize("first", [1, -3, 0, 10_000_000])
def test_slices_with_numbers_in_a_row_are_not_copied_in_whatever_order_they_come(
    first: int, arrival: str, upwards: bool, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    files = write_series(tmp_path, range(first, first + COUNT), upwards)
    array = assembled(SeriesReader(tmp_path, pool), ARRIVALS[arrival](files), files)
    expected = [VALUES + index for index in range(COUNT)]
    np.testing.assert_array_equal(array, expected if upwards else expected[::-1])
    [slab] = tmp_path.glob("*.slab")
    assert isinstance(array, np.memmap)
    assert array.filename == slab


NUMBERS: dict[str, list[int | None]] = {
    "duplicated": [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6],
    "all the same": [7] * COUNT,
    "missing": [None] * COUNT,
    "some missing": [1, None, 3, None, 5, 6, 7, 8, None, 10, 11, 12],
    "not in order": [3, 1, 4, 12, 5, 9, 2, 6, 8, 7, 10, 11],
    "enormous": [-(2**31), 2**31 - 1, 0, 5, 10**11, 10**11 + 1, -1, 3, 20000, 40000, 60000, 80000],
    "with gaps": [1, 2, 3, 10, 11, 12, 500, 501, 502, 5000, 5001, 5002],
}


@pytest.mark.parametrize("arrival", list(ARRIVALS))
@pytest.mark.parametrize("numbers", list(NUMBERS))
def test_the_volume_is_right_whatever_the_numbers_say(
    numbers: str, arrival: str, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    files = write_series(tmp_path, NUMBERS[numbers])
    array = assembled(SeriesReader(tmp_path, pool), ARRIVALS[arrival](files), files)
    np.testing.assert_array_equal(array, [VALUES + index for index in range(COUNT)])
    in_memory = assembled(SeriesReader(None, pool), ARRIVALS[arrival](files), files)
    np.testing.assert_array_equal(in_memory, array)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-20000, 20000) | st.sampled_from([10**30, -(10**30)]), st.floats(-1e6, 1e6))))
def test_every_slice_has_a_slot_of_its_own(places: list[tuple[int, float]]) -> None:
    slab = MemorySlab((2, 3), INT16)
    slots = [slab.write(number, along, lambda target: None) for number, along in places]
    indices = [slot.index for slot in slots]
    assert len(set(indices)) == len(indices)
    assert all(0 <= index < SLOTS for index in indices)


def test_a_number_that_is_taken_leaves_those_after_it_in_a_row() -> None:
    slab = MemorySlab((2, 3), INT16)
    slots = {number: slab.write(number, float(number), copy_of(np.full((2, 3), number))) for number in (1, 2)}
    again = slab.write(1, 1.0, copy_of(np.full((2, 3), -1)))
    slots |= {number: slab.write(number, float(number), copy_of(np.full((2, 3), number))) for number in (3, 4)}
    assert lie_in_a_row([slots[number] for number in (1, 2, 3, 4)])
    assert slab.map(slots[1].index, 4)[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert slab.read(again.index).max() == -1


def test_too_many_slices_with_one_number_are_refused(tmp_path: Path) -> None:
    slab = FileSlab(tmp_path / "one.slab", (1, 1), INT16)
    for _ in range(IN_A_ROW + 1):
        slab.write(5, 0.0, lambda target: None)
    with pytest.raises(Quarantined, match="have numbers that others have too"):
        slab.write(5, 0.0, lambda target: None)


def test_slots_lie_in_a_row_only_in_one_slab_and_in_their_order() -> None:
    one, two = MemorySlab((1, 1), INT16), MemorySlab((1, 1), INT16)
    assert lie_in_a_row([Slot(one, 5)])
    assert lie_in_a_row([Slot(one, 5), Slot(one, 6), Slot(one, 7)])
    assert not lie_in_a_row([Slot(one, 6), Slot(one, 5)])
    assert not lie_in_a_row([Slot(one, 5), Slot(one, 7)])
    assert not lie_in_a_row([Slot(one, 5), Slot(two, 6)])


def test_a_slice_that_cannot_be_made_leaves_its_slot_empty(tmp_path: Path) -> None:
    def fails(target: NDArray[np.generic]) -> None:
        raise Quarantined("truncated")

    for slab in (MemorySlab((2, 2), INT16), FileSlab(tmp_path / "one.slab", (2, 2), INT16)):
        with pytest.raises(Quarantined):
            slab.write(1, 0.0, fails)
        slot = slab.write(2, 1.0, copy_of(np.full((2, 2), 9)))
        assert slab.read(slot.index).tolist() == [[9, 9], [9, 9]]


# ---- files -----------------------------------------------------------------------------------------------------------


def open_files() -> list[str]:
    """The files that this process holds open, one entry for each time."""
    return [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]


def test_a_slab_that_is_closed_holds_no_file_and_can_be_mapped(tmp_path: Path) -> None:
    slab = FileSlab(tmp_path / "one.slab", (2, 2), INT16)
    first = slab.write(1, 0.0, copy_of(np.full((2, 2), 1)))
    slab.write(2, 1.0, copy_of(np.full((2, 2), 2)))
    assert open_files().count(str(slab.path)) == 1
    for _ in range(2):  # once more does no harm
        slab.close()
        assert open_files().count(str(slab.path)) == 0
    with pytest.raises(ValueError, match="closed"):
        slab.write(3, 2.0, copy_of(np.full((2, 2), 3)))
    volume = slab.map(first.index, 2)
    assert volume[:, 0, 0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        volume[0, 0, 0] = 5


def test_a_slab_that_is_removed_takes_no_room_and_what_was_mapped_stays(tmp_path: Path) -> None:
    slab = FileSlab(tmp_path / "one.slab", (2, 2), INT16)
    volume = slab.map(slab.write(1, 0.0, copy_of(np.full((2, 2), 7))).index, 1)
    for _ in range(2):
        slab.remove()
        assert not slab.path.exists()
    assert volume.max() == 7
    del volume
    assert not [file for file in open_files() if file.startswith(str(slab.path))]


def test_a_copy_that_fails_leaves_no_file_open_and_no_slab(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, NUMBERS["not in order"])
    folder = tmp_path / "slabs"
    folder.mkdir()
    reader = SeriesReader(folder, pool)
    reader.read(files)
    [slab] = folder.iterdir()
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        assemble_from(reader, files)
    assert not [file for file in open_files() if slab.name in file]


def test_slots_that_are_not_used_take_no_room(tmp_path: Path) -> None:
    slab = FileSlab(tmp_path / "one.slab", (256, 256), INT16)
    slab.write(1, 0.0, copy_of(np.ones((256, 256))[...].astype(np.int16)))
    slab.write(2000, 1.0, copy_of(np.ones((256, 256), np.int16)))
    status = slab.path.stat()
    assert status.st_size > 2000 * slab.slice_bytes
    assert status.st_blocks * 512 <= 3 * slab.slice_bytes


FULL = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from service.series.assembly import assemble_from
from service.series.reader import SeriesReader

folder = Path(sys.argv[1])
files = sorted(folder.glob("*.dcm"))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
with ThreadPoolExecutor(1) as pool:
    reader = SeriesReader(folder, pool)
    if sys.argv[3] == "streamed":
        for file in files:
            reader.add([file])
    try:
        assemble_from(reader, files)
    except OSError as error:
        print("OSError", error.errno, len(list(folder.glob("*.slab"))))
"""


@pytest.mark.parametrize("way", ["streamed", "at once"])
@pytest.mark.parametrize(("numbers", "whole"), [("missing", 0), ("not in order", 0), ("in a row", COUNT - 1)])
def test_a_disk_that_is_full_is_an_error_of_the_machine_and_leaves_no_slab(
    numbers: str, whole: int, way: str, tmp_path: Path
) -> None:
    write_series(tmp_path, NUMBERS.get(numbers, range(COUNT)))
    most = (ROOM_BELOW + whole) * VALUES.nbytes + 20  # it ends in the middle of a slice
    call = [sys.executable, "-c", FULL, str(tmp_path), str(most), way]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split()[:1] == ["OSError"], done.stderr
    assert done.stdout.split()[2] == "0"
