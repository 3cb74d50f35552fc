"""How fast the ledger is, on SQLite and on PostgreSQL, empty and with 100,000 finished rows.

The folder lies on the file system that is measured, PostgreSQL's cluster in the one for temporary files. A
*transition* is a claim and a finish that creates the next stage's job; workers do nothing else. *wake-up* is the time
from the transaction that makes a job ready until a worker that slept has claimed it, *idle* the share of one CPU core
that workers take which have nothing to do.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise, product
from pathlib import Path
from statistics import median

from sqlalchemy import insert

from benchmarks.report import row, tell
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, DELIVER, ENCODE, INFER, STAGES, NextJob, SeriesRecord
from service.ledger.schema import jobs, series
from tests.postgres import PostgresServer, why_not

ORDER = (ASSEMBLE, INFER, ENCODE, DELIVER)
FOLLOWING = dict(pairwise(ORDER))
FINISHED = 100_000
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
EMPTY, FULL = "empty", f"{FINISHED:,} finished rows"
CASES = {EMPTY: 0, FULL: FINISHED}
DISK = ("the disk", "4 KiB and fdatasync", "1/s")
IDLE = 5
"""Workers: those of a node."""

Taken = dict[tuple[str, str, str], list[float]]
"""Values by case, subject and unit."""


def fill(ledger: Ledger, rows: int) -> None:
    """Finished work, as it is after some weeks."""
    if not rows:
        return
    stages = STAGES[:5]
    keys = [f"f{number:015x}" for number in range(rows // len(stages))]
    known = {"study_uid": "1.2", "series_uid": "1.2.3", "modality": "CT", "sender": "OLD", "instances": 3}
    done = {"state": "done", "run_at": 1.0, "attempts": 1, "token": 1, "note": "", "created_at": 1.0, "ended_at": 2.0}
    with ledger._database.writing() as connection:
        connection.execute(insert(series), [{"key": key, "opened_at": 1.0, **known} for key in keys])
        every = [{"series": key, "item": "", "model": "", "stage": stage, **done} for key in keys for stage in stages]
        for begin in range(0, len(every), 10_000):
            connection.execute(insert(jobs), every[begin : begin + 10_000])
    if ledger._database.shared:  # as its own upkeep would do some time soon
        with ledger._database._single.begin() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql("ANALYZE")


def bring(ledger: Ledger, count: int, round_number: int) -> None:
    """Series that have been received."""
    for number in range(count):
        key = f"{round_number:08x}{number:08x}"
        ledger.open_series(SeriesRecord(key, "1.2", f"1.2.{key}", "CT", "PACS"), 1)
        ledger.complete_series(key, 1, "", [NextJob(ASSEMBLE)])


def drain(ledger: Ledger) -> int:
    """Work until nothing is left; return how many transitions that was."""
    done = 0
    while job := ledger.claim(ORDER):
        following = FOLLOWING.get(job.stage)
        ledger.finish(job, [NextJob(following)] if following else [], "", 0.0)
        done += 1
    return done


def _drain_at(url: str, began: "multiprocessing.synchronize.Barrier") -> None:
    with closing(Ledger(url)) as ledger:
        ledger.counts()
        began.wait()
        drain(ledger)


def by_threads(url: str, workers: int) -> float:
    """Seconds that threads of one process need, as on a single node."""
    with closing(Ledger(url)) as ledger:
        threads = [threading.Thread(target=drain, args=(ledger,)) for _ in range(workers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began


def by_processes(url: str, workers: int) -> float:
    """Seconds that as many nodes need."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    processes = [context.Process(target=_drain_at, args=(url, barrier)) for _ in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - began


@contextlib.contextmanager
def sleeping(ledger: Ledger, workers: int, claimed: Callable[[], None]) -> Iterator[None]:
    """Workers that wait for work, as those of a node do."""
    stopping = threading.Event()

    def work() -> None:
        while not stopping.is_set():
            job = ledger.claim(ORDER)
            if job is None:
                ledger.wait(1.0)
            else:
                claimed()
                ledger.finish(job, [])

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    yield
    stopping.set()
    for thread in threads:
        thread.join()


