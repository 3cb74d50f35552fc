"""The spool of a real process that is killed while it stores, and on a disk that is full.

``WETREAD_KILLS`` says how often it is killed.
"""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import pydicom
import pytest

from service.errors import ArchiveUnavailable, OutOfResources
from service.ledger.ledger import open_ledger
from service.ledger.records import SeriesRecord
from service.record import read_record
from service.spool import Spool, key_of
from service.syncing import Sync
from service.versions import Stored
from tests.archive import Archive
from tests.copies import Series
from tests.running_node import RunningNode, Section
from tests.small_files import dicom, said
from tests.waiting import eventually

KILLS = int(os.environ.get("WETREAD_KILLS", "20"))
MB = 1 << 20
RESERVE_MB = 8


def sent(name: str) -> bytes:
    """What the instance of a name says."""
    some = random.Random(name)
    return some.randbytes(some.choice([100, 5000, 60_000, 60_000, 60_000, 200_000]))


def store_until_killed(root: Path, sync: Sync, life: int, told: Connection) -> None:
    """Store from four threads; tell the name of each instance that is acknowledged, and of each series forgotten."""
    spool = Spool(root, sync=sync, ready_mb=32)
    spool.lock()
    telling = threading.Lock()

    def tell(what: str, name: str) -> None:
        with telling:
            told.send((what, name))

    def store(thread: int) -> None:
        for number in range(1_000_000):
            name = f"{life}-{thread}-{number // 8}/{number}"
            series, _, _ = name.partition("/")
            spool.store(key_of(series), key_of(name), dicom(sent(name)))
            tell("acknowledged", name)
            if number % 40 == 39:
                forgotten = f"{life}-{thread}-{number // 8 - 2}"
                tell("forgotten", forgotten)
                spool.forget(key_of(forgotten))

    for thread in range(4):
        threading.Thread(target=store, args=(thread,), daemon=True).start()
    threading.Event().wait()


def make_ready(root: Path, count: int, life: int = 0) -> None:
    """Put files into ``ready/``: those that the spool makes itself would come too late here."""
    (root / "ready").mkdir(exist_ok=True)
    for number in range(count):
        size = (8192, 65_536, 65_536, 212_992)[number % 4]
        (root / "ready" / f"{life}-{number}").write_bytes(bytes(size))


def take_note(told: list[tuple[str, str]], there: dict[str, set[str]]) -> None:
    """Keep account of the names that have to be there, by series."""
    for what, name in told:
        if what == "acknowledged":
            there.setdefault(name.partition("/")[0], set()).add(name)
    for what, name in told:
        if what == "forgotten":
            there.pop(name, None)


def missing(spool: Spool, there: dict[str, set[str]]) -> set[str]:
    """The names of which the spool does not hold what was sent."""
    return {
        name
        for series, names in there.items()
        for found in [{path.stem: said(path) for path in spool.instances(key_of(series))}]
        for name in names
        if found.get(key_of(name)) != sent(name)
    }


def written_over_in(spool: Spool) -> int:
    """How many instances lie in recycled files. All are whole, with nothing behind them, and nothing else is left."""
    assert list((spool.root / "incoming").iterdir()) == []
    count = 0
    for path in (spool.root / "series").glob("*/*.dcm"):
        assert len(pydicom.dcmread(path).PixelData) == len(said(path)) > 0
        count += read_record(path) is not None
    return count


def received(connection: Connection, wait: float | None = None) -> list[tuple[str, str]]:
    """What a process has told before it ended, or until it tells nothing for so many seconds."""
    told = []
    with contextlib.suppress(EOFError, OSError):  # it may be killed while it tells
        while wait is None or connection.poll(wait):
            told.append(connection.recv())
    return told


