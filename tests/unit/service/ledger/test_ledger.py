import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.ledger.jobs import CRASHES, Whose
from service.ledger.ledger import Ledger
from service.ledger.records import (
    ASSEMBLE,
    DELIVER,
    ENCODE,
    INFER,
    ROUTINE,
    STAT,
    NextJob,
    ResultRecord,
    SeriesRecord,
    StaleJob,
)
from service.types import ResultObject

SERIES = SeriesRecord("00aa", "1.2", "1.2.3", "CT", "PACS")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()


def received(ledger: Ledger, instances: int = 3) -> None:
    assert ledger.open_series(SERIES, instances)
    ledger.complete_series(SERIES.key, instances, "", [NextJob(ASSEMBLE)])


def test_a_series_goes_from_stage_to_stage(ledger: Ledger) -> None:
    assert ledger.open_series(SERIES, 1)
    assert ledger.receiving() == [SERIES]
    ledger.complete_series(SERIES.key, 3, "3 instances", [NextJob(ASSEMBLE)])
    assert ledger.receiving() == []
    for stage, following in [
        (ASSEMBLE, [NextJob(INFER, "volume", "ct-lung")]),
        (INFER, [NextJob(ENCODE, "volume", "ct-lung")]),
        (ENCODE, [NextJob(DELIVER, "volume", "ct-lung")]),
        (DELIVER, []),
    ]:
        job = ledger.claim([stage])
        assert job is not None
        assert job.series == SERIES
        ledger.finish(job, following)
    assert ledger.counts() == {(stage, "done"): 1 for stage in ("receive", ASSEMBLE, INFER, ENCODE, DELIVER)}


def test_one_job_is_claimed_once(ledger: Ledger) -> None:
    received(ledger)
    assert ledger.claim([ASSEMBLE]) is not None
    assert ledger.claim([ASSEMBLE]) is None


def test_a_series_forwarded_again_opens_nothing_and_a_late_slice_opens_it_again(ledger: Ledger) -> None:
    received(ledger, instances=3)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    assert not ledger.open_series(SERIES, 3)
    ledger.finish(job, [])
    assert not ledger.open_series(SERIES, 3)
    assert ledger.open_series(SERIES, 4)
    ledger.complete_series(SERIES.key, 4, "", [NextJob(ASSEMBLE)])
    again = ledger.claim([ASSEMBLE])
    assert again is not None
    assert again.id == job.id


def test_a_corrected_instance_opens_a_series_again_once(ledger: Ledger) -> None:
    received(ledger, instances=3)
    assert ledger.open_series(SERIES, 3, corrected=1)
    ledger.complete_series(SERIES.key, 3, "", [NextJob(ASSEMBLE)], corrected=1)
    assert not ledger.open_series(SERIES, 3, corrected=1)
    assert ledger.open_series(SERIES, 3, corrected=2)


def test_a_stale_worker_cannot_finish_what_another_has_claimed(ledger_url: str) -> None:
    ledger = Ledger(ledger_url, lease_seconds=0.0)
    received(ledger)
    first = ledger.claim([ASSEMBLE])
    time.sleep(0.01)
    second = ledger.claim([ASSEMBLE])
    assert first is not None
    assert second is not None
    for act in (
        lambda: ledger.finish(first, [NextJob(INFER)]),
        lambda: ledger.bury(first, ""),
        lambda: ledger.heartbeat(first),
    ):
        with pytest.raises(StaleJob):
            act()
    assert ledger.counts() == {("receive", "done"): 1, (ASSEMBLE, "running"): 1}
    ledger.finish(second, [])


def test_a_late_slice_makes_the_running_work_stale(ledger: Ledger) -> None:
    received(ledger)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    ledger.open_series(SERIES, 4)
    ledger.complete_series(SERIES.key, 4, "", [NextJob(ASSEMBLE)])
    with pytest.raises(StaleJob):
        ledger.finish(job, [])


def test_what_waits_for_a_retry_is_not_claimed_before_its_time(ledger: Ledger) -> None:
    received(ledger)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    ledger.retry_later(job, time.time() + 60, "archive away")
    assert ledger.claim([ASSEMBLE]) is None
    waiting = ledger.job(job.id)
    assert waiting is not None
    assert (waiting.state, waiting.attempts, waiting.note) == ("ready", 1, "archive away")


def test_after_a_crash_running_jobs_are_ready_again_and_receiving_series_stay(ledger_url: str) -> None:
    before = Ledger(ledger_url)
    received(before)
    before.open_series(SeriesRecord("00bb", "1.2", "1.2.4", "CT", "PACS"), 1)
    assert before.claim([ASSEMBLE]) is not None
    before.close()
    after = Ledger(ledger_url)
    assert after.reclaim() == 1
    assert [series.key for series in after.receiving()] == ["00bb"]
    assert after.claim([ASSEMBLE]) is not None


def test_a_job_that_ends_the_node_again_and_again_becomes_a_dead_letter(ledger: Ledger) -> None:
    received(ledger)
    for _ in range(CRASHES - 1):
        assert ledger.claim([ASSEMBLE]) is not None
        assert ledger.reclaim() == 1
    assert ledger.claim([ASSEMBLE]) is not None
    assert ledger.reclaim() == 0
    (job,) = ledger.list_jobs("dead")
    assert job.note.startswith("the node ended 5 times in this stage")


