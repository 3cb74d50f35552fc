"""How fast objects are sent: our SCU, DCMTK's storescu and pynetdicom's, to a sink that costs little, in turn.

The sink takes the time, from the request for an association to its release, so that nobody's start counts.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.delivering.python_scu import CALLED, CALLING, SUBJECTS
from benchmarks.receiving.images import FIRST_INSTANCE, write_images
from benchmarks.report import Row, row, tell
from tests.ct_slice import ct_slice

OURS, STORESCU, STORESCU_FAST = "wetread", "storescu", "storescu, TCP_NODELAY"
PYNETDICOM, PYNETDICOM_FAST = (name for name in SUBJECTS if name != OURS)
PEERS = (STORESCU, STORESCU_FAST, PYNETDICOM, PYNETDICOM_FAST)
SLOW, MOST_OF_SLOW = (STORESCU, PYNETDICOM, PYNETDICOM_FAST), 1000
"""Who is left out where there are more objects than that: with Nagle's algorithm on, each takes 40 ms."""


@dataclass(frozen=True)
class Case:
    """So many objects of a kind: CT slices of 0.5 MB, X-rays (DX) of 18 MB, or small ones of 1 KB."""

    objects: int
    kind: str

    @property
    def name(self) -> str:
        return f"{self.objects} {self.kind}"


CASES = (Case(300, "CT"), Case(10, "DX"), Case(300, "small"), Case(10_000, "small"))
QUICK = (Case(30, "CT"), Case(2, "DX"), Case(300, "small"))


@dataclass(frozen=True)
class Measured:
    """One folder, sent once: seconds from request to release, CPU seconds of the sender, objects not answered."""

    seconds: float
    cpu_seconds: float
    lost: int


def main() -> None:
    options = parse()
    cases = [one for one in (QUICK if options.quick else CASES) if not options.case or one.name in options.case]
    subjects = [one for one in (OURS, *PEERS) if not options.subject or one in options.subject]
    if shutil.which("storescu") is None:
        print("not installed, and left out: storescu", file=sys.stderr)
        subjects = [one for one in subjects if not one.startswith(STORESCU)]
    rounds = 1 if options.quick else options.rounds
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=options.folder) as folder:
        for case in cases:
            files = write_objects(Path(folder) / case.kind, case)
            its = [one for one in subjects if case.objects <= MOST_OF_SLOW or one not in SLOW]
            measured: dict[str, list[Measured]] = defaultdict(list)
            for turn in range(rounds):
                start = turn % len(its)
                for subject in (*its[start:], *its[:start]):
                    print(f"{case.name}, round {turn + 1}: {subject}", file=sys.stderr)
                    measured[subject].append(once(subject, files, case.objects))
            sum_up(case, files, measured, rows, ratios)
            shutil.rmtree(files)
    tell("deliver", rounds, rows, ratios, options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wetread bench deliver", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of small cases: whether it works")
    parser.add_argument(
        "--case", action="append", choices=[one.name for one in (*CASES, *QUICK)], help="may be given often"
    )
    parser.add_argument("--subject", action="append", choices=(OURS, *PEERS))
    parser.add_argument("--folder", type=Path, help="where the objects lie; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def write_objects(folder: Path, case: Case) -> Path:
    """Write the objects of a case; return their folder."""
    if case.kind != "small":
        return write_images(folder, case.kind, 1, case.objects).folders[0]
    folder.mkdir(parents=True)
    template = ct_slice(folder / "template", number=1, SOPInstanceUID=f"1.2.3.4.{FIRST_INSTANCE}")
    content = template.read_bytes()
    template.unlink()
    for number in range(case.objects):
        uid = f"1.2.3.4.{FIRST_INSTANCE + number}".encode()
        (folder / f"{number:05}.dcm").write_bytes(content.replace(f"1.2.3.4.{FIRST_INSTANCE}".encode(), uid))
    return folder


def once(subject: str, files: Path, objects: int) -> Measured:
    """Send a folder. Raises `RuntimeError` where the sender fails altogether."""
    with sink() as (port, told):
        before = _children()
        if subject.startswith(STORESCU):
            delay = {"TCP_NODELAY": "1"} if subject == STORESCU_FAST else {}
            options = ["-R", "-pdu", "131072", "-aet", CALLING, "-aec", CALLED]
            command = ["storescu", *options, "127.0.0.1", str(port), "+sd", str(files)]
            done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **delay})
            answered, used = None, _children() - before
        else:
            command = [sys.executable, "-m", "benchmarks.delivering.python_scu", subject, str(port), str(files)]
            done = subprocess.run(command, capture_output=True, check=False)
            said = json.loads(done.stdout) if done.returncode == 0 else {}
            answered, used = said.get("answered"), said.get("cpu_seconds", 0.0)
        if done.returncode:
            raise RuntimeError(f"{subject} ends with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
        came = next(told)
    return Measured(came["seconds"], used, objects - (came["objects"] if answered is None else answered))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def sink() -> Iterator[tuple[int, Iterator[Mapping[str, float]]]]:
    """A running sink: its port, and what it tells of each association."""
    command = [sys.executable, "-m", "benchmarks.delivering.sink"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), map(json.loads, process.stdout)
    finally:
        process.terminate()
        process.wait()


def sum_up(
    case: Case, files: Path, measured: Mapping[str, list[Measured]], rows: list[Row], ratios: dict[str, float]
) -> None:
    """Rows of each subject, and the ratios of medians."""
    megabytes = sum(file.stat().st_size for file in files.iterdir()) / 1e6
    for subject, values in measured.items():
        rows.append(row(case.name, subject, [case.objects / one.seconds for one in values], "objects/s"))
        rows.append(row(case.name, subject, [megabytes / one.seconds for one in values], "MB/s"))
        rows.append(row(case.name, subject, [one.cpu_seconds / case.objects * 1e3 for one in values], "CPU ms/object"))
        rows.append(row(case.name, subject, [float(one.lost) for one in values], "not answered"))
    for peer in PEERS:
        if OURS in measured and peer in measured:
            theirs, ours = (statistics.median(one.seconds for one in measured[who]) for who in (peer, OURS))
            ratios[f"{case.name}: {OURS}/{peer}"] = round(theirs / ours, 2)


if __name__ == "__main__":
    main()
