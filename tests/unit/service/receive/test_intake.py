"""What becomes of an instance however it came, on a real spool."""

import io
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from structlog.testing import capture_logs

from service.errors import OutOfResources
from service.header import HeaderFacts
from service.ledger.ledger import open_ledger
from service.ledger.records import ASSEMBLE
from service.receive.intake import DATA_SET_DOES_NOT_MATCH, OTHER_CONTENT_IS_THERE, SUCCESS, Intake
from service.received import Received
from service.record import PAGE
from service.series.completeness import Completeness
from service.settings import SeriesSettings
from service.spool import Spool, key_of
from service.versions import Duplicates

SEGMENTATION, EXPLICIT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.1.2.1"


@dataclass
class Listener:
    """Writes down what it is told, in a log that it may share."""

    name: str = ""
    log: list[tuple[object, ...]] = field(default_factory=list)
    full: bool = False
    expecting: bool = False

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        return self.expecting

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        if self.full:
            raise OutOfResources("the ledger is full")
        self.log.append((self.name, "arrived", association, facts.sop_instance_uid, sender))

    def released(self, association: int) -> None:
        self.log.append((self.name, "released", association))

    def aborted(self, association: int) -> None:
        self.log.append((self.name, "aborted", association))


@dataclass
class Given:
    spool: Spool
    intake: Intake
    outcomes: Counter[str]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    spool, outcomes, lock = Spool(tmp_path), Counter[str](), threading.Lock()

    def count(outcome: str) -> None:
        with lock:
            outcomes[outcome] += 1

    return Given(spool, Intake(spool, count), outcomes)


@pytest.fixture
def slices(phantom_ct: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(phantom_ct.iterdir())[:8]]


def uids(content: bytes) -> tuple[str, str]:
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content), stop_before_pixels=True)
    return str(header.SOPClassUID), str(header.SOPInstanceUID)


def stored(given: Given) -> list[bytes]:
    return sorted(path.read_bytes() for path in (given.spool.root / "series").glob("*/*.dcm"))


def test_listeners_are_told_in_their_order_when_the_instance_is_stored(given: Given, slices: list[bytes]) -> None:
    log: list[tuple[object, ...]] = []

    class First(Listener):
        def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
            assert stored(given) == [slices[0]]
            super().arrived(association, facts, sender)

    given.intake.tell(First("first", log), Listener("second", log))
    assert given.intake.take(Received.of(slices[0]), "SCANNER", 7, uids(slices[0])) == SUCCESS
    given.intake.released(7)
    given.intake.aborted(8)
    _, uid = uids(slices[0])
    assert log == [
        (name, *told)
        for told in (("arrived", 7, uid, "SCANNER"), ("released", 7), ("aborted", 8))
        for name in ("first", "second")
    ]
    assert given.outcomes == {"new": 1}


def test_what_is_fetched_has_no_command_to_agree_with(given: Given, slices: list[bytes]) -> None:
    listener = Listener()
    given.intake.tell(listener)
    assert given.intake.take(Received.of(slices[0]), "SCANNER", 1) == SUCCESS
    assert len(listener.log) == 1


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_the_command_does_not_name_is_neither_stored_nor_told_of(
    wrong: int, given: Given, slices: list[bytes]
) -> None:
    listener = Listener()
    given.intake.tell(listener)
    named = list(uids(slices[0]))
    named[wrong] = "1.2.3"
    assert given.intake.take(Received.of(slices[0]), "SCANNER", 1, (named[0], named[1])) == DATA_SET_DOES_NOT_MATCH
    assert (stored(given), listener.log, given.outcomes) == ([], [], {"refused": 1})


def test_an_instance_that_a_listener_could_not_note_is_told_again_when_it_comes_again(
    given: Given, slices: list[bytes]
) -> None:
    first, second = Listener(full=True), Listener()
    given.intake.tell(first, second)
    with pytest.raises(OutOfResources):
        given.intake.take(Received.of(slices[0]), "SCANNER", 1)
    assert (second.log, given.outcomes) == ([], {}), "nobody counts on it yet"
    first.full = False
    assert given.intake.take(Received.of(slices[0]), "SCANNER", 2) == SUCCESS
    assert len(first.log) == len(second.log) == 1
    assert given.outcomes == {"duplicate": 1}


def test_what_cannot_be_filed_is_kept_in_quarantine_and_nobody_is_told(given: Given, slices: list[bytes]) -> None:
    listener = Listener()
    given.intake.tell(listener)
    for content, named in ((b"no DICOM", None), (b"no DICOM either", ("1.2", "3.4"))):
        assert given.intake.take(Received.of(content), "SCANNER", 1, named) == SUCCESS
    entries = list(given.spool.quarantined())
    assert sorted((given.spool.root / entry.path).read_bytes() for entry in entries) == [
        b"no DICOM",
        b"no DICOM either",
    ]
    assert key_of("3.4") in {entry.series for entry in entries}
    assert (stored(given), listener.log, given.outcomes) == ([], [], {"quarantined": 2})


