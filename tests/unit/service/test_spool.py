import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service import versions
from service.errors import ConfigurationError, OutOfResources
from service.spool import Spool, key_of
from service.versions import CORRECTED_REASON, Stored, revision


def test_an_instance_is_stored_bit_for_bit(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.store("series", "one", b"\x00DICM") is Stored.NEW
    assert spool.instance_path("series", "one").read_bytes() == b"\x00DICM"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_same_bytes_again_are_a_duplicate(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"first")
    assert spool.store("series", "one", b"first") is Stored.DUPLICATE
    assert spool.corrections("series") == 0


def test_other_bytes_under_the_same_uid_are_used_and_the_earlier_ones_kept_in_quarantine(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"first")
    spool.store("series", "two", b"beside it")
    before = spool.instances("series")
    assert spool.store("series", "one", b"other") is Stored.CORRECTED
    after = spool.instances("series")
    assert [path.read_bytes() for path in after] == [b"other", b"beside it"]
    assert spool.instance_path("series", "one") in after
    assert before[0] not in after, "a file never changes under its name"
    assert before[1] in after
    (entry,) = spool.quarantined()
    assert entry.reason == CORRECTED_REASON
    assert (tmp_path / entry.path).read_bytes() == b"first"


def test_each_correction_has_another_revision_and_what_was_not_corrected_has_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "untouched", b"beside it")
    seen = []
    for number, content in enumerate((b"first", b"second", b"third")):
        spool.store("series", "one", content)
        assert spool.corrections("series") == number
        seen.append(revision(spool.instances("series")))
    assert seen[0] == ""
    assert len(set(seen)) == 3
    assert revision([spool.instance_path("series", "untouched")]) == ""


def test_sources_that_send_different_contents_in_turn_replace_each_other_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    stored = [spool.store("series", "one", content) for content in (b"first", b"second") * 3]
    assert stored == [Stored.NEW, Stored.CORRECTED] + [Stored.DUPLICATE] * 4
    assert spool.instance_path("series", "one").read_bytes() == b"second"
    (entry,) = spool.quarantined()
    spool.discard(entry)
    assert spool.store("series", "one", b"first") is Stored.DUPLICATE


def test_an_operator_can_make_an_earlier_version_count_again_under_a_new_revision(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    revisions = []
    for content, again in ((b"first", False), (b"second", False), (b"first", True), (b"second", True)):
        spool.store("series", "one", content, again)
        assert spool.instance_path("series", "one").read_bytes() == content
        revisions.append(revision(spool.instances("series")))
    assert len(set(revisions)) == 4


def test_a_forgotten_series_keeps_count_of_its_versions(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"first")
    spool.store("series", "one", b"second")
    corrected = revision(spool.instances("series"))
    spool.forget("series")
    assert spool.instances("series") == []
    assert spool.store("series", "one", b"second") is Stored.NEW
    assert revision(spool.instances("series")) == corrected
    spool.forget("series")
    assert spool.store("series", "one", b"first") is Stored.NEW
    assert revision(spool.instances("series")) not in ("", corrected)
    assert spool.store("series", "one", b"second") is Stored.CORRECTED


class PowerCut(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("step", range(8))
def test_a_stop_between_any_two_steps_of_a_correction_leaves_the_old_or_the_new_one_and_loses_nothing(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"old")
    steps = iter(range(100))

    def stops(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if next(steps) == step:
                raise PowerCut
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for module, name in [(os, "link"), (versions, "sync_folder"), (versions, "replace_file"), (Path, "unlink")]:
            patch.setattr(module, name, stops(getattr(module, name)))
        patch.setattr(Spool, "quarantine", stops(Spool.quarantine))
        with contextlib.suppress(PowerCut):
            spool.store("series", "one", b"new")
    [current] = Spool(tmp_path).instances("series")
    known = {(b"old", ""), (b"new", revision([tmp_path / "one+1.dcm"]))}
    assert (current.read_bytes(), revision([current])) in known
    kept = {current.read_bytes(), *((tmp_path / entry.path).read_bytes() for entry in spool.quarantined())}
    assert b"old" in kept

    assert spool.store("series", "one", b"new") in (Stored.CORRECTED, Stored.DUPLICATE)
    [current] = spool.instances("series")
    assert (current.read_bytes(), spool.corrections("series")) == (b"new", 1)
    assert [(tmp_path / entry.path).read_bytes() for entry in spool.quarantined()] == [b"old"]


def test_threads_that_bring_different_contents_at_once_lose_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    contents = [bytes([number]) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        stored = list(pool.map(lambda content: spool.store("series", "one", content), contents))
    assert sorted(each.value for each in stored) == ["corrected"] * 11 + ["new"]
    [current] = spool.instances("series")
    kept = [(tmp_path / entry.path).read_bytes() for entry in spool.quarantined()]
    assert sorted([current.read_bytes(), *kept]) == contents


def test_the_same_content_is_quarantined_once_and_the_file_stays_where_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"broken")
    for _ in range(2):
        entry = spool.quarantine("series", spool.instance_path("series", "one"), "why")
    assert list(spool.quarantined()) == [entry]
    assert (tmp_path / entry.path).read_bytes() == b"broken"
    assert spool.instance_path("series", "one").exists()


def test_two_nodes_cannot_work_on_one_spool(tmp_path: Path) -> None:
    first, second = Spool(tmp_path), Spool(tmp_path)
    first.lock()
    with pytest.raises(ConfigurationError, match="another node works on it"):
        second.lock()
    first.unlock()
    second.lock()


def test_what_a_crash_left_half_written_is_removed_at_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "incoming" / "left.part").write_bytes(b"half")
    spool.lock()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_spool_that_cannot_be_written_is_refused_with_the_key_and_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"spool\.path = .*cannot be written.*create it"):
        Spool(tmp_path / "file" / "spool")


def test_a_spool_that_vanishes_says_that_there_is_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool" / "incoming").rmdir()
    with pytest.raises(OutOfResources, match="cannot be written"):
        spool.store("series", "one", b"x")
    assert not spool.writable()


def test_forgetting_a_series_leaves_the_quarantine(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"x")
    spool.quarantine("series", b"y", "why")
    spool.work("series", "volume")
    spool.forget("series")
    assert spool.instances("series") == []
    assert len(list(spool.quarantined())) == 1
    assert not (tmp_path / "work" / "series").exists()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "a/b", "", "\x00", "x" * 10_000])
def test_no_uid_can_point_out_of_the_spool(uid: str, tmp_path: Path) -> None:
    key = key_of(uid)
    assert len(key) == 16
    assert os.sep not in key
    assert key != key_of(uid + "1")


def test_what_comes_to_quarantine_again_keeps_its_name_and_its_first_date(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.quarantine("series", b"broken", "why")
    again = spool.quarantine("series", b"broken", "another reason")
    assert (again.id, again.since) == (first.id, first.since)
    assert [entry.reason for entry in spool.quarantined()] == ["another reason"]
    assert len(first.id) == 16


def test_what_is_discarded_leaves_the_quarantine_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", b"broken")
    entry = spool.quarantine("series", b"broken", "why")
    other = spool.quarantine("series", b"other", "why")
    spool.discard(entry)
    assert list(spool.quarantined()) == [other]
    assert spool.instance_path("series", "one").exists()
