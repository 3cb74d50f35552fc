"""What is done to a site. A fault is one class with a name; `tests.faults.campaign.catalogue` lists them all.

::

    fault.arrange(world, random)   before anything starts: settings, a database, a proxy in front of the archive
    world starts, senders begin to send
    fault.strike(world, random)    the harm, while it works; it may take its time, and returns when all harm is done
    fault.relent(world)            peace again: what was stopped is started, what was filled is freed
    world settles, and is audited

All that is drawn is drawn from ``random``, which follows from the seed. What a fault notes with `World.note` goes into
the line of its run (whether it struck where it was to, how long it took).
"""

from random import Random
from typing import ClassVar, Protocol

from tests.faults.campaign.world import World


class Fault(Protocol):
    """One kind of harm.

    Attributes
    ----------
    name
        In tables and on the command line.
    reference
        With what its results are compared: those of a run without faults of the standard site, unless it is named
        otherwise; then those of a run of this fault with `arrange` alone (an archive that takes other objects).
    """

    name: ClassVar[str]
    reference: ClassVar[str]

    def arrange(self, world: World, random: Random) -> None:
        """Before anything runs."""

    def strike(self, world: World, random: Random) -> None:
        """While senders send and nodes work."""

    def relent(self, world: World) -> None:
        """Peace again."""


class Harm:
    """A fault that does nothing; what others are made from."""

    name: ClassVar[str] = "none"
    reference: ClassVar[str] = "standard"

    def arrange(self, world: World, random: Random) -> None:
        """Nothing."""

    def strike(self, world: World, random: Random) -> None:
        """Nothing."""

    def relent(self, world: World) -> None:
        """Nothing."""
