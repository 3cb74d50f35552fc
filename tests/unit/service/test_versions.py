import contextlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest

from service import instances, versions
from service.quarantine import Quarantine
from service.received import Received
from service.spool import Spool
from service.versions import BESIDE_REASON, CORRECTED_REASON, Duplicates, Stored, revision
from tests.small_files import dicom, said


def keep_last(root: Path) -> Spool:
    return Spool(root, "keep-last")


def test_the_same_bytes_again_are_a_duplicate(tmp_path: Path) -> None:
    spool = keep_last(tmp_path)
    spool.store("series", "one", dicom(b"first"))
    assert spool.store("series", "one", dicom(b"first")) is Stored.DUPLICATE
    assert spool.corrections("series") == 0


def test_what_differs_in_its_preamble_only_is_a_duplicate_and_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", dicom(b"first"))
    monkeypatch.setattr(instances, "place", None)  # nothing is written
    other = Received.of(b"\1" * 128 + dicom(b"first").head[128:].tobytes())
    assert spool.store("series", "one", other) is Stored.DUPLICATE
    assert spool.store("series", "one", in_a_file(tmp_path / "large", b"first")) is Stored.DUPLICATE


def in_a_file(path: Path, content: bytes) -> Received:
    whole = dicom(content).head
    path.write_bytes(whole)
    return Received(whole[:132], len(whole), path)


# ---- keep-first ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_other_bytes_under_the_same_uid_are_kept_beside_the_first_which_goes_on_to_count(
    large: bool, tmp_path: Path
) -> None:
    spool = Spool(tmp_path)
    spool.store("series", "one", dicom(b"first"))
    before = spool.instances("series")
    for _ in range(2):
        other = in_a_file(tmp_path / "large", b"other") if large else dicom(b"other")
        assert spool.store("series", "one", other) is Stored.BESIDE
    assert spool.instances("series") == before
    assert [said(path) for path in before] == [b"first"]
    assert spool.corrections("series") == 0
    (entry,) = spool.quarantined()
    assert entry.reason == BESIDE_REASON
    assert said(tmp_path / entry.path) == b"other"
    assert spool.store("series", "one", dicom(b"first")) is Stored.DUPLICATE
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("duplicates", ["keep-first", "reject"])
def test_an_operator_can_make_the_other_one_count(duplicates: Duplicates, tmp_path: Path) -> None:
    spool = Spool(tmp_path, duplicates)
    spool.store("series", "one", dicom(b"first"))
    assert spool.store("series", "one", dicom(b"other"), again=True) is Stored.CORRECTED
    assert said(spool.instance_path("series", "one")) == b"other"
    assert revision(spool.instances("series"))
    (entry,) = spool.quarantined()
    assert (entry.reason, said(tmp_path / entry.path)) == (CORRECTED_REASON, b"first")
    for content in (b"first", b"other"):
        assert spool.store("series", "one", dicom(content)) is Stored.DUPLICATE, "neither is a question any more"
    assert spool.store("series", "one", dicom(b"first"), again=True) is Stored.CORRECTED
    assert said(spool.instance_path("series", "one")) == b"first"


@pytest.mark.parametrize(("duplicates", "others"), [("keep-first", "beside"), ("keep-last", "corrected")])
def test_of_contents_that_come_at_once_one_counts_and_the_others_are_kept(
    duplicates: Duplicates, others: str, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, duplicates)
    contents = [bytes([number]) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        stored = list(pool.map(lambda content: spool.store("series", "one", dicom(content)), contents))
    assert sorted(each.value for each in stored) == [others] * 11 + ["new"]
    [current] = spool.instances("series")
    kept = [said(tmp_path / entry.path) for entry in spool.quarantined()]
    assert sorted([said(current), *kept]) == contents


@pytest.mark.parametrize("duplicates", ["keep-first", "reject"])
def test_a_first_one_that_is_of_no_use_gives_way(duplicates: Duplicates, tmp_path: Path) -> None:
    spool = Spool(tmp_path, duplicates)
    spool.store("series", "one", dicom(b"cut short"))
    spool.quarantine("series", spool.instance_path("series", "one"), "truncated; send the image again")
    assert spool.store("series", "one", dicom(b"whole")) is Stored.CORRECTED
    assert said(spool.instance_path("series", "one")) == b"whole"
    (entry,) = spool.quarantined()
    assert (entry.reason, said(tmp_path / entry.path)) == (CORRECTED_REASON, b"cut short")
    assert spool.store("series", "one", dicom(b"another")) in (Stored.BESIDE, Stored.REJECTED)


def test_another_encoding_of_the_same_instance_is_no_question(phantom_ct: Path, tmp_path: Path) -> None:
    content = min(phantom_ct.iterdir()).read_bytes()
    other = pydicom.dcmread(io.BytesIO(content))
    other.file_meta.ImplementationVersionName = "ANOTHER ARCHIVE"
    again = io.BytesIO()
    other.save_as(again)
    assert again.getvalue() != content
    for duplicates in ("keep-first", "keep-last", "reject"):
        spool = Spool(tmp_path / duplicates, duplicates)
        assert spool.store("series", "one", Received.of(content)) is Stored.NEW
        assert spool.store("series", "one", Received.of(again.getvalue())) is Stored.DUPLICATE
        assert not list(spool.quarantined())


# ---- reject ----------------------------------------------------------------------------------------------------------


def test_other_bytes_can_be_rejected_and_nothing_is_kept_of_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "reject")
    spool.store("series", "one", dicom(b"first"))
    assert spool.store("series", "one", dicom(b"other")) is Stored.REJECTED
    assert spool.store("series", "one", dicom(b"first")) is Stored.DUPLICATE
    assert said(spool.instance_path("series", "one")) == b"first"
    assert list(spool.quarantined()) == []
    assert list((tmp_path / "incoming").iterdir()) == []


