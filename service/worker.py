"""Threads that take jobs from the ledger, run their stage, and write down what came of it."""

import random
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress

import structlog
from sqlalchemy.exc import DBAPIError

from engines.errors import EngineFault, InferenceLost
from service.errors import PermanentError, Postponed, TransientError, told_by_place
from service.ledger.ledger import Ledger
from service.ledger.records import Job, StaleJob
from service.operate.metrics import Metrics
from service.pipeline import Stage
from service.settings import RetrySettings

log = structlog.get_logger()

UNEXPECTED_ATTEMPTS = 3
"""How often a stage is tried that fails in a way nobody has foreseen."""


class Worker(threading.Thread):
    """Runs one job after the other.

    A permanent error makes the job a dead letter, a transient one (or one of the operating system or database) gives it
    back to be tried again later; while it waits it holds no thread.

    Parameters
    ----------
    stages
        The stages that this worker takes, by name.
    urgent
        Senders whose jobs come before all others.
    only_urgent
        Whether it leaves the others alone, so that it is free when an urgent one comes.
    """

    def __init__(
        self,
        ledger: Ledger,
        stages: Mapping[str, Stage],
        retry: RetrySettings,
        metrics: Metrics,
        *,
        urgent: Collection[str] = (),
        only_urgent: bool = False,
    ) -> None:
        super().__init__(name="-".join(stages), daemon=True)
        self._urgent = urgent
        self._only_urgent = only_urgent
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
                job = self._ledger.claim(self._stages, self._urgent, only_urgent=self._only_urgent)
                if job is None:
                    self._ledger.wait(1.0)
                else:
                    self._work(job)
            except StaleJob as error:
                log.warning("job.stale", reason=str(error))
            except DBAPIError as error:  # a full disk, a locked database: nothing is lost, the lease ends
                log.error("ledger.unavailable", reason=str(error.orig))  # noqa: TRY400
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
            self._ledger.finish(job, outcome.next_jobs, outcome.note, seconds, outcome.results)
            self._metrics.stage_seconds.labels(job.stage).observe(seconds)
            event.info(f"{job.stage}.finished", seconds=round(seconds, 3), note=outcome.note)
        except StaleJob:
            raise
        except PermanentError as error:
            self._bury(job, event, str(error))
        except InferenceLost as error:
            self._metrics.inferences_lost.inc()
            if error.blamed and job.attempts >= UNEXPECTED_ATTEMPTS:  # it would end the others' inferences for ever
                self._bury(job, event, f"{error} (attempt {job.attempts})")
            else:
                self._again(job, event, str(error))
        except DBAPIError as error:  # its own words would tell the statement's parameters
            self._again(job, event, str(error.orig))
        except Postponed as error:
            self._ledger.retry_later(job, error.until, str(error))
            event.info(f"{job.stage}.waits", until=round(error.until, 1), reason=str(error))
        except (TransientError, OSError, MemoryError) as error:
            self._again(job, event, str(error))
        except Exception as error:
            told = str(error) if isinstance(error, EngineFault) else told_by_place(error)
            reason = f"unexpected {told}; please report it"
            if job.attempts >= UNEXPECTED_ATTEMPTS:
                self._bury(job, event, reason)
            else:
                self._again(job, event, reason)
        finally:
            self._running = None

    def _again(self, job: Job, event: structlog.typing.FilteringBoundLogger, reason: str) -> None:
        if time.time() - job.created_at > self._retry.give_up_hours * 3600:
            self._bury(job, event, f"given up after {self._retry.give_up_hours:g} h: {reason}")
            return
        wait = min(self._retry.first_seconds * 2 ** min(job.attempts - 1, 30), self._retry.longest_seconds)
        wait *= random.uniform(0.8, 1.2)  # so that what failed together is not tried again together
        self._ledger.retry_later(job, time.time() + wait, reason)
        event.warning(f"{job.stage}.postponed", seconds=round(wait, 1), attempt=job.attempts, reason=reason)

    def _bury(self, job: Job, event: structlog.typing.FilteringBoundLogger, reason: str) -> None:
        self._ledger.bury(job, reason)
        event.error(
            "job.dead", stage=job.stage, reason=reason, fix=f"`wetread jobs retry {job.id}` after the cause is gone"
        )
