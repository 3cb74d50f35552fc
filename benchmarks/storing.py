"""How long the spool takes to make one CT slice durable: written over a ready file, to a new file, and not synced.

``python -m benchmarks.storing [FOLDER]``; the folder lies on the file system that is measured. The ways take turns, so
that whatever else the machine does concerns all of them.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import row, tell
from service.received import Received
from service.recycling import Ready
from service.spool import Spool, key_of
from service.syncing import Sync

LENGTH = 525_400
"""Bytes of a CT slice of 512 × 512 with its header."""
WAYS: dict[str, tuple[Sync, int]] = {
    "ready file": ("each", 64),
    "new file": ("each", 0),
    "group, ready file": ("group", 64),
    "group, new file": ("group", 0),
    "off": ("off", 0),
}
"""``spool.sync`` and ``spool.ready_mb``."""
WRITE_ONLY = "write only"


def round_of(folder: Path, sync: Sync, ready_mb: int, threads: int, count: int) -> float:
    """Milliseconds for each of ``count`` slices, which as many threads bring, each a series of its own."""
    content = os.urandom(LENGTH)
    spool = Spool(folder, sync=sync, ready_mb=ready_mb, reserve_mb=1)
    filling, Ready.start = Ready.start, lambda self: None  # type: ignore[method-assign]
    try:
        spool.lock()
    finally:
        Ready.start = filling  # type: ignore[method-assign]
    while spool._instances._ready.fill_one():
        pass
    os.sync()

    def bring(series: int) -> None:
        for number in range(count // threads):
            spool.store(key_of(f"{series}"), key_of(f"{series}.{number}"), Received.of(content))

    return _seconds(bring, threads) / count * 1000


def raw_write(folder: Path, threads: int, count: int) -> float:
    """The same for files that are written and closed, and nothing else: what no spool can be faster than."""
    content = os.urandom(LENGTH)
    os.sync()

    def bring(series: int) -> None:
        for number in range(count // threads):
            (folder / f"{series}.{number}").write_bytes(content)

    return _seconds(bring, threads) / count * 1000


def _seconds(bring: Callable[[int], None], threads: int) -> float:
    workers = [threading.Thread(target=bring, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=96, help="slices in a round; 64 MB of ready files serve 120")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    taken: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for threads in options.threads:
            for way, (sync, ready_mb) in WAYS.items():
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    taken[way, threads].append(round_of(Path(folder), sync, ready_mb, threads, options.count))
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                taken[WRITE_ONLY, threads].append(raw_write(Path(folder), threads, options.count))
    rows = [row(f"{threads} at once", way, times, "ms/slice") for (way, threads), times in taken.items()]
    middle = {key: statistics.median(times) for key, times in taken.items()}
    ratios = {
        f"{threads} at once: {way}/{WRITE_ONLY}": middle[way, threads] / middle[WRITE_ONLY, threads]
        for way in WAYS
        for threads in options.threads
    }
    tell("storing", options.rounds, rows, ratios, options.json)


if __name__ == "__main__":
    main()
