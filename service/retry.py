"""Whether, and when, work that has failed is tried again."""

import random
from dataclasses import dataclass
from typing import Self

from sqlalchemy.exc import DBAPIError

from engines.errors import EngineFault, InferenceLost
from service.errors import PermanentError, TransientError, told_by_place
from service.settings import RetrySettings


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job that has failed.

    Attributes
    ----------
    reason
        For an operator; without what a patient's header says.
    wait_seconds
        When it is tried again; None where it is a dead letter.
    """

    reason: str
    wait_seconds: float | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """The type of the error decides: a permanent one ends the work at once, a transient one (or one of the operating
    system or the database) has it tried again, one that nobody has foreseen a few times.

    The n-th retry waits ``first_seconds * 2 ** (n - 1)``, at most ``longest_seconds``, times a random number between
    ``1 - jitter`` and ``1 + jitter``, so that what failed together is not tried again together.

    Attributes
    ----------
    give_up_hours
        How old work may be that is tried again.
    unexpected_attempts
        How often work is tried that fails in a way nobody has foreseen, or that ends the process it runs in.
    """

    first_seconds: float = 5.0
    longest_seconds: float = 900.0
    give_up_hours: float = 72.0
    unexpected_attempts: int = 3
    jitter: float = 0.2

    @classmethod
    def of(cls, settings: RetrySettings) -> Self:
        """The policy of ``[retry]``."""
        return cls(settings.first_seconds, settings.longest_seconds, settings.give_up_hours)

    def after(self, error: Exception, attempts: int, age_seconds: float) -> Verdict:
        """What becomes of a job.

        Parameters
        ----------
        error
            With which its last attempt has failed.
        attempts
            How many there were, with the last one.
        age_seconds
            How long ago it was created.
        """
        last = attempts >= self.unexpected_attempts
        match error:
            case PermanentError():
                return Verdict(str(error))
            case InferenceLost(blamed=True) if last:  # it would end the others' inferences for ever
                return Verdict(f"{error} (attempt {attempts})")
            case DBAPIError():  # its own words would tell the statement's parameters
                return self._again(str(error.orig), attempts, age_seconds)
            case TransientError() | OSError() | MemoryError():
                return self._again(str(error), attempts, age_seconds)
        reason = f"unexpected {error if isinstance(error, EngineFault) else told_by_place(error)}; please report it"
        return Verdict(reason) if last else self._again(reason, attempts, age_seconds)

    def _again(self, reason: str, attempts: int, age_seconds: float) -> Verdict:
        if age_seconds > self.give_up_hours * 3600:
            return Verdict(f"given up after {self.give_up_hours:g} h: {reason}")
        wait = min(self.first_seconds * 2 ** min(max(attempts - 1, 0), 30), self.longest_seconds)
        return Verdict(reason, wait * random.uniform(1 - self.jitter, 1 + self.jitter))
