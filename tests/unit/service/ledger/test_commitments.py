"""What archives report, in the ledger, on each of its databases."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.commitment import Report
from service.ledger.ledger import Ledger
from service.ledger.records import COMMIT, ENCODE, SENT, Job, NextJob, ResultRecord, SeriesRecord
from service.types import ResultObject

UIDS = ("1.3.1", "1.3.2")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """A ledger in which two results were sent, and wait to be confirmed."""
    ledger = Ledger(ledger_url)
    ledger.open_series(SeriesRecord("00aa", "1.2", "1.2.3", "CT", "PACS"), 1)
    ledger.complete_series("00aa", 1, "", [NextJob(ENCODE, "volume", "m")])
    job = ledger.claim([ENCODE])
    assert job is not None
    made = [ResultObject("SR", "1.2.840.10008.5.1.4.1.1.88.34", uid, Path(uid), "1.2.7") for uid in UIDS]
    sent = [ResultRecord("00aa", "volume", "m", one, SENT, "pacs") for one in made]
    ledger.finish(job, [NextJob(COMMIT, "volume", "m")], results=sent)
    yield ledger
    ledger.close()


def transaction(job: Job, token: int) -> str:
    return f"2.25.{job.id}.{token}"


def asked(ledger: Ledger) -> Job:
    job = ledger.claim([COMMIT])
    assert job is not None
    return job


def commit_job(ledger: Ledger) -> Job:
    [job] = [job for job in ledger.list_jobs() if job.stage == COMMIT]
    return job


def statuses(ledger: Ledger) -> list[tuple[str, int]]:
    return [(record.status, record.refused) for record in ledger.results()]


def test_a_report_is_kept_and_wakes_the_job(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.retry_later(job, time.time() + 600, "waits", failed=False)
    assert ledger.claim([COMMIT]) is None
    assert ledger.reported(Report(transaction(job, job.token), UIDS), transaction)
    assert statuses(ledger) == [("committed", 0)] * 2
    assert asked(ledger).id == job.id


def test_a_report_that_comes_before_the_job_waits_keeps_it_from_waiting(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.reported(Report(transaction(job, job.token), UIDS), transaction)
    ledger.retry_later(job, time.time() + 600, "waits", failed=False)
    assert asked(ledger).id == job.id


def test_a_report_wakes_who_waits_for_work(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.retry_later(job, time.time() + 600, "waits", failed=False)
    assert ledger.claim([COMMIT]) is None
    report = Report(transaction(job, job.token), UIDS)
    thread = threading.Thread(target=ledger.reported, args=(report, transaction))
    thread.start()
    ledger.wait(30)
    thread.join()
    assert ledger.claim([COMMIT]) is not None


def test_half_a_report_wakes_it_and_the_same_again_does_not(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.retry_later(job, time.time() + 600, "waits", failed=False)
    report = Report(transaction(job, job.token), UIDS[:1])
    assert ledger.reported(report, transaction)
    again = asked(ledger)
    ledger.retry_later(again, time.time() + 600, "waits", failed=False)
    assert ledger.reported(report, transaction)
    assert ledger.claim([COMMIT]) is None
    assert statuses(ledger) == [("committed", 0), ("sent", 0)]


def test_what_fails_for_the_moment_is_neither_sent_again_nor_asked_for_at_once(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.retry_later(job, time.time() + 600, "waits", failed=False)
    assert ledger.reported(Report(transaction(job, job.token), (), ((UIDS[0], 0x0213),)), transaction)
    assert statuses(ledger) == [("sent", 0)] * 2
    assert ledger.claim([COMMIT]) is None


def test_what_is_not_kept_is_as_if_its_sending_had_been_interrupted(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.reported(Report(transaction(job, job.token), UIDS[1:], ((UIDS[0], 0x0112),)), transaction)
    assert statuses(ledger) == [("sending", 1), ("committed", 0)]
    ledger.forgive(ledger.results())
    assert statuses(ledger) == [("sending", 0), ("committed", 0)]


def test_a_failure_after_the_end_revives_the_job_and_a_success_does_not(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.verified(ledger.results())
    ledger.finish(job, [])
    assert statuses(ledger) == [("verified", 0)] * 2
    assert ledger.reported(Report(transaction(job, job.token), UIDS[:1]), transaction)
    assert commit_job(ledger).state == "done"
    assert ledger.reported(Report(transaction(job, job.token), (), ((UIDS[1], 0x0112),)), transaction)
    assert statuses(ledger) == [("committed", 0), ("sending", 1)]
    assert asked(ledger).id == job.id


def test_a_dead_letter_that_is_answered_lives_again(ledger: Ledger) -> None:
    job = asked(ledger)
    ledger.bury(job, "has not reported in 72 h")
    ledger.reported(Report(transaction(job, job.token), UIDS), transaction)
    assert asked(ledger).id == job.id


def test_another_transaction_or_instance_says_nothing(ledger: Ledger) -> None:
    job = asked(ledger)
    assert not ledger.reported(Report("2.25.99", UIDS), transaction)
    assert not ledger.reported(Report(transaction(job, job.token), ("1.3.9",)), transaction)
    assert not ledger.reported(Report(transaction(replace(job, id=99), job.token), UIDS), transaction)
    assert statuses(ledger) == [("sent", 0)] * 2


def test_what_the_archive_does_not_list_is_refused(ledger: Ledger) -> None:
    first, second = ledger.results()
    ledger.verified([first])
    ledger.refused([second, first])
    assert statuses(ledger) == [("verified", 0), ("sending", 1)]


def test_a_result_is_known_by_its_uid(ledger: Ledger) -> None:
    assert ledger.is_result(UIDS[0])
    assert not ledger.is_result("1.3.9")