@pytest.mark.parametrize("sync", ["each", "group"])
def test_a_process_that_is_killed_at_any_moment_keeps_all_that_it_acknowledged_and_lists_nothing_half_written(
    sync: Sync, tmp_path: Path
) -> None:
    processes = multiprocessing.get_context("fork")  # a new interpreter each time would take most of the time
    moments = random.Random(7)
    there: dict[str, set[str]] = {}
    written_over = 0
    for life in range(KILLS // 2):
        make_ready(tmp_path, 200, life)
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=store_until_killed, args=(tmp_path, sync, life, theirs))
        process.start()
        theirs.close()
        told = [ours.recv()]
        time.sleep(moments.uniform(0.0, 0.6))
        process.kill()
        process.join()
        told += received(ours)
        take_note(told, there)
        spool = Spool(tmp_path, sync=sync)
        spool.lock()
        assert missing(spool, there) == set()
        written_over += written_over_in(spool)
        spool.unlock()
        if life % 5 == 4:  # so that the disk of the test does not fill
            shutil.rmtree(tmp_path / "series")
            (tmp_path / "series").mkdir()
            there.clear()
    assert written_over > 10 * KILLS // 2, "too few to prove anything"


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Mount the image of a file system; skip the test where that cannot be done."""
    folder.mkdir()
    # no commits but those that are asked for
    line = ["mount", "-o", "loop,commit=300", str(image), str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no volume can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def make_image(image: Path, megabytes: int) -> Path:
    """Write an empty ext4."""
    make = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if os.getuid() != 0 or make is None:
        pytest.skip("needs root and mkfs.ext4, to mount a small volume")
    with image.open("wb") as file:
        file.truncate(megabytes * MB)
    subprocess.run([make, "-q", "-m", "0", str(image)], check=True)
    return image


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    with mounted(make_image(tmp_path / "volume.img", 64), tmp_path / "volume") as folder:
        yield folder


@pytest.mark.parametrize("sync", ["each", "group", "off"])
def test_after_a_power_cut_all_that_was_acknowledged_is_there_unless_nothing_is_synced(
    sync: Sync, tmp_path: Path
) -> None:
    """The disk is copied while the process stands still: what the kernel has not written to it by then is lost."""
    image = make_image(tmp_path / "volume.img", 512)
    there: dict[str, set[str]] = {}
    processes = multiprocessing.get_context("fork")
    with mounted(image, tmp_path / "volume") as folder:
        make_ready(folder, 400)
        os.sync()
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=store_until_killed, args=(folder, sync, 0, theirs))
        process.start()
        theirs.close()
        told = [ours.recv()]
        time.sleep(random.Random(sync).uniform(0.2, 0.6))
        os.kill(process.pid or 0, signal.SIGSTOP)
        told += received(ours, wait=0.5)
        subprocess.run(["cp", "--sparse=always", str(image), str(tmp_path / "after.img")], check=True)
        process.kill()
        process.join()
    take_note(told, there)
    with mounted(tmp_path / "after.img", tmp_path / "after") as folder:
        spool = Spool(folder, sync=sync)
        spool.lock()
        if sync == "off":
            assert missing(spool, there), "or this test proves nothing of the others"
        else:
            assert missing(spool, there) == set()
            assert written_over_in(spool) > 10
        spool.unlock()


def fill(spool: Spool, first: int) -> int:
    """Store one instance after the other until there is no room; return how many there are then."""
    for number in range(first, first + 10_000):
        try:
            assert spool.store(key_of("s"), key_of(f"{number}"), dicom(sent_large(number))) is Stored.NEW
        except OutOfResources:
            return number
    raise AssertionError("the volume is never full")


def sent_large(number: int) -> bytes:
    return random.Random(number).randbytes(525_000)


def assert_holds(spool: Spool, count: int) -> None:
    found = {path.stem: said(path) for path in spool.instances(key_of("s"))}
    assert found == {key_of(f"{number}"): sent_large(number) for number in range(count)}


def commits(volume: Path) -> int:
    """How many transactions the journal of a volume has had."""
    device = volume.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    for info in Path("/proc/fs/jbd2").glob(f"{name}-*/info"):
        return int(info.read_text().split()[0])
    pytest.skip("the journal does not tell what it does here")


def test_an_instance_that_is_written_over_another_needs_nothing_of_the_journal(volume: Path) -> None:
    counts = {}
    for name, ready in (("new", 0), ("over", 40)):
        make_ready(volume, ready)
        spool = Spool(volume, ready_mb=8 if ready else 0)
        spool.lock()
        spool.store(key_of(name), key_of("first"), dicom(bytes(60_000)))  # makes the folder of the series
        os.sync()
        before = commits(volume)
        for number in range(15):
            spool.store(key_of(name), key_of(f"{number}"), dicom(bytes(60_000)))
        counts[name] = commits(volume) - before
        spool.unlock()
    assert counts["new"] >= 15
    assert counts["over"] <= 2, "those of others, if any"


def test_before_the_disk_is_full_instances_are_refused_and_taken_again_when_there_is_room_without_a_restart(
    volume: Path,
) -> None:
    spool = Spool(volume, ready_mb=8, reserve_mb=RESERVE_MB)
    spool.lock()
    (volume / "something else").write_bytes(bytes(10 * MB))
    count = fill(spool, 0)
    assert count > 20
    assert RESERVE_MB * MB <= spool.free_bytes() < (RESERVE_MB + 2) * MB
    assert list((volume / "ready").iterdir()) == [], "what can be spared was given up first"
    assert not spool.writable()
    ledger = open_ledger(volume)
    for number in range(200):  # it has room still
        ledger.open_series(SeriesRecord(key_of(f"{number}"), "1.2", f"1.2.{number}", "CT", "A"), 1)
    ledger.close()
    assert fill(spool, count) == count, "refused again at once"
    (volume / "something else").unlink()
    more = fill(spool, count)
    assert more > count + 10
    assert_holds(spool, more)
    spool.unlock()


def test_a_disk_that_is_really_full_says_so_and_keeps_what_was_acknowledged(volume: Path) -> None:
    spool = Spool(volume, ready_mb=8)
    spool.lock()
    spill = spool.spill()
    with pytest.raises(OutOfResources, match="No space left"):
        spill.write(memoryview(bytes(100 * MB)))
    spill.discard()
    count = fill(spool, 0)
    assert spool.free_bytes() < 2 * MB
    assert_holds(spool, count)
    assert list((volume / "incoming").iterdir()) == []
    for number in range(5):
        spool.instance_path(key_of("s"), key_of(f"{number}")).unlink()
    for number in range(4):
        assert spool.store(key_of("s"), key_of(f"{number}"), dicom(sent_large(number))) is Stored.NEW
    spool.unlock()
    again = Spool(volume)
    again.lock()
    assert len(again.instances(key_of("s"))) == count - 1
    again.unlock()


def test_a_node_whose_disk_is_full_has_its_senders_try_again_and_needs_no_restart(
    tmp_path: Path, archive: Archive, engines: Section, series: Series
) -> None:
    sections: dict[str, Section] = {"engines": engines, "spool": {"reserve_mb": 32, "ready_mb": 0}}
    node = RunningNode(tmp_path, archive.destination, sections=sections)
    with mounted(make_image(tmp_path / "volume.img", 160), tmp_path / "spool") as volume, node:
        ballast = shutil.disk_usage(volume).free - 30 * MB
        (volume / "something else").write_bytes(bytes(ballast))
        # a look at the disk may be a second old, and what comes in a second less than the reserve
        eventually(lambda: httpx.get(node.health).json()["spool_writable"] is False, "the node has noticed")
        with pytest.raises(ArchiveUnavailable, match="0xA700"):
            node.send(series.files)
        node.event("spool.short")
        (volume / "something else").unlink()
        assert len(node.send(series.files)) == len(series.files)
        node.ended(series.uid)
        eventually(lambda: len(archive.objects) == 2, "SEG and SR are in the archive")
        node.event("spool.room_again")
        node.terminate()
