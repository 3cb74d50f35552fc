"""What takes too long for a test: a node killed a hundred times while it is sent to, and probed ten thousand times.

``python -m tests.soak_receive`` (``make soak-receive``) ends with one line of JSON, and with exit code 1 where
something was lost, doubled or left behind. The same seed makes the same images and the same moments, those in a start
as parts of what a start takes.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from service.operate.progress import progress
from tests.killed_node import kill_often, node_to_kill
from tests.raw_peer import RawPeer
from tests.running_node import SENDER, RunningNode, Section, small_engines
from tests.waiting import eventually

KILLS_EACH = 10
"""Kills of one node; the next one begins with an empty spool, so that the disk does not fill."""
FIRST_PROBES = 500
"""Whatever a probe needs at first is there after these."""
SETTLED_SECONDS = 2.0
MOST_GROWTH_MB = 16
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Held:
    """What a process and those that it has started hold."""

    processes: int
    threads: int
    descriptors: int
    resident_mb: float

    @classmethod
    def by(cls, pid: int) -> "Held":
        """Look at it."""
        processes = [Path(f"/proc/{one}") for one in family(pid)]
        pages = sum(int((process / "statm").read_text().split()[1]) for process in processes)
        descriptors, threads = (
            sum(len(list((process / name).iterdir())) for process in processes) for name in ("fd", "task")
        )
        return cls(len(processes), threads, descriptors, round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1))


def family(pid: int) -> Iterator[int]:
    """A process, those that it has started, and so on."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended just now
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def kill(engines: Section, receivers: int, kills: int, seed: int, watch: Watch) -> dict[str, int]:
    """Kill nodes; what they have kept, in all. Raises `AssertionError`."""
    total: Counter[str] = Counter()
    for first in range(0, kills, KILLS_EACH):
        with tempfile.TemporaryDirectory() as folder:
            node = node_to_kill(Path(folder), engines, receivers)

            def tell(what: str, done: int, _: int, first: int = first) -> None:
                watch(what, first + done, kills)

            try:
                survived = kill_often(node, min(KILLS_EACH, kills - first), seed + first // KILLS_EACH, tell)
            finally:
                if node.alive:
                    node.kill()
        total.update(asdict(survived))
    return dict(total)


def probe(engines: Section, receivers: int, probes: int, watch: Watch) -> dict[str, object]:
    """Connect and close; what the node holds before and after. Raises `AssertionError`."""
    with tempfile.TemporaryDirectory() as folder, node_to_kill(Path(folder), engines, receivers) as node:
        knock(node, FIRST_PROBES, watch)
        time.sleep(SETTLED_SECONDS)
        before = Held.by(node.process.pid)
        knock(node, probes, watch)
        eventually(lambda: Held.by(node.process.pid).threads <= before.threads, "no thread is left", 20)
        eventually(lambda: Held.by(node.process.pid).descriptors <= before.descriptors, "no descriptor is left", 20)
        after = Held.by(node.process.pid)
        assert after.resident_mb < before.resident_mb + MOST_GROWTH_MB, (before, after)
        with RawPeer(node.destination.port, SENDER, called="WETREAD") as peer:
            peer.associate()
            assert peer.echo() == 0
            peer.release()
    return {"probes": probes, "before": asdict(before), "after": asdict(after)}


def knock(node: RunningNode, times: int, watch: Watch) -> None:
    """Half of the connections are closed, half are reset."""
    for number in range(times):
        watch("probed", number, times)
        with socket.create_connection((node.destination.host, node.destination.port), timeout=20) as line:
            if number % 2:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def main() -> int:
    """Run both; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="while instances come (default: 100)")
    parser.add_argument("--probes", type=int, default=10_000, help="(default: 10000)")
    parser.add_argument("--seed", type=int, default=100, help="(default: 100)")
    parser.add_argument("--receivers", type=int, default=1, help="processes that receive (default: 1)")
    asked, began = parser.parse_args(), time.monotonic()
    found: dict[str, object] = {"ok": True, "seed": asked.seed, "receivers": asked.receivers}
    with progress() as watch, tempfile.TemporaryDirectory() as folder:
        engines = small_engines(Path(folder))
        try:
            found |= kill(engines, asked.receivers, asked.kills, asked.seed, watch) if asked.kills else {}
            found |= probe(engines, asked.receivers, asked.probes, watch) if asked.probes else {}
        except AssertionError as error:
            found |= {"ok": False, "error": str(error)}
    print(json.dumps(found | {"seconds": round(time.monotonic() - began)}))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
