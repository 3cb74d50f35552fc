"""How long a sender pauses: learnt from its recent series, so that silence is judged by its own habits."""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass

RECENT_SERIES = 50
"""So many series of a sender are remembered."""
USUAL = 0.9
"""Usual is what this part of the recent series stayed within."""
SENDERS = 256
"""So many senders are remembered; the one that was longest away is forgotten first."""


@dataclass(frozen=True)
class Pauses:
    """The longest pauses of one series, or the usual longest ones of a sender, in seconds.

    Attributes
    ----------
    within
        Between two images while an association that carried the series was open.
    between
        Between the end of an association and the next one that carried the same series; 0 where it did not come back.
    aborts
        Whether the last association was aborted; for a sender, whether that is how it ends them.
    """

    within: float = 0.0
    between: float = 0.0
    aborts: bool = False


class Rhythm:
    """The recent series of each sender (calling AE title)."""

    def __init__(self) -> None:
        self._recent: OrderedDict[str, deque[Pauses]] = OrderedDict()

    def note(self, sender: str, pauses: Pauses) -> None:
        """Remember a series that has ended."""
        self._recent.setdefault(sender, deque(maxlen=RECENT_SERIES)).append(pauses)
        self._recent.move_to_end(sender)
        if len(self._recent) > SENDERS:
            self._recent.popitem(last=False)

    def usual(self, sender: str) -> Pauses:
        """What is usual for a sender; no pauses where nothing is known of it."""
        recent = self._recent.get(sender)
        if not recent:
            return Pauses()
        rank = math.ceil(USUAL * len(recent)) - 1
        return Pauses(
            within=sorted(pauses.within for pauses in recent)[rank],
            between=sorted(pauses.between for pauses in recent)[rank],
            aborts=len(recent) >= 5 and sum(pauses.aborts for pauses in recent) > len(recent) / 2,
        )
