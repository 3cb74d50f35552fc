import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from engines.types import Volume
from service.handover import drop_slabs
from service.header import HeaderFacts, read_facts
from service.received import Received
from service.series.assembly import assemble_from
from service.series.streaming import IDLE_SECONDS, MANY, MOST_OPEN, Streaming
from service.spool import Spool, key_of
from tests.ct_slice import ct_slice
from tests.waiting import eventually

SHAPE = (64, 64)
SLICE_BYTES = 2 * 64 * 64


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """Brings slices into a spool and tells of them."""

    def __init__(self, spool: Spool, streaming: Streaming, folder: Path) -> None:
        self.spool = spool
        self.streaming = streaming
        self.folder = folder

    def send(self, series: int, index: int, tick: bool = True, compress: bool = False, **attributes: object) -> str:
        """One slice, and time for it; the key of its series."""
        values = np.full(SHAPE, 100 * series + index, np.int16)
        file = ct_slice(
            self.folder / f"{series}-{index}.dcm", values, float(index), index, SeriesInstanceUID=f"1.2.3.{series}",
            **attributes,
        )  # fmt: skip
        if compress:
            data_set = pydicom.dcmread(file)
            data_set.compress(uid.RLELossless)
            data_set.save_as(file)
        facts = read_facts(Received.of(file.read_bytes()))
        key = key_of(facts.study_uid, facts.series_uid)
        self.spool.store(key, key_of(facts.sop_instance_uid), Received.of(file.read_bytes()))
        self.streaming.arrived(1, facts, "SCANNER")
        if tick:
            self.streaming.tick()
        return key

    def volume(self, series: str) -> list[int]:
        """The series assembled: the value of each slice."""
        [item] = assemble_from(self.streaming.take(series), self.spool.instances(series)).items
        assert isinstance(item.image, Volume)
        return [int(value) for value in item.image.array[:, 0, 0]]

    def slabs(self, series: str) -> list[Path]:
        return list((self.spool.root / "work" / series).glob("*.slab"))

    def read_ahead(self, series: str) -> int:
        """How many slices lie in slabs."""
        return sum(slab.stat().st_blocks * 512 for slab in self.slabs(series)) // SLICE_BYTES


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sender(tmp_path: Path, clock: Clock) -> Iterator[Sender]:
    folder = tmp_path / "scanner"
    folder.mkdir()
    spool = Spool(tmp_path / "spool")
    streaming = Streaming(spool, 2, clock)
    yield Sender(spool, streaming, folder)
    streaming.stop()


