"""Faults of the ledger's database: locked, full, restarted, gone, out of reach."""

import sqlite3
import time
from contextlib import closing
from random import Random
from typing import ClassVar

import psycopg

from tests.faults.campaign.fault import Harm
from tests.faults.campaign.volumes import fill, volume
from tests.faults.campaign.world import World
from tests.postgres import PostgresServer
from tests.relay import Relay

WHOLE_RUN = 4.0
"""Seconds that a run has work for, from the first image on: harm begins somewhere in it."""
KILL = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class SqliteLocked(Harm):
    """Another process holds the ledger's file locked for a while, up to four times; now and then for longer than SQLite
    is waited for."""

    name = "sqlite-locked"

    def strike(self, world: World, random: Random) -> None:
        """Lock."""
        locked = []
        with closing(sqlite3.connect(world.spool / "ledger.sqlite", timeout=30, isolation_level=None)) as other:
            for _ in range(random.choice((1, 2, 3, 4))):
                world.pause_for(random.uniform(0, WHOLE_RUN / 2))
                other.execute("BEGIN EXCLUSIVE")
                locked.append(34.0 if random.random() < 0.06 else random.uniform(0.1, 6.0))
                world.pause_for(locked[-1])
                other.execute("ROLLBACK")
        world.note(locked_seconds=round(sum(locked), 1), unavailable=len(world.events("ledger.unavailable")))


class SqliteFull(Harm):
    """The ledger's own volume is full for a while, and freed."""

    name = "sqlite-full"

    def arrange(self, world: World, random: Random) -> None:
        """A small volume for the ledger's file alone."""
        self.volume = world.keep(volume(world.folder, 24))
        world.spool.mkdir(parents=True)
        (world.spool / "ledger.sqlite").symlink_to(self.volume / "ledger.sqlite")

    def strike(self, world: World, random: Random) -> None:
        """Fill it up to the last byte, up to three times."""
        for _ in range(random.choice((1, 2, 3))):
            world.pause_for(random.uniform(0, WHOLE_RUN / 2))
            fill(self.volume)
            world.pause_for(random.uniform(0.5, 6))
            self.relent(world)
        failed = len(world.events("ledger.unavailable")) + len(world.events("ticker.failed"))
        world.note(unavailable=failed, told_unsaved=len(world.events("association.failed")))

    def relent(self, world: World) -> None:
        """Free it."""
        (self.volume / "something else").unlink(missing_ok=True)


class OnPostgres(Harm):
    """A fault of a PostgreSQL server, which one or two nodes share."""

    nodes: ClassVar[tuple[int, ...]] = (1, 2)

    def arrange(self, world: World, random: Random) -> None:
        """One node or two."""
        world.database, world.count = "postgresql", random.choice(self.nodes)

    def server(self, world: World) -> PostgresServer:
        """The server of the site."""
        assert world.parts.postgres is not None
        return world.parts.postgres

    def relent(self, world: World) -> None:
        """Start it, if it is stopped."""
        self.server(world).start()


class Restarted(OnPostgres):
    """The server is restarted, as an administrator does or as after a crash, up to three times."""

    name = "postgres-restart"

    def strike(self, world: World, random: Random) -> None:
        """Stop and start."""
        modes = random.choices(("fast", "immediate"), k=random.choice((1, 2, 3)))
        for mode in modes:
            world.pause_for(random.uniform(0, WHOLE_RUN / 2))
            self.server(world).stop(mode)
            self.server(world).start()
        world.note(nodes=world.count, modes=modes)


class Gone(OnPostgres):
    """The server is away for some seconds, now and then for a minute."""

    name = "postgres-gone"

    def strike(self, world: World, random: Random) -> None:
        """Stop, wait, start."""
        world.pause_for(random.uniform(0, WHOLE_RUN))
        seconds = 60.0 if random.random() < 0.15 else random.uniform(1, 10)
        self.server(world).stop(random.choice(("fast", "immediate")))
        world.pause_for(seconds)
        self.server(world).start()
        world.note(nodes=world.count, gone_seconds=round(seconds, 1))


class ConnectionsKilled(OnPostgres):
    """All connections of the nodes are ended by the server, again and again."""

    name = "postgres-connections"

    def strike(self, world: World, random: Random) -> None:
        """End them."""
        ended, until = 0, time.monotonic() + random.uniform(2, 8)
        with psycopg.connect(world.ledger_url, autocommit=True) as operator:
            while time.monotonic() < until:
                world.pause_for(random.expovariate(4.0))
                ended += len(operator.execute(KILL).fetchall())
        world.note(nodes=world.count, ended=ended)

    def relent(self, world: World) -> None:
        """Nothing is left to be done."""


class CutOff(OnPostgres):
    """Of two nodes one does not reach the server for longer than its leases last, while it works on. What it has said
    meanwhile is lost, or reaches the server late."""

    name = "postgres-cut-off"
    nodes = (2,)

    def arrange(self, world: World, random: Random) -> None:
        """Something between one of the nodes and the server."""
        super().arrange(world, random)
        self.between = world.keep(Relay(self.server(world).port))
        self.cut = random.randrange(2)
        world.database_ports[self.cut] = self.between.port

    def strike(self, world: World, random: Random) -> None:
        """Cut it off, up to twice."""
        ways = random.choices(("held", "held and lost", "refused"), k=random.choice((1, 2)))
        for way in ways:
            if random.random() < 0.5:
                stage = random.choice(("receive", "assemble", "infer", "encode", "deliver", "commit"))
                world.wait(lambda stage=stage: world.nodes[self.cut].logged(f"{stage}.started"), 5)  # type: ignore[misc]
            world.pause_for(random.uniform(0, 0.3))
            if way == "refused":
                self.between.shut()
            else:
                self.between.hold()
            world.pause_for(random.uniform(0.5, 9))
            if way == "held and lost":
                self.between.hang_up()
            self.relent(world)
        world.note(ways=ways, refused=len(world.events("job.stale")))

    def relent(self, world: World) -> None:
        """Connect it."""
        self.between.open()
        self.between.go_on()
