"""The ledger's disk is full and freed again, and its clock jumps, while workers are at work."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, INFER, Job, NextJob, SeriesRecord
from service.operate.metrics import Metrics
from service.pipeline import Outcome
from service.retry import RetryPolicy
from service.worker import Worker
from tests.waiting import eventually


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=4m", "wetread-test", str(folder)]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("no volume can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def received(ledger: Ledger, key: str) -> None:
    ledger.open_series(SeriesRecord(key, "1.2", f"1.2.{key}", "CT", "PACS"), 1)
    ledger.complete_series(key, 1, "", [NextJob(ASSEMBLE)])


def test_a_disk_that_is_full_costs_no_work_and_no_restart_when_it_is_freed(small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))

    def assemble(job: Job) -> Outcome:
        if job.series.key == "0005":  # the first whose outcome finds no room
            fill()
        return Outcome("x" * 2000, (NextJob(INFER),))

    with closing(Ledger(f"sqlite:///{small_disk / 'ledger.sqlite'}")) as ledger:
        for number in range(20):
            received(ledger, f"{number:04x}")
        worker = Worker(ledger, {ASSEMBLE: assemble}, RetryPolicy(), Metrics.on_new_registry())
        worker.start()
        eventually(ballast.exists, "the disk is full")
        done = 0

        def no_room() -> bool:
            nonlocal done
            try:
                received(ledger, f"{0xA000 + done:04x}")
            except OperationalError as error:
                return "full" in str(error.orig)
            done += 1
            return False

        eventually(no_room, "nothing can be written any more")
        time.sleep(2.5)
        assert ledger.counts().get((ASSEMBLE, "done"), 0) < 20
        ballast.unlink()
        eventually(lambda: ledger.counts().get((ASSEMBLE, "done"), 0) == 20 + done, "all is done")
        received(ledger, "ffff")
        eventually(lambda: ledger.counts().get((ASSEMBLE, "done"), 0) == 21 + done, "and what comes later")
        worker.stop()
        worker.join()
        assert {job.attempts for job in ledger.list_jobs() if job.stage == ASSEMBLE} == {1}
        assert ledger.check() == []


def test_where_the_clock_was_set_back_work_waits_no_longer_than_it_was_to(tmp_path: Path) -> None:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        received(ledger, "00aa")
        with ledger._database.writing() as connection:  # as if all had happened an hour later
            for column in ("run_at", "created_at"):
                connection.exec_driver_sql(f"UPDATE jobs SET {column} = {column} + 3600")
        ledger._look_at, ledger._clock_ahead = 0.0, ledger._clock_ahead + 3600
        job = ledger.claim([ASSEMBLE])
        assert job is not None
        assert job.created_at < time.time() + 1
