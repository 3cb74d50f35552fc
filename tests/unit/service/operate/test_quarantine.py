from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from service.errors import ConfigurationError
from service.fingerprint import fingerprint
from service.header import read_facts
from service.ledger.ledger import Ledger, open_ledger
from service.ledger.records import ASSEMBLE, SeriesRecord
from service.operate.quarantine import find, groups, release, to_do
from service.quarantine import QuarantineEntry
from service.received import Received
from service.spool import Spool, key_of
from service.versions import Duplicates
from tests.copies import Series, copy_series

BROKEN = b"no DICOM at all"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def ledger(spool: Spool) -> Iterator[Ledger]:
    ledger = open_ledger(spool.root)
    yield ledger
    ledger.close()


@pytest.fixture
def slices(tmp_path: Path, phantom_ct: Path) -> Series:
    return copy_series(phantom_ct, tmp_path / "ct", slice(3))


def record_of(file: Path) -> SeriesRecord:
    facts = read_facts(Received.of(file.read_bytes()))
    return SeriesRecord(
        key_of(facts.study_uid, facts.series_uid), facts.study_uid, facts.series_uid, facts.modality, "CT1"
    )


def received(spool: Spool, ledger: Ledger, *files: Path) -> SeriesRecord:
    """Files of one series that was found complete."""
    record = record_of(files[0])
    for file in files:
        content = Received.of(file.read_bytes())
        spool.store(record.key, key_of(read_facts(content).sop_instance_uid), content)
    ledger.open_series(record, len(files))
    ledger.complete_series(record.key, len(files), "", [])
    return record


def quarantined(spool: Spool, file: Path, reason: str = "cannot be decoded; send it again") -> QuarantineEntry:
    return spool.quarantine(record_of(file).key, file, reason)


def test_what_is_released_is_back_in_its_series_which_runs_again(spool: Spool, ledger: Ledger, slices: Series) -> None:
    record = received(spool, ledger, *slices.files[:2])
    entry = quarantined(spool, slices.files[2])
    [done] = release(spool, ledger, [entry])
    assert (done.refusal, done.series, done.instances) == ("", record.key, 3)
    assert slices.files[2].read_bytes() in [file.read_bytes() for file in spool.instances(record.key)]
    assert list(spool.quarantined()) == []
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    assert job.series == record
    assert not ledger.open_series(record, 3), "a series that is sent again runs nothing new"
    [decision] = ledger.decisions(record.key)
    assert decision.evidence[0].text == "1 released from quarantine"


def test_several_of_one_series_run_it_once(spool: Spool, ledger: Ledger, slices: Series) -> None:
    record = received(spool, ledger, slices.files[0])
    done = release(spool, ledger, [quarantined(spool, file) for file in slices.files[1:]])
    assert [each.instances for each in done] == [3, 3]
    assert len([job for job in ledger.list_jobs(series_key=record.key) if job.stage == ASSEMBLE]) == 1


def test_a_series_that_is_just_being_received_is_left_to_its_receiver(
    spool: Spool, ledger: Ledger, slices: Series
) -> None:
    record = record_of(slices.files[0])
    ledger.open_series(record, 0)
    [done] = release(spool, ledger, [quarantined(spool, slices.files[0])])
    assert done.receiving
    assert len(spool.instances(record.key)) == 1
    assert ledger.receiving() == [record]
    assert ledger.claim([ASSEMBLE]) is None


def test_a_series_that_the_ledger_does_not_know_needs_a_sender(spool: Spool, ledger: Ledger, slices: Series) -> None:
    entry = quarantined(spool, slices.files[0])
    [refused] = release(spool, ledger, [entry])
    assert "--sender" in refused.refusal
    assert list(spool.quarantined()) == [entry]
    [done] = release(spool, ledger, [entry], sender="CT1")
    assert not done.refusal
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    assert job.series == record_of(slices.files[0])


