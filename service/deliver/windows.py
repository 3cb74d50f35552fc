"""Times of the day at which an archive may be sent to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

MINUTES = 24 * 60


@dataclass(frozen=True)
class Windows:
    """Spans of the day in the machine's local time, each from a minute (0 to 1439) until another one; none for always.

    One that ends before it begins goes over midnight; one that ends where it begins is the whole day.
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, written: Sequence[str]) -> Self:
        """From ``HH:MM-HH:MM`` each."""
        return cls(tuple((_minute(one[:5]), _minute(one[6:]) % MINUTES) for one in written))

    def opens_at(self, now: float) -> float:
        """When it is time: now, or at the next beginning of a span; seconds since the epoch."""
        local = datetime.fromtimestamp(now)
        minute = local.hour * 60 + local.minute
        if not self.spans or any(_within(minute, *span) for span in self.spans):
            return now
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        days = (midnight, midnight + timedelta(days=1), midnight + timedelta(days=2))
        starts = [(day + timedelta(minutes=begin)).timestamp() for day in days for begin, _ in self.spans]
        return min(start for start in starts if start > now)


def _minute(written: str) -> int:
    return int(written[:2]) * 60 + int(written[3:])


def _within(minute: int, begin: int, end: int) -> bool:
    return begin <= minute < end if begin < end else minute >= begin or minute < end
