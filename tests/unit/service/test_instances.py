"""What is in the spool after a stop at any moment."""

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import spool as spools
from service.errors import ConfigurationError, OutOfResources
from service.received import Received
from service.record import PREAMBLE, read_record
from service.recycling import Ready
from service.spool import Spool, key_of
from service.syncing import Sync
from service.versions import Duplicates, Stored
from tests.small_files import dicom, said

SERIES, INSTANCE, OTHER = key_of("1"), key_of("1.1"), key_of("1.2")
PAGE = 4096


@pytest.fixture(autouse=True)
def _no_files_made_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ready, "start", lambda self: None)


def content(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def locked(
    root: Path, *, duplicates: Duplicates = "keep-first", sync: Sync = "each", pages: tuple[int, ...] = ()
) -> Spool:
    """A spool of a node, with ready files of so many pages, full of what is no instance."""
    (root / "ready").mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(pages):
        (root / "ready" / f"{number}.dcm").write_bytes(content(size * PAGE, number))
    spool = Spool(root, duplicates, sync=sync, ready_mb=1)
    spool.lock()
    return spool


def held(spool: Spool, series: str = SERIES) -> dict[str, bytes]:
    """What the instances of a series say, by key."""
    return {path.stem.partition("+")[0]: said(path) for path in spool.instances(series)}


def assert_in_order(spool: Spool) -> None:
    """Nothing is left that a start would take for an instance, or that is half written."""
    assert list((spool.root / "incoming").iterdir()) == []
    assert [path for path in (spool.root / "ready").iterdir() if read_record(path)] == []


class Stops:
    """Copies of a spool as a stop between any two steps would have left it (what was not synced included)."""

    def __init__(self, spool: Spool, folder: Path) -> None:
        self._spool, self._folder = spool, folder
        self.copies: list[Path] = []

    def copy(self) -> None:
        self.copies.append(self._folder / str(len(self.copies)))
        shutil.copytree(self._spool.root, self.copies[-1])

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Copy before each step of what is done meanwhile, and after the last one; a write is two steps."""

        def copies_before(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **named: object) -> object:
                self.copy()
                return real(*arguments, **named)

            return call

        def writes(descriptor: int, pieces: list[bytes], offset: int) -> int:
            self.copy()
            whole = b"".join(pieces)
            os.pwrite(descriptor, whole[: len(whole) // 2], offset)
            self.copy()
            return os.pwrite(descriptor, whole, offset)

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in [
                *((os, name) for name in ("fdatasync", "fsync", "ftruncate", "pwrite")),
                *((Path, name) for name in ("rename", "replace", "unlink", "rmdir")),
            ]:
                real = getattr(owner, name)
                if name != "pwrite":
                    patch.setattr(owner, name, copies_before(real))
            patch.setattr(os, "pwritev", writes)
            yield
        self.copy()


@pytest.mark.parametrize("pages", [(), (4,)])
def test_a_stop_anywhere_leaves_a_new_instance_whole_or_not_at_all(pages: tuple[int, ...], tmp_path: Path) -> None:
    spool = locked(tmp_path / "spool", pages=pages)
    spool.store(SERIES, OTHER, dicom(b"acknowledged before"))
    stops = Stops(spool, tmp_path / "stops")
    with stops.watch():
        assert spool.store(SERIES, INSTANCE, dicom(content(9000))) is Stored.NEW
    seen = []
    for copy in stops.copies:
        after = locked(copy)
        found = held(after)
        assert found.pop(OTHER) == b"acknowledged before"
        assert found in ({}, {INSTANCE: content(9000)})
        seen.append(bool(found))
        assert_in_order(after)
        assert after.store(SERIES, INSTANCE, dicom(content(9000))) is (Stored.DUPLICATE if found else Stored.NEW)
        assert held(after)[INSTANCE] == content(9000)
    assert seen == sorted(seen), "once it is there, it stays"
    assert not seen[0]
    assert seen[-1]


def test_once_its_data_is_synced_an_instance_is_found_though_nothing_else_was(tmp_path: Path) -> None:
    spool = locked(tmp_path / "spool", pages=(4,))
    stops = Stops(spool, tmp_path / "stops")
    with stops.watch():
        spool.store(SERIES, INSTANCE, dicom(content(9000)))
    waiting = [copy for copy in stops.copies if [path for path in (copy / "ready").iterdir() if read_record(path)]]
    lengths = {path.stat().st_size for copy in waiting for path in (copy / "ready").iterdir()}
    assert lengths == {4 * PAGE, dicom(content(9000)).length}, "before the cut, and after it"
    for copy in waiting:
        assert not (copy / "series" / SERIES / f"{INSTANCE}.dcm").exists()
        assert held(locked(copy)) == {INSTANCE: content(9000)}


@pytest.mark.parametrize("duplicates", ["keep-first", "keep-last", "reject"])
def test_a_stop_anywhere_while_another_content_comes_leaves_one_that_counts_and_loses_none_that_was_acknowledged(
    duplicates: Duplicates, tmp_path: Path
) -> None:
    spool = locked(tmp_path / "spool", duplicates=duplicates, pages=(4, 4))
    spool.store(SERIES, INSTANCE, dicom(b"first" * 1000))
    stops = Stops(spool, tmp_path / "stops")
    with stops.watch():
        spool.store(SERIES, INSTANCE, dicom(b"other" * 1000))
    for copy in stops.copies:
        after = locked(copy, duplicates=duplicates)
        for _ in range(2):
            counts = held(after)[INSTANCE]
            kept = {said(copy / entry.path) for entry in after.quarantined()}
            assert b"first" * 1000 in {counts, *kept}
            assert_in_order(after)
            after.store(SERIES, INSTANCE, dicom(b"other" * 1000))
        assert counts == (b"other" if duplicates == "keep-last" else b"first") * 1000
        assert kept == {"keep-first": {b"other" * 1000}, "keep-last": {b"first" * 1000}, "reject": set()}[duplicates]


def test_nothing_that_was_forgotten_comes_back_wherever_the_machine_stops(tmp_path: Path) -> None:
    spool = locked(tmp_path / "spool", pages=(4, 4, 4))
    for key in (INSTANCE, OTHER):
        spool.store(SERIES, key, dicom(content(9000)))
    spool.store(key_of("2"), INSTANCE, dicom(b"stays"))
    stops = Stops(spool, tmp_path / "stops")
    with stops.watch():
        spool.forget(SERIES)
        while spool._instances._ready.fill_one():
            pass
    counts = []
    for copy in stops.copies:
        after = locked(copy)
        counts.append(len(held(after)))
        assert set(held(after).values()) <= {content(9000)}
        assert held(after, key_of("2")) == {INSTANCE: b"stays"}
        assert_in_order(after)
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (2, 0)


def test_the_files_of_a_forgotten_series_take_the_next_one(tmp_path: Path) -> None:
    spool = locked(tmp_path, pages=(4,))
    spool.store(SERIES, INSTANCE, dicom(content(9000, 1)))
    inode = spool.instance_path(SERIES, INSTANCE).stat().st_ino
    spool.forget(SERIES)
    assert spool._instances._ready.fill_one()
    assert spool.store(SERIES, OTHER, dicom(content(8000, 2))) is Stored.NEW
    assert spool.instance_path(SERIES, OTHER).stat().st_ino == inode
    assert held(spool) == {OTHER: content(8000, 2)}


def test_an_instance_that_comes_after_it_was_decided_to_forget_its_series_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for key, written in ((INSTANCE, 1000.0), (OTHER, 3000.0)):
        spool.store(SERIES, key, dicom(b"x"))
        os.utime(spool.instance_path(SERIES, key), (written, written))
    spool.forget(SERIES, before=2000.0)
    assert set(held(spool)) == {OTHER}


def test_an_instance_that_cannot_get_its_place_at_start_waits_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = locked(tmp_path / "spool", pages=(4,))
    stops = Stops(spool, tmp_path / "stops")
    with stops.watch():
        spool.store(SERIES, INSTANCE, dicom(content(9000)))
    [copy, *_] = [copy for copy in stops.copies if [path for path in (copy / "ready").iterdir() if read_record(path)]]
    with monkeypatch.context() as patch:

        def full(*arguments: object) -> None:
            raise OSError(28, "no space")

        patch.setattr(os, "rename", full)
        first = locked(copy)
        assert held(first) == {}
        first.unlock()
    assert held(locked(copy)) == {INSTANCE: content(9000)}


def test_a_sync_that_fails_is_told_and_its_file_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = locked(tmp_path, pages=(4,))

    def fails(descriptor: int) -> None:
        raise OSError(5, "input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        with pytest.raises(OutOfResources, match="input/output error"):
            spool.store(SERIES, INSTANCE, dicom(content(9000)))
    assert held(spool) == {}
    assert list((tmp_path / "ready").iterdir()) == []
    assert spool.store(SERIES, INSTANCE, dicom(content(9000))) is Stored.NEW


@pytest.mark.parametrize("sync", ["each", "group", "off"])
def test_however_it_is_synced_what_is_stored_is_there(sync: Sync, tmp_path: Path) -> None:
    spool = locked(tmp_path, sync=sync, pages=(4,))
    for number in range(3):
        assert spool.store(SERIES, key_of(str(number)), dicom(content(9000, number))) is Stored.NEW
    assert sorted(held(spool).values()) == sorted(content(9000, number) for number in range(3))
    assert_in_order(spool)


def test_a_spool_that_does_not_sync_says_so_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked(tmp_path, sync="off")
    assert "spool.sync_off" in capsys.readouterr().out


def test_an_instance_in_a_file_is_moved_to_its_place_and_discarding_it_then_does_no_harm(tmp_path: Path) -> None:
    spool = locked(tmp_path)
    whole = dicom(content(50_000)).head
    spill = spool.spill()
    for start in range(0, len(whole), 7000):
        spill.write(whole[start : start + 7000])
    spill.close()
    inode = spill.path.stat().st_ino
    assert spool.store(SERIES, INSTANCE, Received(whole[:1000], len(whole), spill.path)) is Stored.NEW
    spill.discard()
    assert spool.instance_path(SERIES, INSTANCE).stat().st_ino == inode
    assert held(spool) == {INSTANCE: content(50_000)}
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_reader_that_knows_nothing_of_records_reads_the_file(tmp_path: Path) -> None:
    spool = locked(tmp_path, pages=(4,))
    spool.store(SERIES, INSTANCE, dicom(content(9000)))
    path = spool.instance_path(SERIES, INSTANCE)
    assert read_record(path) is not None
    assert pydicom.dcmread(path).PixelData == content(9000)
    spool.store(SERIES, INSTANCE, dicom(content(9000)))
    assert path.read_bytes()[PREAMBLE:] == bytes(dicom(content(9000)).head)[PREAMBLE:]


def test_dcmtk_reads_it_as_well(tmp_path: Path) -> None:
    dcmdump = shutil.which("dcmdump")
    if dcmdump is None:
        pytest.skip("needs DCMTK")
    spool = locked(tmp_path, pages=(4,))
    spool.store(SERIES, INSTANCE, dicom(content(9000)))
    path = spool.instance_path(SERIES, INSTANCE)
    assert read_record(path) is not None
    done = subprocess.run([dcmdump, str(path)], capture_output=True, text=True, check=True)
    assert "(7fe0,0010) OW" in done.stdout
    assert not done.stderr


def test_a_start_that_cannot_put_the_spool_in_order_says_what_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)

    def fails(folder: Path) -> None:
        raise OSError(5, "input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spools, "sync_file_system", fails)
        with pytest.raises(ConfigurationError, match=r"spool\.path = .*input/output error.*look at the disk"):
            spool.lock()
    Spool(tmp_path).lock()


def test_below_the_reserve_nothing_is_taken_and_what_is_there_already_still_is_a_duplicate(tmp_path: Path) -> None:
    Spool(tmp_path).store(SERIES, INSTANCE, dicom(b"x"))
    free = shutil.disk_usage(tmp_path).free >> 20
    spool = Spool(tmp_path, reserve_mb=free * 2)
    with pytest.raises(OutOfResources, match=r"spool\.reserve_mb"):
        spool.store(SERIES, OTHER, dicom(b"y"))
    with pytest.raises(OutOfResources, match=r"spool\.reserve_mb"):
        spool.spill().write(memoryview(b"y"))
    assert not spool.writable()
    assert spool.store(SERIES, INSTANCE, dicom(b"x")) is Stored.DUPLICATE


# ---- any sequence ----------------------------------------------------------------------------------------------------

LENGTHS = st.sampled_from([0, 1, 3000, 4096, 9000, 30_000])
KEYS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("store"), KEYS, KEYS, LENGTHS),
    st.tuples(st.just("stop"), KEYS, KEYS, LENGTHS, st.integers(0, 8)),
    st.tuples(st.just("forget"), KEYS),
    st.tuples(st.just("fill")),
    st.tuples(st.just("restart")),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=15))
def test_whatever_happens_what_was_acknowledged_is_there_and_nothing_that_nobody_sent(
    steps: list[tuple[object, ...]],
) -> None:
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=fast) as folder:
        patch.setattr(Ready, "start", lambda self: None)
        _follow(steps, Path(folder))


def _follow(steps: list[tuple[object, ...]], folder: Path) -> None:
    spool = locked(folder / "spool", pages=(1, 2, 4, 10))
    there: dict[str, dict[str, bytes]] = {}
    for number, (what, *named) in enumerate(steps):
        if what in ("store", "stop"):
            series, instance = key_of(f"s{named[0]}"), key_of(f"i{named[1]}")
            assert isinstance(named[2], int)
            new = content(named[2], number)
            stops = Stops(spool, folder / f"{number}")
            if what == "store":
                spool.store(series, instance, dicom(new))
                there.setdefault(series, {}).setdefault(instance, new)
            else:
                with stops.watch():
                    spool.store(series, instance, dicom(new))
                assert isinstance(named[3], int)
                spool = locked(stops.copies[min(named[3], len(stops.copies) - 1)])
                found = held(spool, series).get(instance)
                assert found in (there.get(series, {}).get(instance), new)
                if found is not None:
                    there.setdefault(series, {})[instance] = found
        elif what == "forget":
            spool.forget(key_of(f"s{named[0]}"))
            there.pop(key_of(f"s{named[0]}"), None)
        elif what == "fill":
            spool._instances._ready.fill_one()
        else:
            spool.unlock()
            spool = locked(spool.root)
            assert_in_order(spool)
        for series in {path.name for path in (spool.root / "series").iterdir()} | set(there):
            assert held(spool, series) == there.get(series, {})