# ---- keep-last -------------------------------------------------------------------------------------------------------


def test_other_bytes_under_the_same_uid_are_used_and_the_earlier_ones_kept_in_quarantine(tmp_path: Path) -> None:
    spool = keep_last(tmp_path)
    spool.store("series", "one", dicom(b"first"))
    spool.store("series", "two", dicom(b"beside it"))
    before = spool.instances("series")
    assert spool.store("series", "one", dicom(b"other")) is Stored.CORRECTED
    after = spool.instances("series")
    assert [said(path) for path in after] == [b"other", b"beside it"]
    assert spool.instance_path("series", "one") in after
    assert before[0] not in after, "a file never changes under its name"
    assert before[1] in after
    (entry,) = spool.quarantined()
    assert entry.reason == CORRECTED_REASON
    assert said(tmp_path / entry.path) == b"first"


def test_each_correction_has_another_revision_and_what_was_not_corrected_has_none(tmp_path: Path) -> None:
    spool = keep_last(tmp_path)
    spool.store("series", "untouched", dicom(b"beside it"))
    seen = []
    for number, content in enumerate((b"first", b"second", b"third")):
        spool.store("series", "one", dicom(content))
        assert spool.corrections("series") == number
        seen.append(revision(spool.instances("series")))
    assert seen[0] == ""
    assert len(set(seen)) == 3
    assert revision([spool.instance_path("series", "untouched")]) == ""


def test_sources_that_send_different_contents_in_turn_replace_each_other_once(tmp_path: Path) -> None:
    spool = keep_last(tmp_path)
    stored = [spool.store("series", "one", dicom(content)) for content in (b"first", b"second") * 3]
    assert stored == [Stored.NEW, Stored.CORRECTED] + [Stored.DUPLICATE] * 4
    assert said(spool.instance_path("series", "one")) == b"second"
    (entry,) = spool.quarantined()
    spool.discard(entry)
    assert spool.store("series", "one", dicom(b"first")) is Stored.DUPLICATE


def test_an_operator_can_make_an_earlier_version_count_again_under_a_new_revision(tmp_path: Path) -> None:
    spool = keep_last(tmp_path)
    revisions = []
    for content, again in ((b"first", False), (b"second", False), (b"first", True), (b"second", True)):
        spool.store("series", "one", dicom(content), again)
        assert said(spool.instance_path("series", "one")) == content
        revisions.append(revision(spool.instances("series")))
    assert len(set(revisions)) == 4


def test_a_forgotten_series_keeps_count_of_its_versions(tmp_path: Path) -> None:
    spool = keep_last(tmp_path)
    spool.store("series", "one", dicom(b"first"))
    spool.store("series", "one", dicom(b"second"))
    corrected = revision(spool.instances("series"))
    spool.forget("series")
    assert spool.instances("series") == []
    assert spool.store("series", "one", dicom(b"second")) is Stored.NEW
    assert revision(spool.instances("series")) == corrected
    spool.forget("series")
    assert spool.store("series", "one", dicom(b"first")) is Stored.NEW
    assert revision(spool.instances("series")) not in ("", corrected)
    assert spool.store("series", "one", dicom(b"second")) is Stored.CORRECTED


class PowerCut(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("step", range(8))
def test_a_stop_between_any_two_steps_of_a_correction_leaves_the_old_or_the_new_one_and_loses_nothing(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = keep_last(tmp_path)
    spool.store("series", "one", dicom(b"old"))
    steps = iter(range(100))

    def stops(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if next(steps) == step:
                raise PowerCut
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for module, name in [(versions, "sync_folder"), (versions, "replace_file"), (Path, "unlink"), (Path, "rename")]:
            patch.setattr(module, name, stops(getattr(module, name)))
        patch.setattr(Quarantine, "add", stops(Quarantine.add))
        with contextlib.suppress(PowerCut):
            spool.store("series", "one", dicom(b"new"))
    [current] = keep_last(tmp_path).instances("series")
    known = {(b"old", ""), (b"new", revision([tmp_path / "one+1.dcm"]))}
    assert (said(current), revision([current])) in known
    kept = {said(current), *(said(tmp_path / entry.path) for entry in spool.quarantined())}
    assert b"old" in kept

    assert spool.store("series", "one", dicom(b"new")) in (Stored.CORRECTED, Stored.DUPLICATE)
    [current] = spool.instances("series")
    assert (said(current), spool.corrections("series")) == (b"new", 1)
    assert [said(tmp_path / entry.path) for entry in spool.quarantined()] == [b"old"]