def wake_ups(here: Ledger, there: Ledger, count: int) -> list[float]:
    """Milliseconds from what ``there`` makes ready until a worker of ``here`` has it."""
    waited, heard = list[float](), threading.Event()
    with sleeping(here, 4, heard.set):
        for number in range(count):
            key = f"e{time.time_ns():015x}"[:16]
            there.open_series(SeriesRecord(key, "1.2", f"1.2.{key}", "CT", "PACS"), 1)
            time.sleep(0.05 + 0.01 * (number % 10))
            heard.clear()
            there.complete_series(key, 1, "", [NextJob(ASSEMBLE)])
            ready = time.perf_counter()
            assert heard.wait(10)
            waited.append(1000 * (time.perf_counter() - ready))
    return waited


def idle(ledger: Ledger, seconds: float) -> float:
    """Percent of one core."""
    with sleeping(ledger, IDLE, lambda: None):
        began, used = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        return 100 * (time.process_time() - used) / (time.perf_counter() - began)


def syncs(folder: Path, count: int = 200) -> float:
    """How often a second 4 KiB can be brought to this disk: the most commits that one writer could do."""
    path = folder / "synced"
    with path.open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(count):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        spent = time.perf_counter() - began
    path.unlink()
    return count / spent


def main() -> None:
    """Measure, and print medians with their spread."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended too
    taken = kept(options.keep)
    if options.rounds:
        with ExitStack() as stack:
            measure(stack, options, taken)
        keep(options.keep, taken)
    rows = [row(case, subject, values, unit) for (case, subject, unit), values in taken.items()]
    middle = {key: median(values) for key, values in taken.items()}
    ratios = {
        f"{subject}: {FULL}/{EMPTY}": round(middle[FULL, subject, unit] / value, 3)
        for (case, subject, unit), value in middle.items()
        if case == EMPTY and unit == "transitions/s"
    }
    tell("ledger", len(taken[DISK]), rows, ratios, options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wetread bench ledger", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5, help="0: tell what was kept")
    parser.add_argument("--only", choices=(SQLITE, POSTGRESQL), help="one database instead of both")
    parser.add_argument("--series", type=int, default=250, help="in a round, four transitions each")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--keep", type=Path, help="add what is measured to this file, and tell all that is in it")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measure(stack: ExitStack, options: argparse.Namespace, taken: Taken) -> None:
    """Open, fill and measure the ledgers, in turn."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
    opened: dict[tuple[str, str], tuple[str, Ledger]] = {}
    for name, case in product([options.only] if options.only else [SQLITE, POSTGRESQL], CASES):
        if name == POSTGRESQL and (reason := why_not()):
            print(f"without PostgreSQL: {reason}", file=sys.stderr)
            break
        if name == POSTGRESQL and case == EMPTY:
            server = stack.enter_context(PostgresServer(fsync=True))
        url = server.database() if name == POSTGRESQL else f"sqlite:///{folder / f'{CASES[case]}.sqlite'}"
        ledger = stack.enter_context(closing(Ledger(url)))
        fill(ledger, CASES[case])
        opened[name, case] = url, ledger
    ways = {"threads": by_threads, "processes": by_processes}
    for number in range(options.rounds):
        taken[DISK].append(syncs(folder))
        for (name, case), (url, ledger) in opened.items():
            for offset, (way, work) in enumerate(ways.items()):
                bring(ledger, options.series, 2 * number + offset)
                seconds = work(url, options.workers)
                taken[case, f"{name}, {options.workers} {way}", "transitions/s"].append(4 * options.series / seconds)
    for (name, case), (url, ledger) in opened.items():
        taken[case, f"{name}, same process", "ms to wake up"] += wake_ups(ledger, ledger, 10 * options.rounds)
        if name == POSTGRESQL:
            with closing(Ledger(url)) as there:
                taken[case, f"{name}, another node", "ms to wake up"] += wake_ups(ledger, there, 10 * options.rounds)
        taken[case, f"{name}, {IDLE} idle workers", "% of a core"].append(idle(ledger, options.idle_seconds))


def kept(path: Path | None) -> Taken:
    """What was measured before."""
    taken: Taken = defaultdict(list)
    if path is not None and path.exists():
        taken.update({(case, subject, unit): values for case, subject, unit, values in json.loads(path.read_text())})
    return taken


def keep(path: Path | None, taken: Taken) -> None:
    if path is not None:
        path.write_text(json.dumps([[*key, values] for key, values in taken.items()]))


if __name__ == "__main__":
    main()