def test_finishing_keeps_results_and_creates_the_next_job_or_does_neither(ledger: Ledger) -> None:
    received(ledger)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    record = ResultRecord(SERIES.key, "", "m", ResultObject("SR", "1.1", "2.25.1", Path("x.dcm")), "encoded", "")
    wrong = ResultRecord("no such series", "", "m", record.result, "encoded", "")
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        ledger.finish(job, [NextJob(INFER)], results=[wrong])
    assert ledger.counts()[ASSEMBLE, "running"] == 1
    ledger.finish(job, [NextJob(INFER)], results=[record])
    assert ledger.results("00a") == [record]
    assert ledger.counts()[INFER, "ready"] == 1


def test_results_are_in_the_order_in_which_they_were_encoded_however_far_each_got(ledger: Ledger) -> None:
    received(ledger)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    objects = [ResultObject(kind, "1.1", f"2.25.{uid}", Path("x.dcm")) for kind, uid in (("SR", 9), ("SEG", 1))]
    records = [ResultRecord(SERIES.key, "", "m", one, "encoded", "") for one in objects]
    ledger.finish(job, [NextJob(INFER)], results=records)
    assert ledger.results() == records
    job = ledger.claim([INFER])
    assert job is not None
    sent = [replace(record, status="sent") for record in reversed(records)]
    ledger.finish(job, [], results=sent)
    assert ledger.results() == sent[::-1]


def test_an_operator_retries_and_cancels(ledger: Ledger) -> None:
    received(ledger)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    assert not ledger.operator_retry(job.id)
    ledger.bury(job, "broken")
    assert [dead.note for dead in ledger.list_jobs("dead")] == ["broken"]
    assert ledger.operator_retry(job.id)
    assert ledger.operator_cancel(job.id)
    assert not ledger.operator_cancel(job.id)
    assert ledger.claim([ASSEMBLE]) is None


def test_only_series_whose_work_has_all_ended_are_forgotten(ledger: Ledger) -> None:
    received(ledger)
    assert ledger.ended_before(time.time() + 1) == []
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    ledger.finish(job, [])
    assert ledger.ended_before(time.time() + 1) == [SERIES.key]
    assert ledger.ended_before(time.time() - 60) == []


def test_sqlite_syncs_every_commit(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with ledger._database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_an_analysis_that_is_repeated_keeps_the_moment_of_its_first_beginning(ledger: Ledger) -> None:
    received(ledger)
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    first = ledger.analysis_began(job, "one")
    time.sleep(0.002)
    assert ledger.analysis_began(job, "one") == first
    assert ledger.analysis_began(job, "two") > first, "of another image, or by another model"
    assert first.utcoffset() is not None


def test_an_urgent_senders_job_is_claimed_before_those_that_wait_longer(ledger_url: str) -> None:
    ledger = Ledger(ledger_url, urgent=["EMERGENCY"])
    for key, sender in (("00aa", "PACS"), ("00bb", "PACS"), ("00cc", "EMERGENCY"), ("00dd", "PACS")):
        ledger.open_series(SeriesRecord(key, "1.2", f"1.2.{key}", "CT", sender), 1)
        ledger.complete_series(key, 1, "", [NextJob(ASSEMBLE)])
    claimed = [ledger.claim([ASSEMBLE]) for _ in range(4)]
    assert [job.series.key for job in claimed if job] == ["00cc", "00aa", "00bb", "00dd"]


def test_one_who_takes_only_urgent_jobs_leaves_the_others_until_they_become_urgent(ledger: Ledger) -> None:
    received(ledger)
    assert ledger.claim([ASSEMBLE], only_urgent=True) is None
    assert ledger.prioritise(SERIES.key, STAT) == 1
    job = ledger.claim([ASSEMBLE], only_urgent=True)
    assert job is not None
    ledger.finish(job, [NextJob(INFER), NextJob(ENCODE, priority=ROUTINE)])
    assert {one.stage: one.priority for one in ledger.list_jobs("ready")} == {INFER: STAT, ENCODE: ROUTINE}


def test_an_urgent_finding_has_the_work_on_its_study_come_first_and_on_no_other(ledger: Ledger) -> None:
    for key, study in (("00aa", "1.2"), ("00bb", "1.2"), ("00cc", "1.9")):
        ledger.open_series(SeriesRecord(key, study, f"1.2.{key}", "CT", "PACS"), 1)
        ledger.complete_series(key, 1, "", [NextJob(ASSEMBLE)])
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    ledger.finish(job, [NextJob(INFER)], urgent=True)
    found = {(one.series.key, one.stage): one.priority for one in ledger.list_jobs("ready")}
    assert found == {("00aa", INFER): STAT, ("00bb", ASSEMBLE): STAT, ("00cc", ASSEMBLE): ROUTINE}


def test_one_who_works_for_some_senders_leaves_the_jobs_of_the_others(ledger: Ledger) -> None:
    received(ledger)
    assert ledger.claim([ASSEMBLE], whose=Whose(("CT1", "CT2"))) is None
    assert ledger.claim([ASSEMBLE], whose=Whose(("PACS",), only=False)) is None
    job = ledger.claim([ASSEMBLE], whose=Whose(("CT1", "PACS")))
    assert job is not None
    ledger.hand_back(job)
    assert ledger.claim([ASSEMBLE], whose=Whose(("CT1",), only=False)) is not None
