import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.errors import OutOfResources
from service.room import INODES, Room

MB = 1 << 20


class Disk:
    """A file system of which a test says how much is free, with its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.inodes, self.files, self.now, self.looks, self.spared = 1000 * MB, 10_000, 20_000, 0.0, 0, 0
        self.told = ""
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        self.room = Room(Path(), 100 * MB, self._spare, lambda: self.now)

    def _statvfs(self, folder: Path) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(f_bavail=self.free // 4096, f_frsize=4096, f_favail=self.inodes, f_files=self.files)

    def _spare(self) -> None:
        self.free, self.spared = self.free + self.spared, 0

    def takes(self, length: int = MB) -> bool:
        try:
            self.room.claim(length)
        except OutOfResources as error:
            self.told = str(error)
            return False
        self.free -= length
        return True


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_instances_are_refused_before_the_reserve_is_touched_and_the_reason_names_the_key(disk: Disk) -> None:
    while disk.takes():
        pass
    assert 100 * MB <= disk.free < 102 * MB
    assert disk.told == disk.room.short
    assert "spool.reserve_mb = 100" in disk.told


def test_the_file_system_is_looked_at_once_a_second_and_not_for_each_instance(disk: Disk) -> None:
    for _ in range(500):
        assert disk.takes()
    assert disk.looks == 1
    disk.now = 1.5
    disk.takes()
    assert disk.looks == 2


def test_what_others_write_is_seen_after_a_second(disk: Disk) -> None:
    assert disk.takes()
    disk.free = 50 * MB
    disk.now = 1.0
    assert not disk.takes()


def test_after_a_refusal_clearly_more_must_be_free_before_anything_is_taken(disk: Disk) -> None:
    disk.free = 99 * MB
    assert not disk.takes()
    disk.free = 110 * MB
    assert not disk.takes()
    disk.free = 130 * MB
    assert disk.takes(), "at once, without waiting for the next second"
    assert not disk.room.short


def test_what_can_be_spared_is_given_up_before_anything_is_refused(disk: Disk) -> None:
    disk.free, disk.spared = 90 * MB, 200 * MB
    assert disk.takes()
    assert disk.spared == 0


def test_files_that_are_no_longer_possible_are_a_reason_too(disk: Disk) -> None:
    disk.inodes = INODES - 1
    assert not disk.takes()
    assert "more files" in disk.room.short
    disk.inodes = 2 * INODES
    assert disk.takes()


def test_a_file_system_that_does_not_count_files_has_enough_of_them(disk: Disk) -> None:
    disk.inodes = disk.files = 0
    assert disk.takes()


def test_without_a_reserve_nothing_is_refused_or_looked_at(disk: Disk) -> None:
    disk.free = 0
    Room(Path(), 0).claim(MB)
    assert disk.looks == 0


def test_what_can_be_spared_is_made_only_where_there_is_plenty(disk: Disk) -> None:
    assert disk.room.plenty(MB)
    disk.free = 240 * MB
    assert not disk.room.plenty(MB)
