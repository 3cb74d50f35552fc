import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from engines.types import Volume
from service.series.assembly import assemble, assemble_from
from service.series.reader import Reading, SeriesReader
from tests.ct_slice import VALUES, ct_slice
from tests.synthetic_ct import Scan, write_enhanced, write_scan


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Of one thread: what waits for another task in the pool waits for ever."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def write_series(folder: Path, count: int) -> list[Path]:
    return [ct_slice(folder / f"{index:04}.dcm", VALUES + index, float(index), index) for index in range(count)]


def read_within(seconds: float, reader: SeriesReader, files: list[Path]) -> Reading:
    """Fail instead of waiting for ever."""
    readings: list[Reading] = []
    thread = threading.Thread(target=lambda: readings.append(reader.read(files)), daemon=True)
    thread.start()
    thread.join(seconds)
    assert readings, "still waiting"
    return readings[0]


def values(reading: Reading) -> list[int]:
    return [int(one.slot.slab.read(one.slot.index)[0, 0]) for one in reading.slices]


def test_slices_come_in_the_order_of_the_files_that_were_asked_for(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 40)
    reader = SeriesReader(None, pool)
    for file in files[::3]:
        reader.add([file])
    assert values(reader.read(files[::-1])) == list(range(39, -1, -1))


def test_a_thousand_files_are_added_and_a_part_of_them_is_read(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 1000)
    reader = SeriesReader(tmp_path, pool)
    for file in files:
        reader.add([file])
    part = files[100:900:7]
    reading = read_within(60, reader, part)
    assert [one.file for one in reading.slices] == part
    assert set(reading.stamps) == set(part)
    assert values(reading) == list(range(100, 900, 7))
    reader.discard()
    assert list(tmp_path.glob("*.slab")) == []


def test_a_file_that_has_changed_since_it_was_added_is_read_again(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 3)
    reader = SeriesReader(None, pool)
    for file in files:
        reader.add([file])
    before = reader.read(files)
    ct_slice(files[1], VALUES + 500, 1.0, 1)
    os.utime(files[1], ns=(1, 1))
    after = reader.read(files)
    assert values(before) == [0, 1, 2]
    assert values(after) == [0, 500, 2]
    assert before.stamps[files[1]] != after.stamps[files[1]]
    assert before.slices[0] is after.slices[0]


def test_what_was_read_ahead_is_not_read_again(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 5)
    reader = SeriesReader(None, pool)
    for file in files:
        reader.add([file])
    reader.read(files)
    for file in files:  # other pixels, in a file that looks the same from outside
        status = file.stat()
        file.write_bytes(file.read_bytes()[:-48] + bytes(48))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert values(reader.read(files)) == [0, 1, 2, 3, 4]


def test_a_file_that_is_gone_is_an_error_of_the_machine(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 3)
    reader = SeriesReader(None, pool)
    with pytest.raises(FileNotFoundError):
        reader.read([*files, tmp_path / "none.dcm"])
    with pytest.raises(FileNotFoundError):
        reader.add([tmp_path / "none.dcm"])
    assert len(reader.read(files).slices) == 3


def test_a_file_that_cannot_be_opened_is_an_error_of_the_machine(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 2)
    folder = tmp_path / "folder.dcm"  # there, and yet not to be read
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        SeriesReader(None, pool).read([*files, folder])


def test_a_slab_that_cannot_be_made_is_an_error_of_the_machine(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 2)
    with pytest.raises(FileNotFoundError):
        assemble_from(SeriesReader(tmp_path / "none", pool), files)


