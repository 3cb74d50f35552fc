"""The ledger's side of work: jobs are claimed, finished, tried again later, or buried."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import and_, select, true

from service.ledger.base import LedgerBase
from service.ledger.commitments import wake_if_answered
from service.ledger.jobs import Whose, advance_jobs, claim_job, create_job, expired, finish_job, free_jobs, set_job
from service.ledger.operating import prioritise_study
from service.ledger.records import COMMIT, DEAD, READY, STAT, Job, NextJob, ResultRecord
from service.ledger.results import keep_result
from service.ledger.schema import analyses, jobs
from service.ledger.sql import now, upsert

CLOCK_SET_BACK = 2.0
"""Seconds; what a clock is corrected by all the time is less."""


class Work(LedgerBase):
    """Jobs, in the hands of those who do them."""

    def claim(self, stages: Iterable[str], *, only_urgent: bool = False, whose: Whose | None = None) -> Job | None:
        """Take the next job of these stages that is due, by priority, or None.

        Parameters
        ----------
        only_urgent
            Whether to leave alone what is less than urgent.
        whose
            On whose series; None for all.
        """
        self._heard.strokes = self._bell.strokes
        self._look_round()
        with self._database.single() as connection:
            return claim_job(connection, stages, only_urgent, self._name, self._lease_seconds, whose)

    def wait(self, seconds: float) -> None:
        """Sleep until there may be more work than when this thread claimed last, or for so long."""
        self._database.listen(self._bell.ring)
        self._bell.wait(getattr(self._heard, "strokes", self._bell.strokes), seconds)

    def heartbeat(self, job: Job) -> None:
        """Prolong the lease of a job. Raises `StaleJob`."""
        with self._database.single() as connection:
            set_job(connection, job, lease_until=now() + self._lease_seconds)

    def finish(
        self,
        job: Job,
        next_jobs: Sequence[NextJob],
        note: str = "",
        seconds: float = 0.0,
        results: Sequence[ResultRecord] = (),
        *,
        urgent: bool = False,
    ) -> None:
        """Finish a job, keep its results and create the next ones, all or nothing. Raises `StaleJob`.

        Parameters
        ----------
        urgent
            Whether all work on its study comes before all other from now on.
        """
        with self._making_ready() if next_jobs else self._database.writing() as connection:
            priority = finish_job(connection, job, note, seconds)
            if urgent:
                priority = min(priority, STAT)
                prioritise_study(connection, job.series.study_uid, priority)
            for record in results:
                keep_result(connection, record)
            for next_job in next_jobs:
                create_job(connection, job.series.key, next_job, priority=priority)

    def analysis_began(self, job: Job, version: str) -> datetime:
        """When the analysis of a job was begun for the first time: now, unless it is being repeated.

        Results carry this moment, so that a repeat gives the same bytes under the same UIDs.

        Parameters
        ----------
        version
            Of what is analysed and of the model.
        """
        key = {"series": job.series.key, "item": job.item, "model": job.model, "version": version}
        with self._database.writing() as connection:
            connection.execute(
                upsert(connection.dialect.name, analyses).values(**key, began_at=now()).on_conflict_do_nothing()
            )
            where = and_(*(analyses.c[name] == value for name, value in key.items()))
            began = connection.execute(select(analyses.c.began_at).where(where)).scalar_one()
        return datetime.fromtimestamp(began, UTC)

    def retry_later(self, job: Job, run_at: float, note: str, *, failed: bool = True) -> None:
        """Give a job back, to be tried again from ``run_at`` by this machine's clock. Raises `StaleJob`.

        Parameters
        ----------
        failed
            Whether this attempt counts; not where it was only not time yet.
        """
        from_now = max(0.0, run_at - time.time())
        attempts = job.attempts if failed else job.attempts - 1
        with self._database.writing() as connection:
            later = {"run_at": now() + from_now, "attempts": attempts}
            set_job(connection, job, state=READY, note=note, lease_until=None, **later)
            if job.stage == COMMIT:
                wake_if_answered(connection, job)

    def hand_back(self, job: Job) -> None:
        """Give a job back untouched, because the node stops. Raises `StaleJob`."""
        with self._making_ready() as connection:
            set_job(connection, job, state=READY, attempts=job.attempts - 1, lease_until=None)

    def bury(self, job: Job, note: str) -> None:
        """Make a job a dead letter: nothing happens to it until an operator says so. Raises `StaleJob`."""
        with self._database.writing() as connection:
            set_job(connection, job, state=DEAD, note=note, ended_at=now(), lease_until=None)

    def reclaim(self) -> int:
        """At the start of a node: its predecessor's running jobs are ready again; return how many.

        Its predecessor is every earlier node, unless several share the ledger: then it is the one of the same name.
        What was running too often when a node ended becomes a dead letter (`service.ledger.jobs.CRASHES`).
        """
        left = jobs.c.owner == self._name if self._database.shared else true()
        with self._making_ready() as connection:
            return free_jobs(connection, left)

    def _look_round(self) -> None:
        """Now and then: what a node has left that died or stood still for too long is ready again.

        On a single machine its clock is the ledger's. Where that was set back, what waited goes on waiting as long as
        it was to, and not until the clock has caught up.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + min(5.0, self._lease_seconds / 4)
        ahead = time.time() - time.monotonic()
        set_back, self._clock_ahead = self._clock_ahead - ahead, ahead
        with self._database.writing() as connection:
            free_jobs(connection, expired())
            if set_back > CLOCK_SET_BACK and not self._database.shared:
                advance_jobs(connection, set_back)