def all_at_once(calls: list[Callable[[], object]]) -> None:
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(run, call) for call in calls]:
            done.result()


def test_associations_that_bring_the_same_images_at_once_store_each_once_and_tell_of_each_arrival(
    given: Given, slices: list[bytes]
) -> None:
    listener = Listener()
    given.intake.tell(listener)

    def bring(association: int) -> None:
        for content in slices:
            given.intake.take(Received.of(content), "SCANNER", association, uids(content))
        given.intake.released(association)

    all_at_once([lambda number=number: bring(number) for number in range(6)])
    assert stored(given) == sorted(slices)
    assert given.outcomes == {"new": len(slices), "duplicate": 5 * len(slices)}
    assert len(listener.log) == 6 * len(slices) + 6
    for number in range(6):
        mine = [told[1] for told in listener.log if told[2] == number]
        assert mine == ["arrived"] * len(slices) + ["released"], "each association in its order"
    assert not list(given.spool.quarantined())
    assert not list((given.spool.root / "incoming").iterdir())


def test_of_two_contents_that_come_at_once_under_one_uid_one_counts_and_the_other_is_kept(
    given: Given, slices: list[bytes]
) -> None:
    other = slices[0][:-1] + bytes([slices[0][-1] ^ 1])
    all_at_once(
        [
            lambda content=content: given.intake.take(Received.of(content), "SCANNER", 1)
            for content in (slices[0], other) * 3
        ]
    )
    assert given.outcomes["new"] == 1
    assert given.outcomes["beside"] in (1, 2, 3)
    assert given.outcomes.total() == 6
    [entry] = given.spool.quarantined()
    [current] = stored(given)
    assert {current, (given.spool.root / entry.path).read_bytes()} == {slices[0], other}


def with_one_bit_changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("duplicates", "status", "outcome", "counts", "told"),
    [
        ("keep-first", SUCCESS, "beside", "first", 3),
        ("keep-last", SUCCESS, "corrected", "other", 3),
        ("reject", OTHER_CONTENT_IS_THERE, "rejected", "first", 2),
    ],
)
def test_what_becomes_of_another_content_under_a_known_uid_is_a_setting(
    duplicates: Duplicates, status: int, outcome: str, counts: str, told: int, slices: list[bytes], tmp_path: Path
) -> None:
    spool, outcomes, listener = Spool(tmp_path, duplicates), Counter[str](), Listener()
    intake = Intake(spool, lambda each: outcomes.update([each]))
    intake.tell(listener)
    first, other = slices[0], with_one_bit_changed(slices[0])
    with capture_logs() as events:
        statuses = [intake.take(Received.of(each), "SCANNER", 1, uids(each)) for each in (first, other, first)]
    assert statuses == [SUCCESS, status, SUCCESS]
    assert outcomes == {"new": 1, outcome: 1, "duplicate": 1}
    assert len(listener.log) == told
    [counting] = (spool.root / "series").glob("*/*.dcm")
    assert counting.read_bytes() == (other if counts == "other" else first)
    kept = [(spool.root / entry.path).read_bytes() for entry in spool.quarantined()]
    assert kept == ([] if duplicates == "reject" else [first if counts == "other" else other])
    [event] = events
    assert event["event"] == f"instance.{outcome}"
    assert "release this one" in event["reason"] or "a UID of its own" in event["reason"]


@pytest.mark.parametrize(("duplicates", "again"), [("keep-first", False), ("keep-last", True), ("reject", False)])
def test_other_content_that_comes_while_its_series_is_analysed_runs_it_again_only_where_it_counts(
    duplicates: Duplicates, again: bool, slices: list[bytes], tmp_path: Path
) -> None:
    spool, ledger, now = Spool(tmp_path, duplicates), open_ledger(tmp_path), 0.0
    completeness = Completeness(SeriesSettings(), spool, ledger, clock=lambda: now)
    intake = Intake(spool, lambda _: None)
    intake.tell(completeness)
    for each in slices:
        intake.take(Received.of(each), "SCANNER", 1)
    intake.released(1)
    now = 100.0
    completeness.decide()
    job = ledger.claim([ASSEMBLE])
    assert job is not None, "a worker is at it"
    held = {path: path.read_bytes() for path in spool.instances(job.series.key)}
    intake.take(Received.of(with_one_bit_changed(slices[0])), "SCANNER", 2)
    assert bool(ledger.receiving()) == again
    assert {path: path.read_bytes() for path in held if path.exists()}.items() <= held.items()
    if not again:
        assert spool.instances(job.series.key) == list(held)


