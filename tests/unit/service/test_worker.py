import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engines.errors import InferenceLost
from service.errors import ArchiveUnavailable, Quarantined
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, INFER, Job, NextJob, SeriesRecord
from service.operate.metrics import Metrics
from service.pipeline import Outcome
from service.retry import RetryPolicy
from service.worker import Worker

UNEXPECTED_ATTEMPTS = RetryPolicy().unexpected_attempts


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.open_series(SeriesRecord("00aa", "1.2", "1.2.3", "CT", "PACS"), 1)
    ledger.complete_series("00aa", 1, "", [NextJob(ASSEMBLE)])
    yield ledger
    ledger.close()


def work(ledger: Ledger, stage: Callable[[Job], Outcome], until: str, retry: RetryPolicy | None = None) -> Job:
    worker = Worker(ledger, {ASSEMBLE: stage}, retry or RetryPolicy(first_seconds=0.01), Metrics.on_new_registry())
    worker.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (ASSEMBLE, until) not in ledger.counts():
        time.sleep(0.01)
    worker.stop()
    worker.join()
    (job,) = [job for job in ledger.list_jobs() if job.stage == ASSEMBLE]
    assert job.state == until
    return job


def test_a_finished_stage_leaves_its_note_and_the_next_job(ledger: Ledger) -> None:
    job = work(ledger, lambda _: Outcome("well", (NextJob(INFER, "volume", "m"),)), until="done")
    assert job.note == "well"
    assert ledger.counts()[INFER, "ready"] == 1


def test_a_permanent_error_is_a_dead_letter_at_once(ledger: Ledger) -> None:
    def stage(_: Job) -> Outcome:
        raise Quarantined("two slices at one position")

    job = work(ledger, stage, until="dead")
    assert (job.attempts, job.note) == (1, "two slices at one position")


def test_a_transient_error_is_tried_again_until_it_works(ledger: Ledger) -> None:
    def stage(job: Job) -> Outcome:
        if job.attempts < 4:
            raise ArchiveUnavailable("away")
        return Outcome("sent")

    assert work(ledger, stage, until="done").attempts == 4


def test_a_transient_error_is_given_up_in_the_end(ledger: Ledger) -> None:
    def stage(_: Job) -> Outcome:
        raise ArchiveUnavailable("away")

    job = work(ledger, stage, until="dead", retry=RetryPolicy(first_seconds=0.01, give_up_hours=0.2 / 3600))
    assert job.note == "given up after 5.55556e-05 h: away"
    assert job.attempts > 1


def test_an_unforeseen_error_is_tried_a_few_times_and_tells_its_place_but_not_its_words(ledger: Ledger) -> None:
    def stage(_: Job) -> Outcome:
        raise ZeroDivisionError("Doe^Jane")

    job = work(ledger, stage, until="dead")
    assert job.attempts == UNEXPECTED_ATTEMPTS
    assert "unexpected ZeroDivisionError in test_worker.py" in job.note
    assert "Doe" not in job.note


def test_a_stage_that_fails_after_a_late_slice_has_opened_its_series_again_stops_nothing(ledger: Ledger) -> None:
    def stage(job: Job) -> Outcome:
        if job.token == 1:
            ledger.open_series(job.series, 2)
            ledger.complete_series(job.series.key, 2, "", [NextJob(ASSEMBLE)])
            raise Quarantined("a slice is missing")
        return Outcome("whole")

    assert work(ledger, stage, until="done").note == "whole"


def test_a_running_job_is_handed_back_when_the_node_stops(ledger: Ledger) -> None:
    running, release = [], []

    def stage(job: Job) -> Outcome:
        running.append(job)
        while not release:
            time.sleep(0.01)
        return Outcome("too late")

    worker = Worker(ledger, {ASSEMBLE: stage}, RetryPolicy(), Metrics.on_new_registry())
    worker.start()
    while not running:
        time.sleep(0.01)
    worker.stop()
    worker.hand_back()
    release.append(True)
    worker.join()
    (job,) = [job for job in ledger.list_jobs() if job.stage == ASSEMBLE]
    assert (job.state, job.attempts, job.note) == ("ready", 0, "")


def test_an_inference_that_is_lost_each_time_is_given_up_if_it_is_to_blame(ledger: Ledger) -> None:
    def stage(_: Job) -> Outcome:
        raise InferenceLost("ended", blamed=True)

    assert work(ledger, stage, until="dead").attempts == UNEXPECTED_ATTEMPTS


def test_an_inference_that_is_lost_beside_another_is_tried_on(ledger: Ledger) -> None:
    def stage(job: Job) -> Outcome:
        if job.attempts < UNEXPECTED_ATTEMPTS + 2:
            raise InferenceLost("ended")
        return Outcome("well")

    assert work(ledger, stage, until="done").attempts == UNEXPECTED_ATTEMPTS + 2


def test_what_nobody_has_foreseen_ends_no_worker(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, failures = ledger.claim, [RuntimeError("a patient's name"), ValueError()]

    def fails_at_first(*args: Any, **keys: Any) -> Job | None:
        if failures:
            raise failures.pop()
        return claim(*args, **keys)

    monkeypatch.setattr(ledger, "claim", fails_at_first)
    with capture_logs() as events:
        work(ledger, lambda _: Outcome("well"), until="done")
    told = [event["reason"] for event in events if event["event"] == "worker.failed"]
    assert [reason.split()[0] for reason in told] == ["ValueError", "RuntimeError"]
    assert "name" not in str(told)
