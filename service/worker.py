"""Threads that take jobs from the ledger, run their stage, and write down what came of it."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from engines.errors import InferenceLost
from service.errors import Postponed, told_by_place
from service.ledger.jobs import Whose
from service.ledger.ledger import Ledger
from service.ledger.records import Job, StaleJob
from service.operate.metrics import Metrics
from service.pipeline import Stage
from service.retry import RetryPolicy

log = structlog.get_logger()


class Worker(threading.Thread):
    """Runs one job after the other.

    What fails becomes a dead letter or is given back to be tried again later, as the policy says; while it waits it
    holds no thread. What came of a job is written down as soon as the ledger can be written: a disk that was full or a
    database that was away costs no work.

    Parameters
    ----------
    stages
        The stages that this worker takes, by name.
    only_urgent
        Whether it takes only urgent jobs, so that it is free when one comes.
    whose
        On whose series it takes jobs; None for all.
    """

    def __init__(
        self,
        ledger: Ledger,
        stages: Mapping[str, Stage],
        retry: RetryPolicy,
        metrics: Metrics,
        *,
        only_urgent: bool = False,
        whose: Whose | None = None,
    ) -> None:
        super().__init__(name="-".join(stages), daemon=True)
        self._only_urgent = only_urgent
        self._whose = whose
        self._ledger = ledger
        self._stages = stages
        self._retry = retry
        self._metrics = metrics
        self._stopping = threading.Event()
        self._running: Job | None = None

    def run(self) -> None:
        """Work until `stop`."""
        while not self._stopping.is_set():
            try:
                job = self._ledger.claim(self._stages, only_urgent=self._only_urgent, whose=self._whose)
                if job is None:
                    self._ledger.wait(1.0)
                else:
                    self._work(job)
            except StaleJob as error:
                log.warning("job.stale", reason=str(error))
            except DBAPIError as error:  # nothing is lost: what was claimed is free when the lease ends
                _log_unavailable(error)
                self._stopping.wait(1.0)
            except Exception as error:  # nobody has foreseen it; but without this thread work would wait, unnoticed
                log.error("worker.failed", reason=f"{told_by_place(error)}; please report it")  # noqa: TRY400
                self._stopping.wait(1.0)

    def stop(self) -> None:
        """Take no further job."""
        self._stopping.set()

    def beat(self) -> None:
        """Prolong the lease of the running job."""
        job = self._running
        if job is not None:
            with suppress(StaleJob):  # its thread finds out when it finishes
                self._ledger.heartbeat(job)

    def hand_back(self) -> None:
        """Give the running job back; what its thread still does no longer counts."""
        job = self._running
        if job is not None:
            with suppress(StaleJob):  # it has finished just now
                self._ledger.hand_back(job)
                log.info("job.handed_back", job=job.id, stage=job.stage, series=job.series.key)

    def _work(self, job: Job) -> None:
        self._running = job
        event = log.bind(job=job.id, series=job.series.key, item=job.item, model=job.model)
        event.info(f"{job.stage}.started")
        began = time.monotonic()
        try:
            outcome = self._stages[job.stage](job)
            seconds = time.monotonic() - began
            self._write(
                lambda: self._ledger.finish(
                    job, outcome.next_jobs, outcome.note, seconds, outcome.results, urgent=outcome.urgent
                )
            )
            self._metrics.stage_seconds.labels(job.stage).observe(seconds)
            event.info(f"{job.stage}.finished", seconds=round(seconds, 3), note=outcome.note)
        except StaleJob:
            raise
        except Postponed as error:
            until, why = error.until, str(error)
            self._write(lambda: self._ledger.retry_later(job, until, why, failed=False))
            event.info(f"{job.stage}.waits", until=round(until, 1), reason=why)
        except Exception as error:
            if isinstance(error, InferenceLost):
                self._metrics.inferences_lost.inc()
            self._failed(job, event, error)
        finally:
            self._running = None

    def _failed(self, job: Job, event: structlog.typing.FilteringBoundLogger, error: Exception) -> None:
        verdict = self._retry.after(error, job.attempts, time.time() - job.created_at)
        wait, reason = verdict.wait_seconds, verdict.reason
        if wait is None:
            self._write(lambda: self._ledger.bury(job, reason))
            fix = f"`wetread jobs retry {job.id}` after the cause is gone"
            event.error("job.dead", stage=job.stage, reason=reason, fix=fix)
        else:
            run_at = time.time() + wait
            self._write(lambda: self._ledger.retry_later(job, run_at, reason))
            event.warning(f"{job.stage}.postponed", seconds=round(wait, 1), attempt=job.attempts, reason=reason)

    def _write(self, act: Callable[[], None]) -> None:
        """Write down what came of a job; again and again while the database is away or full, until the node stops."""
        while True:
            try:
                return act()
            except (OperationalError, InterfaceError) as error:
                _log_unavailable(error)
                if self._stopping.wait(1.0):
                    raise


def _log_unavailable(error: DBAPIError) -> None:
    log.error("ledger.unavailable", reason=str(error.orig).strip())
