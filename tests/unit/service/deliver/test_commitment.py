"""Storage commitment and verification, from the finished encoding to what is known, with a scripted archive."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian
from structlog.testing import capture_logs

from service.commitment import Report
from service.deliver.capabilities import Capabilities
from service.deliver.commitment import Reports, ask
from service.deliver.sender import Senders
from service.ledger.ledger import Ledger
from service.ledger.records import (
    COMMIT,
    DEAD,
    DELIVER,
    DONE,
    ENCODE,
    ENCODED,
    READY,
    SENT,
    SUPERSEDED,
    Job,
    NextJob,
    ResultRecord,
    SeriesRecord,
)
from service.operate.metrics import Metrics
from service.pipeline import Pipeline
from service.receive.intake import Intake
from service.receive.listener import listeners
from service.receive.policy import AssociationPolicy
from service.retry import RetryPolicy
from service.settings import parse
from service.spool import Spool
from service.types import ResultObject
from service.worker import Worker
from tests.committing_archive import CommittingArchive, Transaction
from tests.waiting import eventually

SERIES = SeriesRecord("00aa", "1.2.5", "1.2.6", "CT", "CT1")
UIDS = ("1.2.826.1", "1.2.826.2", "1.2.826.3")


def report(folder: Path, uid: str) -> Path:
    """An SR of a few elements."""
    data_set = pydicom.Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = Comprehensive3DSRStorage, uid
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = SERIES.study_uid, "1.2.7"
    data_set.PatientID, data_set.Modality, data_set.Manufacturer = "P", "SR", "Wetread"
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{uid}.dcm"
    data_set.save_as(path, enforce_file_format=True)
    return path


@dataclass
class Node:
    """What of a node delivers and hears of it, on a ledger that outlives it."""

    folder: Path
    archive: CommittingArchive
    keys: dict[str, Any]

    def __post_init__(self) -> None:
        archive = self.archive.destination
        content = {
            "node": {"ae_title": "WETREAD", "port": 0},
            "archives": {
                "pacs": {"ae_title": archive.ae_title, "host": archive.host, "port": archive.port, **self.keys}
            },
            "senders": {"CT1": {"archive": "pacs"}},
            "retry": {"first_seconds": 0.05, "longest_seconds": 0.1},
        }
        self.settings = parse(content, "test")
        self.spool = Spool(self.folder)
        self.ledger = Ledger(f"sqlite:///{self.folder / 'ledger.sqlite'}")
        intake = Intake(self.spool, lambda _: None, Reports(self.ledger, "WETREAD"))
        [self.listener] = listeners(self.settings, AssociationPolicy(self.settings), intake)
        self.listener.start()
        self.archive.node = self.listener.port
        self._worker: Worker | None = None

    def encoded(self, uids: tuple[str, ...] = UIDS) -> None:
        """Results are encoded and wait for delivery."""
        self.ledger.open_series(SERIES, 1)
        self.ledger.complete_series(SERIES.key, 1, "", [NextJob(ENCODE, "volume", "m")])
        job = self.ledger.claim([ENCODE])
        assert job is not None
        results = []
        for uid in uids:
            made = ResultObject("SR", str(Comprehensive3DSRStorage), uid, report(self.folder, uid), "1.2.7")
            results.append(ResultRecord(SERIES.key, "volume", "m", made, ENCODED, ""))
        self.ledger.finish(job, [NextJob(DELIVER, "volume", "m")], results=results)

    def work(self) -> None:
        """Begin to deliver and to ask."""
        nothing = cast(Any, None)
        capabilities = Capabilities("WETREAD", self.folder)
        self._senders = Senders(self.settings, capabilities)
        pipeline = Pipeline(self.settings, self.spool, self.ledger, nothing, nothing, capabilities, self._senders)
        stages = {DELIVER: pipeline.deliver, COMMIT: pipeline.commit}
        retry = RetryPolicy(0.05, 0.1)
        self._worker = Worker(self.ledger, stages, retry, Metrics.on_new_registry())
        self._worker.start()

    def stop(self) -> None:
        """End it, as a power cut would as far as the ledger is concerned."""
        if self._worker is not None:
            self._worker.stop()
            self._worker.join()
            self._senders.close()
        self.listener.stop()
        self.ledger.close()

    @property
    def statuses(self) -> list[str]:
        return [record.status for record in self.ledger.results()]

    def job(self, stage: str) -> Job | None:
        return next((job for job in self.ledger.list_jobs() if job.stage == stage), None)

    def ends(self, *statuses: str, state: str = DONE) -> Job:
        """Wait until the commitment has ended so; its job."""

        def look() -> Job | None:
            job = self.job(COMMIT)
            over = (
                job is not None
                and job.state == state
                and {job.state for job in self.ledger.list_jobs()} <= {DONE, state}
            )
            return job if over else None

        job = eventually(look, f"commit is {state}; {self.job(COMMIT)}", 30)
        assert self.statuses == [*statuses]
        return cast(Job, job)


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Any]:
    """A function that starts a scripted archive and a node that has something for it."""
    opened: list[Any] = []

    def start(commitment: str = "auto", seconds: float = 60.0, **script: Any) -> Node:
        archive = CommittingArchive(**script).__enter__()
        node = Node(tmp_path, archive, {"commitment": commitment, "commitment_seconds": seconds})
        opened.extend((node, archive))
        node.encoded()
        return node

    start.nodes = opened  # type: ignore[attr-defined]
    yield start
    for each in opened:
        if isinstance(each, Node):
            each.stop()
        else:
            each.__exit__(None, None, None)


@pytest.mark.parametrize("commitment", ["auto", "require"])
@pytest.mark.parametrize("reports", ["same", "new", "new, no role"])
def test_committed_whichever_way_the_archive_reports(given: Any, commitment: str, reports: str) -> None:
    node = given(commitment, reports=reports)
    node.work()
    job = node.ends("committed", "committed", "committed")
    assert job.note == "3 objects committed by pacs"
    [asked] = node.archive.asked
    assert asked.instances == UIDS
    assert node.archive.answers == [0x0000]
    assert node.archive.stored == [*UIDS]


def test_an_archive_that_reports_late_holds_no_thread_and_wakes_the_job(given: Any) -> None:
    node = given("require", reports="new", delay=2.5)  # longer than the first request stays for an answer
    node.work()
    waiting = eventually(lambda: (job := node.job(COMMIT)) and job.state == READY and job.note and job, "it waits", 20)
    assert waiting.note == "waits for pacs to report on storage commitment"
    assert waiting.run_at > time.time() + 30
    node.ends("committed", "committed", "committed")
    assert len(node.archive.asked) == 1


def test_an_archive_that_never_reports_is_asked_again_as_a_new_transaction(given: Any) -> None:
    node = given("require", 0.2, reports="never")
    node.work()
    eventually(lambda: node.archive.asked, "it is asked", 20)
    node.archive.reports = "same"
    node.ends("committed", "committed", "committed")
    first, *_, last = node.archive.asked
    assert first.uid != last.uid
    assert first.instances == last.instances == UIDS


def test_a_report_to_an_earlier_node_is_known_after_a_restart(given: Any, tmp_path: Path) -> None:
    node = given("require", reports="never")
    node.work()
    eventually(lambda: (job := node.job(COMMIT)) and job.note and job.state == READY, "it waits", 20)
    node.stop()
    given.nodes.remove(node)
    again = Node(tmp_path, node.archive, node.keys)
    given.nodes.insert(0, again)
    again.ledger.reclaim()
    [transaction] = again.archive.asked
    assert again.archive.tell(transaction) == 0x0000
    assert again.statuses == ["committed"] * 3
    again.work()
    again.ends("committed", "committed", "committed")
    assert len(again.archive.asked) == 1


def test_what_fails_is_sent_again_and_nothing_else(given: Any) -> None:
    node = given(reports="new", loses={UIDS[1]: 2})
    node.work()
    node.ends("committed", "committed", "committed")
    assert node.archive.stored == [*UIDS, UIDS[1], UIDS[1]]
    assert [asked.instances for asked in node.archive.asked] == [UIDS, UIDS[1:2], UIDS[1:2]]
    assert [record.refused for record in node.ledger.results()] == [0, 2, 0]


def test_what_is_never_kept_is_a_dead_letter_that_a_retry_sends_again(given: Any) -> None:
    node = given(reports="same", loses={UIDS[0]: 4})
    node.work()
    job = node.ends("sending", "committed", "committed", state=DEAD)
    assert job.note.startswith("pacs takes 1 objects and does not keep them, 4 times over")
    assert node.archive.stored.count(UIDS[0]) == 4
    node.ledger.operator_retry(job.id)
    node.ends("committed", "committed", "committed")
    assert node.archive.stored.count(UIDS[0]) == 5


def test_an_archive_that_reports_twice(given: Any) -> None:
    node = given(reports="new", times=2)
    node.work()
    node.ends("committed", "committed", "committed")
    eventually(lambda: node.archive.answers == [0, 0], "both are acknowledged", 10)
    assert node.statuses == ["committed"] * 3


def test_an_unknown_transaction_says_nothing(given: Any) -> None:
    node = given(reports="never")
    node.work()
    eventually(lambda: node.archive.asked, "it is asked", 20)
    [asked] = node.archive.asked
    with capture_logs() as logs:
        assert node.archive.tell(replace(asked, uid="2.25.1")) == 0x0115
        assert node.archive.tell(Transaction(asked.uid, ((asked.references[0][0], "1.2.3.4"),))) == 0x0115
    assert [entry["event"] for entry in logs if entry["event"].startswith("commitment")] == ["commitment.unknown"] * 2
    assert node.statuses == ["sent"] * 3


def test_only_archives_that_are_asked_may_report(given: Any) -> None:
    node = given("verify", reports="new")
    transaction = Transaction("2.25.1", ((str(Comprehensive3DSRStorage), UIDS[0]),))
    assert node.archive.tell(transaction) == -1  # not asked, so its AE title is not known
    assert node.archive.tell(transaction, calling="CT1") == -1  # a sender, which may store, but is no archive


def test_a_failure_of_an_earlier_request_counts_no_more(given: Any) -> None:
    node = given("require", 0.2, reports="never")
    node.work()
    eventually(lambda: len(node.archive.asked) > 1, "it is asked again", 20)
    node.archive.loses = {UIDS[0]: 1}
    assert node.archive.tell(node.archive.asked[0]) == 0x0000
    assert node.statuses[0] == "sent"  # perhaps it was sent again since
    assert node.statuses[1:] == ["committed"] * 2  # that holds, whichever request it answers


def test_a_version_that_was_superseded_stays_so(given: Any) -> None:
    node = given("require", reports="never")
    node.work()
    eventually(lambda: node.archive.asked, "it is asked", 20)
    old = node.ledger.results()[0]
    node.ledger.open_series(SERIES, 2)
    node.ledger.complete_series(SERIES.key, 2, "", [NextJob(ENCODE, "volume", "m")])
    job = node.ledger.claim([ENCODE])
    assert job is not None
    node.ledger.finish(job, [], results=[replace(old, status=SUPERSEDED)])
    node.archive.tell(node.archive.asked[0])
    node.ends("superseded", "committed", "committed")


# ---- what an archive cannot do -------------------------------------------------------------------------------------


def test_without_storage_commitment_auto_verifies(given: Any) -> None:
    node = given(reports="none")
    node.work()
    job = node.ends("verified", "verified", "verified")
    assert job.note.startswith("3 objects listed by pacs; pacs (PACS at 127.0.0.1:")


def test_with_neither_it_stays_at_sent(given: Any) -> None:
    node = given(reports="none", finds=False)
    node.work()
    assert "3 objects sent to pacs" in node.ends("sent", "sent", "sent").note


def test_with_neither_a_requirement_is_a_dead_letter(given: Any) -> None:
    node = given("require", reports="none")
    node.work()
    assert 'archives.pacs.commitment = "auto" verifies instead' in node.ends("sent", "sent", "sent", state=DEAD).note


def test_verification_alone(given: Any) -> None:
    node = given("verify")
    node.work()
    node.ends("verified", "verified", "verified")
    assert not node.archive.asked


def test_no_commitment_makes_no_job(given: Any) -> None:
    node = given("no")
    node.work()
    eventually(lambda: node.statuses == ["sent"] * 3, "it is sent", 20)
    assert node.job(COMMIT) is None


def test_what_the_archive_does_not_list_is_sent_again(given: Any) -> None:
    node = given("verify", hides={UIDS[2]})
    node.work()
    eventually(lambda: node.archive.stored.count(UIDS[2]) == 2, "it is sent again", 30)
    node.archive.hides = set()
    node.ends("verified", "verified", "verified")
    assert node.archive.stored.count(UIDS[0]) == 1


def test_an_archive_that_never_reports_is_verified_in_the_end_and_may_report_later(given: Any) -> None:
    node = given("auto", 0.1, reports="never")
    node.work()
    job = node.ends("verified", "verified", "verified")
    assert job.note.endswith("pacs does not report on storage commitment")
    node.archive.tell(node.archive.asked[-1])
    assert node.statuses == ["committed"] * 3


def test_an_archive_that_takes_no_requests_now_is_asked_again(given: Any) -> None:
    node = given("require", status=0x0213)
    node.work()
    eventually(lambda: len(node.archive.asked) > 1, "it is asked again", 20)
    node.archive.status = 0x0000
    node.ends("committed", "committed", "committed")


def test_a_refused_request_is_no_request(given: Any) -> None:
    node = given("auto", status=0x0124)
    node.work()
    assert "refuses the request for storage commitment (0x0124)" in node.ends("verified", "verified", "verified").note


def test_a_report_that_is_being_written_down_is_answered_before_the_association_ends() -> None:
    with CommittingArchive(reports="same") as archive:
        made = ResultObject("SR", str(Comprehensive3DSRStorage), UIDS[0], Path("none"), "1.2.7")
        archive.held[UIDS[0]] = pydicom.Dataset()
        known = threading.Event()

        def take(_: Report) -> bool:
            known.set()
            time.sleep(0.5)  # a ledger that is slow to commit
            return True

        sent = [ResultRecord(SERIES.key, "volume", "m", made, SENT, "pacs")]
        ask(archive.destination, "WETREAD", "1.2.3", sent, take, known.is_set, 10.0)
        eventually(lambda: archive.answers, "the archive has its answer", 10)
        assert archive.answers == [0x0000]
