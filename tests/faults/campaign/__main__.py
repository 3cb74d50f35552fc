"""Run the campaign: one line of JSON for each seed in FOLDER/runs.jsonl, and a summary at the end.

A seed that has its line is not run again; ``--fresh`` begins anew. What a run with findings has left stays in
FOLDER/seed-N for a look.
"""

import argparse
import fcntl
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from tempfile import gettempdir
from typing import Any

from service.operate.progress import progress
from tests.faults.campaign.catalogue import FAULTS, LONG
from tests.faults.campaign.fault import Fault, Harm
from tests.faults.campaign.nursery import Nursery
from tests.faults.campaign.run import Reference, references, run
from tests.faults.campaign.summary import summary, told
from tests.faults.campaign.world import Parts
from tests.postgres import PostgresServer, why_not
from tests.small_models import volume_package


def seeds_of(words: str) -> list[int]:
    """``0-299``, ``7`` or ``1,5,9-12``."""
    seeds: list[int] = []
    for word in words.split(","):
        first, _, last = word.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


@contextmanager
def parts(folder: Path) -> Iterator[Parts]:
    """A small model and a database server."""
    models = folder / "models"
    if not (models / "tiny-ct").exists():
        shutil.rmtree(models, ignore_errors=True)
        volume_package(models)
    engines = {"folders": [str(models)], "models": ["tiny-ct"], "compiled": str(folder / "engines")}
    with ExitStack() as stack:
        server = None if why_not() else stack.enter_context(PostgresServer())
        yield Parts(engines, stack.enter_context(Nursery()), server)


def reference_for(fault: Fault, folder: Path, shared: Parts) -> Reference:
    """From a file, or made now."""
    path = folder / f"reference-{fault.name if fault.reference != 'standard' else 'standard'}.json"
    if not path.exists():
        plain = fault if fault.reference != "standard" else Harm()
        found = references(plain, folder / "reference", shared)
        path.write_text(json.dumps(found, indent=1))
    loaded: Reference = json.loads(path.read_text())
    return loaded


@contextmanager
def undisturbed(path: Path | None) -> Iterator[None]:
    """Hold a shared lock on a file."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def main() -> int:
    """Run; the exit code is 1 where anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", default="0-299", help="0-299 (default), 7, or 1,5,9-12")
    parser.add_argument(
        "--only", choices=sorted(FAULTS | LONG), action="append", help="this fault alone; may be repeated"
    )
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "wetread-campaign")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that the folder has")
    parser.add_argument("--jobs", type=int, default=1, help="so many runs at a time (default: 1)")
    parser.add_argument(
        "--lock", type=Path, help="shared lock on this file during each run: who measures locks it alone"
    )
    parser.add_argument("--json", action="store_true", help="nothing but the summary, in one line")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    log: Path = asked.folder / "runs.jsonl"
    if asked.fresh:
        log.unlink(missing_ok=True)
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    names = asked.only or list(FAULTS)
    plan = [(seed, names[seed % len(names)]) for seed in seeds_of(asked.seeds)]
    ran = {(line["seed"], line["fault"]) for line in lines}
    waiting = [(seed, name) for seed, name in plan if (seed, name) not in ran]
    guard = threading.Lock()
    with progress(asked.json) as watch, ExitStack() as stack:
        free: Queue[Parts] = Queue()
        for _ in range(asked.jobs):  # a database server each: harm to one is none to another
            free.put(stack.enter_context(parts(asked.folder)))

        def one(seed: int, name: str) -> None:
            shared, fault = free.get(), (FAULTS | LONG)[name]()
            try:
                with guard:
                    reference = reference_for(fault, asked.folder, shared)
                with undisturbed(asked.lock):
                    line = run(fault, seed, asked.folder / f"seed-{seed}-{name}", shared, reference).as_json()
            finally:
                free.put(shared)
            with guard:
                with log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                lines.append(line)
                watch(f"seed {seed}: {name}", len(lines), len(plan))
                if not asked.json and not line["ok"]:
                    print(f"seed {seed}, {name}: {line.get('error') or line.get('findings')}", flush=True)

        with ThreadPoolExecutor(asked.jobs) as pool:
            for done in [pool.submit(one, seed, name) for seed, name in waiting]:
                done.result()
    mine = [line for line in lines if (line["seed"], line["fault"]) in set(plan)]
    print(json.dumps(summary(mine)) if asked.json else told(mine))
    return 0 if all(line["ok"] for line in mine) else 1


if __name__ == "__main__":
    sys.exit(main())
