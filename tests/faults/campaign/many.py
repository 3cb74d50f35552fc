"""Many runs, some at a time, each with a line in a file."""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from tests.faults.campaign.catalogue import ALL
from tests.faults.campaign.fault import Fault, Harm
from tests.faults.campaign.nursery import Nursery
from tests.faults.campaign.run import Reference, references, run
from tests.faults.campaign.world import Parts
from tests.postgres import PostgresServer, why_not
from tests.small_models import volume_package

Line = dict[str, Any]
LINES = "runs.jsonl"


def run_all(
    plan: Sequence[tuple[int, str]],
    folder: Path,
    jobs: int = 1,
    lock: Path | None = None,
    tell: Callable[[Line], None] = lambda line: None,
) -> list[Line]:
    """Run seeds with faults; their lines, with those of the folder's earlier runs of the same.

    Parameters
    ----------
    plan
        Seeds and names of faults. One that has a line in the folder is not run again.
    folder
        Where lines, references and what failed runs have left lie.
    jobs
        How many runs there are at a time, each with a database server of its own: harm to one is none to another.
    lock
        A file that is locked (shared) during each run: who measures locks it alone.
    tell
        Called with each line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LINES
    wanted = set(plan)
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    lines = [line for line in lines if (line["seed"], line["fault"]) in wanted]
    ran = {(line["seed"], line["fault"]) for line in lines}
    writing, free = threading.Lock(), Queue[Parts]()

    def one(seed: int, name: str) -> None:
        parts, fault = free.get(), ALL[name]()
        try:
            with writing:
                reference = reference_for(fault, folder, parts)
            with _undisturbed(lock):
                line = run(fault, seed, folder / f"seed-{seed}-{name}", parts, reference).as_json()
        finally:
            free.put(parts)
        with writing:
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            lines.append(line)
            tell(line)

    with ExitStack() as stack:
        for _ in range(jobs):
            free.put(stack.enter_context(parts_in(folder)))
        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(one, seed, name) for seed, name in plan if (seed, name) not in ran]:
                done.result()
    return lines


@contextmanager
def parts_in(folder: Path) -> Iterator[Parts]:
    """What runs share: a small model, a process that has loaded the code, a database server where there is one."""
    models = folder / "models"
    if not (models / "tiny-ct").exists():
        shutil.rmtree(models, ignore_errors=True)
        volume_package(models)
    engines = {"folders": [str(models)], "models": ["tiny-ct"], "compiled": str(folder / "engines")}
    with ExitStack() as stack:
        server = None if why_not() else stack.enter_context(PostgresServer())
        yield Parts(engines, stack.enter_context(Nursery()), server)


def reference_for(fault: Fault, folder: Path, parts: Parts) -> Reference:
    """From a file, or made now."""
    standard = fault.reference == "standard"
    path = folder / f"reference-{'standard' if standard else fault.name}.json"
    if not path.exists():
        found = references(Harm() if standard else fault, folder / "reference", parts)
        path.write_text(json.dumps(found, indent=1))
    loaded: Reference = json.loads(path.read_text())
    return loaded


@contextmanager
def _undisturbed(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
