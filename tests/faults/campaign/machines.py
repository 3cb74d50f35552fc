"""Faults of the machine: a disk that is full, a clock that jumps."""

from random import Random

from tests.faults.campaign.fault import Harm
from tests.faults.campaign.jumping_clock import JumpingClock
from tests.faults.campaign.volumes import fill, volume
from tests.faults.campaign.world import World


class DiskFull(Harm):
    """The volume of spool and ledger is filled to the last block, or almost, and freed after a while.

    In every third run the node is killed while it is full, and starts when there is room again.
    """

    name = "disk-full"

    def arrange(self, world: World, random: Random) -> None:
        """A volume of its own."""
        self.volume = world.keep(volume(world.folder, 48))
        world.spool = self.volume / "spool"
        world.pause = 0.015

    def strike(self, world: World, random: Random) -> None:
        """Fill it at a random moment."""
        if random.random() < 0.5:
            moment = random.randrange(world.wanted)
            world.wait(lambda: world.acknowledged >= moment, 15)
        else:
            stage = random.choice(("assemble", "infer", "encode", "deliver", "commit"))
            world.wait(lambda: world.events(f"{stage}.started"), 15)
        left = random.choice((0, 0, 0, 4096, 65_536, 1 << 20, 3 << 20))
        fill(self.volume, left)
        world.pause_for(random.uniform(1.0, 5.0))
        killed = random.random() < 0.33
        if killed:
            world.node.kill()
        world.note(left=left, kills=int(killed), told_full=len(world.events("ledger.unavailable")))

    def relent(self, world: World) -> None:
        """Free it."""
        (self.volume / "something else").unlink(missing_ok=True)


class ClockJumps(Harm):
    """The node's wall clock (not the monotonic one) is set on and back: seconds, an hour, half a day, a month."""

    name = "clock"

    def arrange(self, world: World, random: Random) -> None:
        """A clock that a file sets."""
        self._clock = JumpingClock(world.folder / "clock")
        world.environment = self._clock.environment

    def strike(self, world: World, random: Random) -> None:
        """Set it a few times."""
        jumps = [random.choice((-1, 1)) * random.choice((5, 60, 3600, 43_200, 30 * 86_400)) for _ in range(3)]
        for jump in jumps:
            world.pause_for(random.uniform(0.1, 1.5))
            self._clock.jump(jump)
        world.note(jumps=jumps)
