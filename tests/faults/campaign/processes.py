"""Faults of processes: nodes that are killed, that stand still, that start again and again."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.faults.campaign.fault import Harm
from tests.faults.campaign.world import World
from tests.validators import require_tool


class KilledInStage(Harm):
    """SIGKILL at a random moment after a node has claimed a job of a stage, and a start of the next process.

    The moment is drawn from the time that the stage takes (`SECONDS`), so it falls anywhere in it, and now and then
    after it. How the ledger finds the job then is noted.
    """

    stage: ClassVar[str]
    seconds: ClassVar[float]

    def strike(self, world: World, random: Random) -> None:
        """Kill up to three times."""
        hits, kills = 0, random.choice((1, 1, 2, 3))
        done = 0
        for _ in range(kills):
            before = len(world.node.logged(f"{self.stage}.started"))
            seen = world.wait(lambda before=before: len(world.node.logged(f"{self.stage}.started")) > before, 30)
            if not seen:
                break
            world.pause_for(random.uniform(0, self.seconds))
            world.node.kill()
            done += 1
            hits += any(row["state"] == "running" and row["stage"] == self.stage for row in world.rows(JOBS))
            world.node.start()
        world.note(kills=done, running=hits)


JOBS = "SELECT stage, state FROM jobs"


class KilledInAssemble(KilledInStage):
    name, stage, seconds = "kill-assemble", "assemble", 0.05


class KilledInInfer(KilledInStage):
    name, stage, seconds = "kill-infer", "infer", 0.15


class KilledInEncode(KilledInStage):
    name, stage, seconds = "kill-encode", "encode", 0.25


class KilledInDeliver(KilledInStage):
    name, stage, seconds = "kill-deliver", "deliver", 0.1


class KilledInCommit(KilledInStage):
    name, stage, seconds = "kill-commit", "commit", 0.5


class KilledInReceive(Harm):
    """SIGKILL while images come, after a random number of them and a random time more."""

    name = "kill-receive"

    def strike(self, world: World, random: Random) -> None:
        """Kill up to three times."""
        kills = random.choice((1, 2, 3))
        moments = sorted(random.sample(range(world.wanted), kills))
        done = 0
        for moment in moments:
            if not world.wait(lambda moment=moment: world.acknowledged >= moment, 30, 0.0005):
                break
            world.pause_for(random.uniform(0, 0.01))
            world.node.kill()
            done += 1
            world.node.start()
        world.note(kills=done, at=moments)


class KilledAtStart(Harm):
    """SIGKILL while images come, then again and again while the node starts, at a random moment of it."""

    name = "kill-start"

    def strike(self, world: World, random: Random) -> None:
        """Kill."""
        moment = random.randrange(world.wanted)
        world.wait(lambda: world.acknowledged >= moment, 30, 0.0005)
        world.node.kill()
        starts = random.randint(1, 4)
        for _ in range(starts):
            world.node.launch()
            world.pause_for(random.uniform(0, world.node.started_seconds))
            world.node.kill()
        world.node.start()
        world.note(kills=1 + starts)


class OneOfTwoKilled(Harm):
    """Two nodes on one PostgreSQL; one is killed at a random moment, and stays away until its lease has ended."""

    name = "two-nodes-kill"

    def arrange(self, world: World, random: Random) -> None:
        """Two nodes."""
        world.database, world.count = "postgresql", 2

    def strike(self, world: World, random: Random) -> None:
        """Kill one of them for good, or for long."""
        at = random.uniform(0, 1.5)
        if random.random() < 0.5:
            stage = random.choice(("assemble", "infer", "encode", "deliver", "commit"))
            world.wait(lambda: world.events(f"{stage}.started"), 15)
            at /= 10
        world.pause_for(at)
        victim = random.randrange(2)
        world.nodes[victim].kill()
        world.pause_for(random.choice((0.0, 5.0)))
        world.note(victim=victim)


class StoppedPastLease(Harm):
    """Two nodes on one PostgreSQL; one stands still (SIGSTOP) until its leases have ended, and goes on (SIGCONT)."""

    name = "two-nodes-stop"

    def arrange(self, world: World, random: Random) -> None:
        """Two nodes."""
        world.database, world.count = "postgresql", 2

    def strike(self, world: World, random: Random) -> None:
        """Stop one of them for twice its lease."""
        stage = random.choice(("receive", "assemble", "infer", "encode", "deliver", "commit"))
        if stage == "receive":
            moment = random.randrange(world.wanted // 2)
            world.wait(lambda: world.acknowledged >= moment, 15)
            victim = world.nodes[random.randrange(2)]
        else:
            found = world.wait(lambda: next((n for n in world.nodes if n.logged(f"{stage}.started")), None), 15)
            victim = found or world.node
            world.pause_for(random.uniform(0, 0.1))
        victim.process.send_signal(signal.SIGSTOP)
        world.pause_for(random.uniform(6.0, 8.0))
        victim.process.send_signal(signal.SIGCONT)
        world.note(stage=stage, refused=len(world.events("job.stale")))


class StoodStill(Harm):
    """The only node stands still for longer than its leases, at a random moment, and goes on."""

    name = "stop"

    def strike(self, world: World, random: Random) -> None:
        """Stop it for more than its lease."""
        stage = random.choice(("receive", "assemble", "infer", "encode", "deliver", "commit"))
        if stage == "receive":
            moment = random.randrange(world.wanted)
            world.wait(lambda: world.acknowledged >= moment, 15)
        else:
            world.wait(lambda: world.events(f"{stage}.started"), 15)
            world.pause_for(random.uniform(0, 0.1))
        world.node.process.send_signal(signal.SIGSTOP)
        world.pause_for(random.uniform(3.5, 6.0))
        world.node.process.send_signal(signal.SIGCONT)
        world.note(stage=stage)


class KilledAtSystemCall(Harm):
    """SIGKILL at the n-th system call of a kind that changes a file or talks to somebody, in whichever thread is first.

    strace attaches to the node and has the signal delivered at the entry of that call, so that it falls between any two
    of the steps by which something becomes durable.
    """

    name = "kill-syscall"
    calls = ("pwrite64", "write", "fdatasync", "fsync", "rename", "unlink", "openat", "sendto", "sendmsg", "ftruncate")

    def arrange(self, world: World, random: Random) -> None:
        """More time between images."""
        require_tool("strace")
        world.pause = 0.015

    def strike(self, world: World, random: Random) -> None:
        """Kill, start, and perhaps once more."""
        drawn = [(random.choice(self.calls), random.choice((1, 3, 9, 27, 81)) + random.randrange(9)) for _ in range(2)]
        killed = []
        for call, number in drawn:
            line = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
            line += ["-e", f"inject={call}:signal=SIGKILL:when={number}", "-p", str(world.node.process.pid)]
            tracer = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                if world.wait(lambda: not world.node.alive, 8, 0.02):
                    killed.append(f"{call} {number}")
                    world.node.wait()
            finally:
                tracer.terminate()
                tracer.wait(20)
            world.node.restart()
        world.note(kills=len(killed), killed=killed)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


class PartKilled(Harm):
    """SIGKILL of a process that works for the node, not of the node, at a random moment of a stage."""

    stage: ClassVar[str]

    def strike(self, world: World, random: Random) -> None:
        """Kill all that do this work, once or twice."""
        kills, event = 0, f"{self.stage}.started"
        for _ in range(random.choice((1, 2))):
            before = len(world.node.logged(event))
            world.wait(lambda before=before: len(world.node.logged(event)) > before, 10)
            world.pause_for(random.uniform(0, 0.15))
            node = world.node.process.pid
            for child in children(node):
                with suppress(OSError):  # it has ended just now
                    if self.is_part(command_line(child), command_line(node)):
                        os.kill(child, signal.SIGKILL)
                        kills += 1
        world.note(kills=kills)

    def is_part(self, its: bytes, the_nodes: bytes) -> bool:
        """Whether a process is one of these, by its command line and that of the node."""
        raise NotImplementedError


def command_line(pid: int) -> bytes:
    """What a process was started with. Raises `OSError`."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


class EngineKilled(PartKilled):
    """The process that runs the models."""

    name, stage = "kill-engine", "infer"

    def is_part(self, its: bytes, the_nodes: bytes) -> bool:
        """See `PartKilled`."""
        return b"engines.serving" in its


class EncoderKilled(PartKilled):
    """Those that encode: forks of the node, or what has taken their place."""

    name, stage = "kill-encoder", "encode"

    def is_part(self, its: bytes, the_nodes: bytes) -> bool:
        """See `PartKilled`."""
        return its == the_nodes or b"spawn_main" in its
