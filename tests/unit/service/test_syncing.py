import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service import syncing
from service.syncing import Syncing


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """For each sync of the file system: the files that were there when it began."""
    seen: list[set[str]] = []

    def look(folder: Path) -> None:
        seen.append({path.name for path in folder.iterdir()})

    monkeypatch.setattr(syncing, "sync_file_system", look)
    return seen


def test_each_syncs_the_file_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(os, "fdatasync", called.append)
    monkeypatch.setattr(os, "fsync", called.append)
    each = Syncing(tmp_path, "each")
    each.data(7)
    each.entries(tmp_path)
    assert called[0] == 7
    assert len(called) == 2


def test_off_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: list[set[str]]) -> None:
    monkeypatch.delattr(os, "fdatasync")
    off = Syncing(tmp_path, "off")
    off.data(7)
    off.entries(tmp_path)
    assert rounds == []


def test_whoever_waits_in_a_group_is_served_by_a_sync_that_began_after_it_had_written(
    tmp_path: Path, rounds: list[set[str]]
) -> None:
    group = Syncing(tmp_path, "group")
    before: dict[str, int] = {}

    def write(number: int) -> None:
        name = str(number)
        (tmp_path / name).touch()
        before[name] = len(rounds)
        group.data(0)
        assert any(name in present for present in rounds[before[name] :])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(300)))


def test_one_sync_serves_all_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, began, count = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        count.append(folder)
        began.set()
        assert gate.wait(10)

    monkeypatch.setattr(syncing, "sync_file_system", slow)
    group = Syncing(tmp_path, "group")
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(group.data, 0)
        assert began.wait(10)
        others = [pool.submit(group.entries, tmp_path) for _ in range(8)]
        gate.set()
        for waiting in (first, *others):
            waiting.result(10)
    assert len(count) <= 3, "one for the first, and one for those that came meanwhile (two where one came late)"


def test_a_sync_that_fails_fails_for_all_that_it_served_and_the_next_one_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Callable[[], None]] = [_fail, lambda: None]
    monkeypatch.setattr(syncing, "sync_file_system", lambda folder: outcomes.pop(0)())
    group = Syncing(tmp_path, "group")
    with pytest.raises(OSError, match="error"):
        group.data(0)
    group.data(0)


def _fail() -> None:
    raise OSError(5, "input/output error")


def test_the_whole_file_system_can_be_synced_here(tmp_path: Path) -> None:
    Syncing(tmp_path, "group").entries(tmp_path)
