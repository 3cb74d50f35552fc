"""The ledger's side of operation: what an operator sees and does, and what is forgotten in time."""

from pathlib import Path

from sqlalchemy import func, select

from service.ledger.base import LedgerBase
from service.ledger.decisions import select_decisions
from service.ledger.jobs import select_jobs
from service.ledger.operating import ended_series, forget_history, forget_series, operate, prioritise, rerun, retry_dead
from service.ledger.records import CANCELLED, DEAD, READY, RUNNING, DecisionRecord, Job
from service.ledger.schema import decisions, jobs
from service.ledger.sql import begins, now
from service.ledger.turns import Turn, end_turn, hold_turn, take_turn


class Operation(LedgerBase):
    """All that is known, for who looks after it."""

    def list_jobs(self, state: str | None = None, series_key: str | None = None) -> list[Job]:
        """Jobs in the order in which they were created; ``series_key`` may be the beginning of one."""
        conditions = []
        if state is not None:
            conditions.append(jobs.c.state == state)
        if series_key is not None:
            conditions.append(begins(jobs.c.series, series_key))
        with self._database.reading() as connection:
            return select_jobs(connection, *conditions)

    def job(self, id: int) -> Job | None:
        """One job by its number."""
        with self._database.reading() as connection:
            found = select_jobs(connection, jobs.c.id == id)
            return found[0] if found else None

    def last_noted(self, state: str, limit: int) -> list[Job]:
        """The last jobs in a state of which a note says why, at most so many, in the order in which they came."""
        with self._database.reading() as connection:
            noted = select(jobs.c.id).where(jobs.c.state == state, jobs.c.note != "").order_by(jobs.c.id.desc())
            return select_jobs(connection, jobs.c.id.in_(noted.limit(limit)))

    def decisions(self, series_key: str) -> list[DecisionRecord]:
        """Each time a series was found complete, in order; ``series_key`` may be the beginning of one."""
        with self._database.reading() as connection:
            return select_decisions(connection, begins(decisions.c.series, series_key))

    def operator_retry(self, id: int) -> bool:
        """Make a dead or cancelled job ready again; return whether there was one."""
        with self._making_ready() as connection:
            return operate(connection, id, (DEAD, CANCELLED), state=READY, run_at=now(), attempts=0, ended_at=None)

    def retry_dead(self, stage: str | None = None) -> int:
        """Make all dead jobs ready again, or those of a stage; return how many."""
        with self._making_ready() as connection:
            return retry_dead(connection, stage)

    def operator_cancel(self, id: int) -> bool:
        """Cancel a job that has not ended; return whether there was one."""
        with self._database.writing() as connection:
            return operate(connection, id, (READY, RUNNING, DEAD), state=CANCELLED, ended_at=now(), lease_until=None)

    def rerun(self, series_key: str, stage: str, model: str = "") -> int:
        """Run the work on a series again from a stage on; return how many jobs that makes. See `operating.rerun`."""
        with self._making_ready() as connection:
            return rerun(connection, series_key, stage, model)

    def prioritise(self, series_key: str, priority: int) -> int:
        """Give a priority to the jobs of a series that have not ended, and so to what follows; return how many."""
        with self._database.writing() as connection:
            return prioritise(connection, series_key, priority)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of jobs by stage and state."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(jobs.c.stage, jobs.c.state, func.count()).group_by(jobs.c.stage, jobs.c.state)
            )
            return {(stage, state): count for stage, state, count in rows}

    def ended_before(self, moment: float) -> list[str]:
        """Keys of the series whose work has all ended (done or cancelled) before a moment."""
        with self._database.reading() as connection:
            return list(connection.execute(ended_series(moment)).scalars())

    def forget(self, history_before: float, series_before: float) -> None:
        """Forget what was done on series whose work ended before a moment; and some series altogether.

        Parameters
        ----------
        history_before
            Jobs and decisions go. Results and counts stay, so that a series is recognised when it comes again.
        series_before
            Of these series nothing stays: to the node they are new when they come again.
        """
        for forget, moment in ((forget_history, history_before), (forget_series, series_before)):
            more = 1
            while more:
                with self._database.writing() as connection:
                    more = forget(connection, moment)

    def take_turn(self, name: str, seconds: float) -> Turn | None:
        """Take a turn at what one node of several does now and then, for so long; None where it is not due."""
        with self._database.writing() as connection:
            return take_turn(connection, name, seconds)

    def hold_turn(self, turn: Turn, seconds: float) -> None:
        """Go on with a turn for so long."""
        with self._database.writing() as connection:
            hold_turn(connection, turn, seconds)

    def end_turn(self, turn: Turn, again_in: float, *, done: bool) -> None:
        """End a turn; the next is due after so many seconds, and goes on from here where all was ``done``."""
        with self._database.writing() as connection:
            end_turn(connection, turn, again_in, done=done)

    def check(self) -> list[str]:
        """Look the whole ledger over; what is wrong with it, empty for nothing."""
        return self._database.check()

    def backup(self, target: Path) -> None:
        """Copy the ledger to a new file while nodes work on. Raises `ConfigurationError`."""
        self._database.backup(target)