def test_a_file_that_is_no_image_is_left_out_with_a_reason_that_tells_nothing_of_it(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    files = write_series(tmp_path, 3)
    junk = tmp_path / "junk.dcm"
    junk.write_bytes(b"SECRET^NAME" * 100)
    reading = SeriesReader(None, pool).read([*files, junk])
    assert len(reading.slices) == 3
    [left] = reading.left_out
    assert (left.file, left.faulty) == (junk, True)
    assert "SECRET" not in left.reason
    assert "header cannot be understood" in left.reason


def test_frames_are_tasks_of_their_own_and_files_beside_them_too_in_a_pool_of_one(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    scan = Scan(places=tuple(range(40)))
    multi = [write_enhanced([scan], tmp_path / f"enhanced{index}.dcm") for index in range(3)]
    files = write_scan(scan, tmp_path / "single")
    reader = SeriesReader(tmp_path, pool)
    for file in (*files[:20], *multi[:2]):
        reader.add([file])
    reading = read_within(60, reader, [*files, *multi])
    assert len(reading.slices) == 160
    assert [one.frame for one in reading.slices if one.file == multi[2]] == list(range(1, 41))
    reader.discard()


def test_frames_that_several_threads_decode_lie_in_their_order(tmp_path: Path) -> None:
    scan = Scan(places=tuple(range(60)))
    order = [int(index) for index in np.random.default_rng(0).permutation(60)]
    file = write_enhanced([scan], tmp_path / "enhanced.dcm", order)
    with ThreadPoolExecutor(4) as pool:
        [item] = assemble_from(SeriesReader(tmp_path, pool), [file]).items
    assert isinstance(item.image, Volume)
    expected = [scan.stored(index).astype(int) - 1024 for index in range(60)]
    np.testing.assert_array_equal(item.image.array, expected)


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_a_reader_that_is_closed_takes_nothing_more(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 10)
    reader = SeriesReader(tmp_path, pool)
    array = assemble_from(reader, files[:6]).items[0].image.array
    slabs = list(tmp_path.glob("*.slab"))
    other = ct_slice(tmp_path / "other.dcm", VALUES.T.copy())
    for file in (*files, other):  # those that came meanwhile
        reader.add([file])
    pool.submit(int).result()  # whatever was under way in the one thread is over
    assert list(tmp_path.glob("*.slab")) == slabs
    assert array.shape[0] == 6
    assert array[:, 0, 0].tolist() == list(range(6))


def test_files_that_are_under_way_and_not_asked_for_are_over_when_the_reader_is_closed(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    files = write_series(tmp_path, 6)
    others = [write_enhanced([Scan(places=tuple(range(30)))], tmp_path / f"other{index}.dcm") for index in range(4)]
    reader = SeriesReader(tmp_path, pool)
    for file in (*files, *others):
        reader.add([file])
    [item] = assemble_from(reader, files).items
    before = _state(tmp_path)
    pool.submit(int).result()
    assert _state(tmp_path) == before
    assert item.image.array[:, 0, 0].tolist() == list(range(6))
    assert _held(tmp_path) <= 1  # of the volume that is mapped


def _state(folder: Path) -> dict[str, int]:
    return {slab.name: slab.stat().st_mtime_ns for slab in folder.glob("*.slab")}


def _held(folder: Path) -> int:
    links = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    return sum(str(one.readlink()).startswith(str(folder)) for one in links)


def test_a_reader_that_is_given_up_leaves_nothing_although_frames_are_under_way(tmp_path: Path) -> None:
    file = write_enhanced([Scan(places=tuple(range(100)), shape=(128, 128))], tmp_path / "enhanced.dcm")
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            reader = SeriesReader(tmp_path, pool)
            reader.add([file])
            reader.discard()
            assert list(tmp_path.glob("*.slab")) == []
    assert list(tmp_path.glob("*.slab")) == []
    assert _held(tmp_path) == 0


def test_an_assembly_that_fails_leaves_no_slab_and_no_open_file(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    files = write_series(tmp_path, 5)
    reader = SeriesReader(tmp_path, pool)
    for file in files:
        reader.add([file])
    with pytest.raises(FileNotFoundError):
        assemble_from(reader, [*files, tmp_path / "none.dcm"])
    assert list(tmp_path.glob("*.slab")) == []
    assert _held(tmp_path) == 0


# ---- broken files ----------------------------------------------------------------------------------------------------


@cache
def sound() -> list[Path]:
    folder = Path(tempfile.mkdtemp())
    sequence = Dataset()
    sequence.CodeValue, sequence.CodeMeaning = "C-B0322", "Iohexol"
    return [
        ct_slice(
            folder / f"{index}.dcm", VALUES + index, float(index), index, KVP="120", SliceThickness="1",
            ContrastBolusAgent=None, ContrastBolusAgentSequence=[sequence], PixelPaddingValue=0,
            SeriesDescription="THORAX", Modality="CT", BodyPartExamined="CHEST", AcquisitionNumber=1,
            ConvolutionKernel="B30f",
        )
        for index in range(4)
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of the parser, about what was broken
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_broken_header_makes_the_assembly_of_a_series_fail(data: st.DataObject) -> None:
    files = sound()
    broken = files[0].with_name("broken.dcm")  # it comes first in the order along the normal, too
    content = bytearray(files[0].read_bytes())
    for place in data.draw(st.lists(st.integers(128, len(content) - 49), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 8, 0x5C, 0xFF]))
    broken.write_bytes(content)
    assembly = assemble([broken, *files[1:]])
    used = {file for item in assembly.items for file in item.files}
    assert used | {one.file for one in assembly.left_out} == {broken, *files[1:]}