def test_a_large_unreadable_file_is_quarantined_from_where_it_lies(given: Given, tmp_path: Path) -> None:
    content = bytes(128) + b"DICM" + b"\xff" * 5000
    (tmp_path / "large").write_bytes(content)
    received = Received(memoryview(content)[:1000], len(content), tmp_path / "large")
    assert given.intake.take(received, "SCANNER", 1, ("1.2", "3.4")) == SUCCESS
    [entry] = given.spool.quarantined()
    assert (given.spool.root / entry.path).read_bytes() == content


def test_a_node_that_stops_takes_nothing_more(given: Given, slices: list[bytes]) -> None:
    listener = Listener()
    given.intake.tell(listener)
    given.intake.stop()
    with pytest.raises(OutOfResources, match="stopping"):
        given.intake.take(Received.of(slices[0]), "SCANNER", 1)
    assert (stored(given), listener.log) == ([], [])
    given.intake.released(1)
    assert listener.log == [("", "released", 1)]


class Known:
    """Who knows one result, and waits for no report."""

    def is_result(self, sop_instance_uid: str) -> bool:
        return sop_instance_uid == "1.2.3.4"

    def reported(self, report: object, archive: str) -> bool:
        return False


def carried_along(uid: str, manufacturer: str, sop_class: str = SEGMENTATION, syntax: str = EXPLICIT) -> bytes:
    """An object that came with a study."""
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = sop_class, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.5", "1.2.6"
    made.Modality, made.Manufacturer = "SEG", manufacturer
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", [EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"])
@pytest.mark.parametrize(
    ("uid", "manufacturer", "comes_back"),
    [
        ("1.2.3.4", "ACME", True),  # of this node, whoever has rewritten it
        ("1.2.3.5", "Wetread", True),  # of another node like it
        ("1.2.3.5", "ACME", False),
        ("1.2.3.5", "", False),
    ],
)
def test_a_result_that_comes_back_is_acknowledged_and_kept_nowhere(
    tmp_path: Path, uid: str, manufacturer: str, comes_back: bool, syntax: str
) -> None:
    outcomes, listener = Counter[str](), Listener()
    intake = Intake(Spool(tmp_path), lambda each: outcomes.update([each]), Known())
    intake.tell(listener)
    with capture_logs() as logs:
        status = intake.take(Received.of(carried_along(uid, manufacturer, syntax=syntax)), "PACS", 1)
    assert status == SUCCESS
    assert outcomes == {"returned" if comes_back else "new": 1}
    assert [entry["event"] for entry in logs] == (["instance.returned"] if comes_back else [])
    assert bool(listener.log) is not comes_back
    assert bool(list((tmp_path / "series").glob("*/*"))) is not comes_back


def test_an_image_is_taken_whoever_made_it(tmp_path: Path) -> None:
    outcomes = Counter[str]()
    intake = Intake(Spool(tmp_path), lambda each: outcomes.update([each]), Known())
    intake.take(Received.of(carried_along("1.2.3.4", "Wetread", pydicom.uid.CTImageStorage)), "PACS", 1)
    assert outcomes == {"new": 1}


@pytest.mark.parametrize(
    ("expecting", "duplicates", "ready", "early"),
    [
        (True, "keep-first", True, True),
        (True, "keep-last", True, True),
        (False, "keep-first", True, False),  # to tell of it may fail
        (True, "reject", True, False),  # its place may tell another status
        (True, "keep-first", False, False),  # in a new file it is found only where it has its place
    ],
)
def test_an_instance_is_acknowledged_early_only_where_nothing_can_change_the_answer(
    expecting: bool, duplicates: Duplicates, ready: bool, early: bool, slices: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "ready").mkdir()
    if ready:
        (tmp_path / "ready" / "1.dcm").write_bytes(bytes(-(-len(slices[0]) // PAGE) * PAGE))
    spool = Spool(tmp_path, duplicates, ready_mb=16)
    spool.lock()
    intake = Intake(spool, lambda outcome: None)
    intake.tell(Listener(expecting=expecting))
    there: list[bool] = []

    def acknowledge() -> None:
        there.append(any(tmp_path.glob("series/*/*.dcm")))

    assert intake.take(Received.of(slices[0]), "SCANNER", 1, uids(slices[0]), acknowledge) == SUCCESS
    assert there == [False] * early
    assert any(tmp_path.glob("series/*/*.dcm"))
    spool.unlock()