def test_what_has_no_uids_cannot_be_released_and_stays(
    spool: Spool, ledger: Ledger, slices: Series, tmp_path: Path
) -> None:
    nameless = pydicom.dcmread(slices.files[0])
    nameless.StudyInstanceUID = ""
    nameless.save_as(tmp_path / "nameless.dcm")
    entries = [
        spool.quarantine("00aa", tmp_path / "nameless.dcm", "StudyInstanceUID missing or empty"),
        spool.quarantine("00bb", BROKEN, "the header cannot be read"),
    ]
    nameless_one, broken_one = release(spool, ledger, entries, sender="CT1")
    assert "StudyInstanceUID missing or empty" in nameless_one.refusal
    assert "repair the header and send it again" in nameless_one.refusal
    assert "header cannot be read" in broken_one.refusal
    assert sorted(entry.id for entry in spool.quarantined()) == sorted(entry.id for entry in entries)
    assert any("cannot be released" in step for step in to_do(spool, entries[0]))


@pytest.mark.parametrize("duplicates", ["keep-first", "keep-last"])
def test_the_content_that_does_not_count_can_be_released_and_then_does(
    duplicates: Duplicates, ledger: Ledger, slices: Series, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", duplicates)
    record = received(spool, ledger, slices.files[0])
    other = pydicom.dcmread(slices.files[0])
    other.SeriesDescription = "Somebody corrected this"
    other.save_as(tmp_path / "other.dcm")
    instance = key_of(other.SOPInstanceUID)
    spool.store(record.key, instance, Received.of((tmp_path / "other.dcm").read_bytes()))
    contents = [fingerprint(slices.files[0]), fingerprint(tmp_path / "other.dcm")]
    beside, counting = contents if duplicates == "keep-last" else contents[::-1]
    [entry] = spool.quarantined()
    assert any("instead of the content that is in use" in step for step in to_do(spool, entry))
    [done] = release(spool, ledger, [entry])
    assert (done.refusal, done.instances) == ("", 1)
    assert fingerprint(spool.instance_path(record.key, instance)) == beside
    [entry] = spool.quarantined()
    assert fingerprint(spool.root / entry.path) == counting
    assert ledger.claim([ASSEMBLE]) is not None
    assert not ledger.open_series(record, 1, spool.corrections(record.key)), "sent again, it runs nothing new"


def test_what_is_in_its_series_and_in_quarantine_runs_its_series_again(
    spool: Spool, ledger: Ledger, slices: Series
) -> None:
    record = received(spool, ledger, *slices.files)
    entry = quarantined(spool, slices.files[1])
    assert any("tries its series again" in step for step in to_do(spool, entry))
    [done] = release(spool, ledger, [entry])
    assert (done.refusal, done.instances) == ("", 3)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    assert job.series == record


def test_an_entry_whose_file_is_gone_can_still_be_shown_and_discarded(spool: Spool, ledger: Ledger) -> None:
    entry = spool.quarantine("00aa", BROKEN, "the header cannot be read")
    (spool.root / entry.path).unlink()
    assert any("its file is gone" in step for step in to_do(spool, entry))
    assert release(spool, ledger, [entry])[0].refusal
    spool.discard(entry)
    assert list(spool.quarantined()) == []


def test_entries_are_grouped_by_series_and_reason(spool: Spool) -> None:
    for series, content, reason in [
        ("00aa", b"1", "x"),
        ("00aa", b"22", "x"),
        ("00aa", b"3", "y"),
        ("00bb", b"4", "x"),
    ]:
        spool.quarantine(series, content, reason)
    found = [(group.series, group.reason, len(group.entries), group.size) for group in groups(spool)]
    assert sorted(found) == [("00aa", "x", 2, 3), ("00aa", "y", 1, 1), ("00bb", "x", 1, 1)]
    assert [group.series for group in groups(spool, "00b")] == ["00bb"]


def test_the_beginning_of_an_id_is_enough_unless_several_begin_so(spool: Spool) -> None:
    entries = [spool.quarantine("00aa", bytes([number]), "x") for number in range(17)]
    assert find(entries, [entries[0].id[:12], entries[0].id]) == entries[:1]
    with pytest.raises(ConfigurationError, match="no such entry"):
        find(entries, ["xyz"])
    beginning = next(one.id[0] for one in entries if sum(other.id[0] == one.id[0] for other in entries) > 1)
    with pytest.raises(ConfigurationError, match="beginning of several"):
        find(entries, [beginning])
