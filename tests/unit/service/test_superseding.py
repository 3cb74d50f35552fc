"""Which results take the place of which, with a real ledger and real objects."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest

from service.errors import TransientError
from service.ledger.ledger import Ledger
from service.ledger.records import (
    DELIVER,
    ENCODE,
    ENCODED,
    SENT,
    SUPERSEDED,
    Job,
    NextJob,
    ResultRecord,
    SeriesRecord,
    StaleJob,
)
from service.results.encode import encode
from service.superseding import Earlier, take_over
from service.types import ResultObject
from tests.unit.service.results.examples import Example, analysis_of, small_ct_example

SERIES = SeriesRecord("00aa", "1.2.3.4", "1.2.3.4.5", "CT", "CT1")


def nothing_is_gone(_: str) -> bool:
    return False


@dataclass
class Work:
    """The encode and deliver stages on one series, as the pipeline runs them, without their files."""

    ledger: Ledger
    folder: Path

    def job(self, stage: str, item: str = "volume", model: str = "ct-lung") -> Job:
        """Claim a job that was created for it."""
        self.ledger.open_series(SERIES, len(self.ledger.decisions(SERIES.key)) + 99)
        self.ledger.complete_series(SERIES.key, 1, "", [NextJob(stage, item, model)])
        job = self.ledger.claim([stage])
        assert job is not None
        return job

    def encoded(
        self, name: str, item: str = "volume", items: Collection[str] = (), finish: bool = True, model: str = "ct-lung"
    ) -> Earlier:
        """Encode a version (its UIDs begin with its name)."""
        job = self.job(ENCODE, item, model)
        own = {f"{name}.9"}
        earlier = take_over(self.ledger, job, own, lambda key: bool(items) and key not in items)
        named = tuple(one.sop_instance_uid for one in earlier.predecessors)
        objects = [
            ResultObject(kind, "1.1", f"{name}.{kind}", self.folder / f"{name}-{kind}", f"{name}.9", predecessors)
            for kind, predecessors in (("SEG", ()), ("SR", named))
        ]
        records = [ResultRecord(SERIES.key, item, model, one, ENCODED, "") for one in objects]
        if finish:
            self.ledger.finish(job, [NextJob(DELIVER, item, model)], results=[*records, *earlier.superseded])
        return earlier

    def delivered(self) -> list[str]:
        """Send what waits; return its UIDs."""
        job = self.ledger.claim([DELIVER])
        assert job is not None
        records = self.ledger.begin_sending(job, "pacs")
        self.ledger.finish(job, [], results=[replace(record, status=SENT) for record in records])
        return sorted(record.result.sop_instance_uid for record in records)

    def statuses(self) -> dict[str, tuple[str, str]]:
        return {one.result.sop_instance_uid: (one.status, one.archive) for one in self.ledger.results(SERIES.key)}


def named(earlier: Earlier) -> list[str]:
    return sorted(one.sop_instance_uid for one in earlier.predecessors)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield Work(ledger, tmp_path)
    ledger.close()


def test_the_first_version_supersedes_nothing(work: Work) -> None:
    assert work.encoded("a") == Earlier((), ())


def test_three_versions_make_a_chain(work: Work) -> None:
    work.encoded("a")
    work.delivered()
    second = work.encoded("b")
    work.delivered()
    third = work.encoded("c")
    assert (named(second), named(third)) == (["a.SR"], ["b.SR"])
    [predecessor] = third.predecessors
    assert (predecessor.series_uid, predecessor.version) == ("b.9", 2)
    assert {uid for uid, (status, _) in work.statuses().items() if status == SUPERSEDED} == {
        "a.SEG", "a.SR", "b.SEG", "b.SR",
    }  # fmt: skip
    assert work.statuses()["a.SR"] == (SUPERSEDED, "pacs"), "where it went is still known"


def test_encoding_again_names_the_same_whether_or_not_the_first_time_was_written_down(work: Work) -> None:
    work.encoded("a")
    work.delivered()
    first = work.encoded("b", finish=False)
    lost = work.encoded("b")
    kept = work.encoded("b")
    work.delivered()
    sent = work.encoded("b")
    assert work.statuses()["b.SR"] == (ENCODED, ""), "it does not supersede itself"
    assert named(first) == named(lost) == named(kept) == named(sent) == ["a.SR"]


def test_a_version_that_was_never_sent_is_withdrawn_and_not_named(work: Work) -> None:
    work.encoded("a")
    work.delivered()
    work.encoded("b")
    third = work.encoded("c")
    assert named(third) == ["a.SR"], "nobody has seen the second"
    assert work.statuses()["b.SR"] == (SUPERSEDED, "")
    assert work.delivered() == ["c.SEG", "c.SR"]


def test_a_version_is_withdrawn_before_its_successor_is_written(work: Work) -> None:
    work.encoded("a")
    work.encoded("b", finish=False)
    job = work.ledger.claim([DELIVER])
    assert job is not None
    assert work.ledger.begin_sending(job, "pacs") == []


def test_while_a_version_is_being_sent_its_successor_waits(work: Work) -> None:
    work.encoded("a")
    job = work.ledger.claim([DELIVER])
    assert job is not None
    records = work.ledger.begin_sending(job, "pacs")
    with pytest.raises(TransientError, match="is being sent"):
        work.encoded("b")
    work.ledger.not_sent(job, records)
    assert named(work.encoded("b")) == []
    with pytest.raises(StaleJob):
        work.ledger.not_sent(job, records)


def test_a_version_that_may_have_arrived_is_named(work: Work) -> None:
    """The node ended while it was sent, and an operator has cancelled the job since."""
    work.encoded("a")
    job = work.ledger.claim([DELIVER])
    assert job is not None
    work.ledger.begin_sending(job, "pacs")
    work.ledger.operator_cancel(job.id)
    assert named(work.encoded("b")) == ["a.SR"]


def test_results_of_other_models_and_items_stay(work: Work) -> None:
    work.encoded("a", item="one")
    work.delivered()
    work.encoded("x", model="other")
    work.delivered()
    assert work.encoded("b", item="two", items=["one", "two"]) == Earlier((), ())
    assert {status for uid, (status, _) in work.statuses().items() if uid[0] in "ax"} == {SENT}


def test_when_a_late_slice_splits_a_series_each_part_names_the_report_on_the_whole(work: Work) -> None:
    parts = ["volume-1", "volume-2"]
    work.encoded("a")
    work.delivered()
    one = work.encoded("b", "volume-1", parts)
    work.delivered()
    two = work.encoded("c", "volume-2", parts)
    work.delivered()
    assert named(one) == named(two) == ["a.SR"]
    assert [predecessor.version for predecessor in two.predecessors] == [1]
    again = work.encoded("d", "volume-2", parts)
    work.delivered()
    assert named(again) == ["c.SR"]
    whole = work.encoded("e", "volume", ["volume"])
    assert named(whole) == ["b.SR", "d.SR"]
    assert max(predecessor.version for predecessor in whole.predecessors) == 3


def test_objects_are_the_same_bytes_when_they_are_encoded_again(work: Work, tmp_path: Path) -> None:
    late = small_ct_example()
    early = Example(late.image, late.headers, replace(late.findings, notes=("1 slice is missing.",)))
    contents: list[list[bytes]] = []
    for example, run in ((early, "first"), (late, "lost"), (late, "kept"), (late, "again")):
        job = work.job(ENCODE)
        analysis = analysis_of(example.findings, example.image, example.headers)
        earlier = take_over(work.ledger, job, analysis.series_uids, nothing_is_gone)
        analysis = replace(analysis, predecessors=earlier.predecessors)
        objects = encode(analysis, tmp_path / run)
        contents.append([one.path.read_bytes() for one in objects])
        records = [ResultRecord(SERIES.key, "volume", "ct-lung", one, ENCODED, "") for one in objects]
        if run != "lost":
            work.ledger.finish(job, [NextJob(DELIVER, "volume", "ct-lung")], results=[*records, *earlier.superseded])
        if run == "first":
            assert len(work.delivered()) == 2
    assert contents[1] == contents[2] == contents[3]
    first, second = (pydicom.dcmread(next((tmp_path / run).glob("SR-*"))) for run in ("first", "again"))
    [study] = second.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [document] = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert document.ReferencedSOPClassUID == first.SOPClassUID