def test_slices_are_read_before_anybody_asks_for_them(sender: Sender) -> None:
    for index in range(8):
        series = sender.send(1, index)
    eventually(lambda: sender.read_ahead(series) == 8, "slices in a slab")
    for file in sender.spool.instances(series):  # from now on nobody can read them
        status = file.stat()
        file.write_bytes(b"?" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    reading = sender.streaming.take(series).read(sender.spool.instances(series))
    assert len(reading.slices) == 8
    assert reading.left_out == ()


def test_slices_that_come_fast_wait_until_fewer_come_or_their_series_is_assembled(sender: Sender) -> None:
    for index in range(MANY + 1):
        series = sender.send(1, index, tick=False)
    sender.streaming.tick()
    assert sender.read_ahead(series) == 0
    sender.streaming.tick()
    eventually(lambda: sender.read_ahead(series) == MANY + 1, "slices in a slab")
    for index in range(3):
        other = sender.send(2, index, tick=False)
    assert sender.volume(other) == [200, 201, 202]


def test_what_has_to_be_decoded_is_begun_at_once(sender: Sender) -> None:
    for index in range(MANY + 1):
        series = sender.send(1, index, tick=False, compress=True)
    eventually(lambda: sender.read_ahead(series) == MANY + 1, "slices in a slab")


def test_series_that_come_at_once_are_each_assembled_rightly_and_few_are_read_ahead(sender: Sender) -> None:
    series = {}
    for index in range(3):
        for number in range(40):
            series[number] = sender.send(number, index)
    ahead = [number for number, key in series.items() if sender.slabs(key)]
    eventually(lambda: all(sender.read_ahead(series[number]) == 3 for number in ahead), "slices in a slab")
    assert len([number for number, key in series.items() if sender.slabs(key)]) == MOST_OPEN
    for number, key in series.items():
        assert sender.volume(key) == [100 * number + index for index in range(3)]
    late = sender.send(41, 0)  # there is room again
    eventually(lambda: sender.read_ahead(late) == 1, "slices in a slab")


def test_what_was_not_streamed_is_read_when_it_is_assembled(sender: Sender) -> None:
    quiet = Streaming(sender.spool, 1)
    for index in range(4):
        series = sender.send(1, index)
    loud, sender.streaming = sender.streaming, quiet
    assert sender.volume(series) == [100, 101, 102, 103]
    quiet.stop()
    sender.streaming = loud


def test_late_slices_are_read_into_a_slab_that_the_assembly_before_them_does_not_drop(sender: Sender) -> None:
    for index in range(4):
        series = sender.send(1, index)
    reader = sender.streaming.take(series)
    [item] = assemble_from(reader, sender.spool.instances(series)).items
    sender.send(1, 4)  # while that goes on
    eventually(lambda: len(sender.slabs(series)) == 2, "slices in a slab")
    drop_slabs(sender.spool.work(series), [item.image.array])
    assert len(sender.slabs(series)) == 2
    assert sender.volume(series) == [100, 101, 102, 103, 104]
    drop_slabs(sender.spool.work(series), [])
    assert sender.slabs(series) == []


def test_a_slice_that_arrives_while_its_series_is_handed_over_harms_nothing(sender: Sender) -> None:
    for index in range(3):
        series = sender.send(1, index)
    stop = threading.Event()

    def keep_sending() -> None:
        index = 3
        while not stop.is_set():
            sender.send(1, index)
            index += 1

    thread = threading.Thread(target=keep_sending)
    thread.start()
    try:
        for _ in range(20):
            files = sender.spool.instances(series)
            [item] = assemble_from(sender.streaming.take(series), files).items
            assert isinstance(item.image, Volume)
            values = [int(value) for value in item.image.array[:, 0, 0]]
            assert values == list(range(100, 100 + len(files)))
    finally:
        stop.set()
        thread.join()


def test_a_series_that_was_sent_again_and_is_not_assembled_again_is_given_up(sender: Sender, clock: Clock) -> None:
    again = sender.send(1, 0)
    clock.now += IDLE_SECONDS / 2
    slow = sender.send(2, 0)
    clock.now += IDLE_SECONDS / 2 + 1
    sender.send(3, 0)
    assert sender.slabs(again) == []
    eventually(lambda: sender.read_ahead(slow) == 1, "slices in a slab")
    sender.send(1, 1)  # and yet it may go on
    assert sender.volume(again) == [100, 101]


def test_what_is_no_slice_is_not_read(sender: Sender) -> None:
    for sop_class in (uid.ComputedRadiographyImageStorage, uid.EnhancedSRStorage):
        series = sender.send(1, 1, SOPClassUID=sop_class)
        assert not (sender.spool.root / "work" / series).exists()


def test_an_instance_that_cannot_be_read_ahead_is_acknowledged_all_the_same(sender: Sender) -> None:
    facts = HeaderFacts(uid.CTImageStorage, "1.2.9", "1.2.3", "1.2.3.9", "CT")
    sender.streaming.arrived(1, facts, "SCANNER")  # it is gone again already
    work = sender.spool.root / "work"
    (work / key_of("1.2.3", "1.2.3.1")).write_bytes(b"")  # where a folder should be
    sender.send(1, 0)


def test_stopping_leaves_no_slab_no_open_file_and_no_thread(tmp_path: Path) -> None:
    folder = tmp_path / "scanner"
    folder.mkdir()
    before = threading.active_count()
    streaming = Streaming(Spool(tmp_path / "spool"), 3)
    sender = Sender(Spool(tmp_path / "spool"), streaming, folder)
    keys = {sender.send(number, index) for index in range(10) for number in range(4)}
    streaming.stop()
    assert [slab for key in keys for slab in sender.slabs(key)] == []
    assert threading.active_count() == before
    links = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert [link for link in links if ".slab" in link and str(tmp_path) in link] == []
    sender.send(1, 20)  # from an association that is still open
    assert sender.slabs(key_of("1.2.3", "1.2.3.1")) == []
    streaming.stop()
