"""Several nodes on one PostgreSQL server, and what happens when it, or one of them, is away."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

import service.ledger.postgresql
from service.ledger.jobs import CRASHES
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, INFER, Job, NextJob, SeriesRecord, StaleJob
from service.operate.metrics import Metrics
from service.pipeline import Outcome
from service.retry import RetryPolicy
from service.worker import Worker
from tests.postgres import PostgresServer
from tests.waiting import eventually


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.database()


@pytest.fixture
def nodes(url: str) -> Iterator[tuple[Ledger, Ledger]]:
    with ExitStack() as stack:
        one, two = (stack.enter_context(closing(Ledger(url, name=name))) for name in ("one", "two"))
        yield one, two


def record(key: str) -> SeriesRecord:
    return SeriesRecord(key, "1.2", f"1.2.{key}", "CT", "PACS")


def received(ledger: Ledger, key: str) -> None:
    ledger.open_series(record(key), 1)
    ledger.complete_series(key, 1, "", [NextJob(ASSEMBLE)])


def worker(ledger: Ledger, stage: str = ASSEMBLE, seconds: float = 0.0) -> Worker:
    def work(job: Job) -> Outcome:
        time.sleep(seconds)
        return Outcome("", (NextJob(INFER),) if stage == ASSEMBLE else ())

    return Worker(ledger, {stage: work}, RetryPolicy(first_seconds=0.01), Metrics.on_new_registry())


def test_many_workers_of_two_nodes_do_each_job_once(nodes: tuple[Ledger, Ledger]) -> None:
    one, two = nodes
    workers = [worker(ledger, stage) for ledger in (one, two) for stage in (ASSEMBLE, ASSEMBLE, INFER)]
    for each in workers:
        each.start()
    for number in range(100):
        received((one, two)[number % 2], f"{number:04x}")
    eventually(lambda: one.counts().get((INFER, "done")) == 100, "all is done")
    for each in workers:
        each.stop()
    for each in workers:
        each.join()
    jobs = [job for job in one.list_jobs() if job.stage != "receive"]
    assert {(job.attempts, job.token) for job in jobs} == {(1, 1)}
    assert {job.owner for job in jobs} == {"one", "two"}


def test_a_node_that_waits_hears_at_once_of_what_another_has_made_ready(nodes: tuple[Ledger, Ledger]) -> None:
    one, two = nodes
    assert one.claim([ASSEMBLE]) is None
    one.wait(1.0)  # has it listen
    woken = []

    def wait() -> None:
        one.claim([ASSEMBLE])
        one.wait(20)
        woken.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    assert not woken
    received(two, "00aa")
    waiting.join(10)
    assert woken
    assert one.claim([ASSEMBLE]) is not None


def test_the_work_of_a_dead_node_is_free_when_its_lease_ends_and_not_before(url: str) -> None:
    with closing(Ledger(url, lease_seconds=1.0, name="one")) as one, closing(Ledger(url, name="two")) as two:
        received(one, "00aa")
        one.open_series(record("00bb"), 1)
        left = one.claim([ASSEMBLE])
        assert left is not None
        assert two.reclaim() == 0, "it lives"
        assert two.claim([ASSEMBLE]) is None
        assert two.adopt() == []
        time.sleep(1.1)
        two._look_at = 0.0
        taken = two.claim([ASSEMBLE])
        assert taken is not None
        assert (taken.id, taken.owner) == (left.id, "two")
        assert [each.key for each in two.adopt()] == ["00bb"]
        with pytest.raises(StaleJob):
            one.finish(left, [])
        two.finish(taken, [])


def test_a_node_that_starts_again_under_its_name_has_its_work_back_at_once(url: str) -> None:
    with closing(Ledger(url, name="one")) as one, closing(Ledger(url, name="two")) as two:
        for key in ("00aa", "00bb"):
            received(one, key)
        one.open_series(record("00cc"), 1)
        assert one.claim([ASSEMBLE]) is not None
        assert two.claim([ASSEMBLE]) is not None
    with closing(Ledger(url, name="one")) as again:
        assert again.reclaim() == 1
        assert [each.key for each in again.adopt()] == ["00cc"]
        assert again.counts()[ASSEMBLE, "running"] == 1, "that of the other one"


def test_a_job_that_ends_one_node_after_the_other_becomes_a_dead_letter(url: str) -> None:
    with closing(Ledger(url, lease_seconds=0.0)) as ledger:
        received(ledger, "00aa")
        for _ in range(CRASHES):
            assert ledger.claim([ASSEMBLE]) is not None
            time.sleep(0.01)
        assert ledger.claim([ASSEMBLE]) is None
        assert [job.attempts for job in ledger.list_jobs("dead")] == [CRASHES]


def test_a_series_that_comes_to_two_nodes_is_completed_once(nodes: tuple[Ledger, Ledger]) -> None:
    one, two = nodes
    assert one.open_series(record("00aa"), 1)
    assert two.open_series(record("00aa"), 2), "another one has it open, and may die"
    one.complete_series("00aa", 3, "", [NextJob(ASSEMBLE)], yielding=True)
    assert one.counts() == {("receive", "running"): 1}, "the other one is still at it"
    two.complete_series("00aa", 3, "", [NextJob(ASSEMBLE)], yielding=True)
    job = two.claim([ASSEMBLE])
    assert job is not None
    one.complete_series("00aa", 3, "", [NextJob(ASSEMBLE)], yielding=True)
    two.finish(job, [])


def test_a_server_that_is_restarted_costs_no_work_and_no_restart_of_the_node(
    url: str, postgres: PostgresServer
) -> None:
    with closing(Ledger(url)) as ledger:
        for number in range(10):
            received(ledger, f"{number:04x}")
        workers = [worker(ledger, ASSEMBLE, 0.1), worker(ledger, INFER)]
        for each in workers:
            each.start()
        eventually(lambda: ledger.counts().get((ASSEMBLE, "done"), 0) >= 2, "they work")
        postgres.stop("immediate")
        with pytest.raises(DBAPIError):
            ledger.counts()
        with pytest.raises(DBAPIError):
            ledger.open_series(record("00ff"), 1)
        time.sleep(2.0)
        postgres.start()
        eventually(lambda: ledger.counts().get((INFER, "done")) == 10, "all is done")
        assert {job.attempts for job in ledger.list_jobs() if job.stage != "receive"} == {1}
        received(ledger, "00ff")
        eventually(lambda: ledger.counts().get((INFER, "done")) == 11, "and it is heard again")
        for each in workers:
            each.stop()
        for each in workers:
            each.join()


def test_a_connection_whose_replacement_is_dead_too_fails_as_the_database_and_not_otherwise(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.ledger.postgresql, "STALE_SECONDS", 0.2)

    def end(connection: Any, _record: Any) -> None:
        with psycopg.connect(url, autocommit=True) as operator:
            operator.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    with closing(Ledger(url)) as ledger:
        pool = ledger._database._single.engine  # type: ignore[attr-defined]
        ledger.counts()
        time.sleep(0.3)
        with psycopg.connect(url, autocommit=True) as operator:
            operator.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        event.listen(pool, "connect", end)
        for _ in range(3):
            with pytest.raises(DBAPIError):
                ledger.counts()
        event.remove(pool, "connect", end)
        eventually(lambda: _answers(ledger), "it is back")


def _answers(ledger: Ledger) -> bool:
    try:
        return ledger.counts() == {}
    except DBAPIError:
        return False


def test_a_header_with_what_the_server_does_not_take_is_received(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        odd = SeriesRecord("00aa", "1.2\0", "1." + "2" * 300, "X" * 40, "PACS")
        assert ledger.open_series(odd, 1)
        known = ledger.series("00aa")
        assert known is not None
        assert (known.study_uid, known.series_uid, known.modality) == ("1.2", odd.series_uid, odd.modality)
