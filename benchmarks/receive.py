"""How fast instances are received and acknowledged, and what that costs: the node against DCMTK, Orthanc, pynetdicom.

Subjects take turns in every round, each round begins with another one. Each measurement has a fresh subject on an empty
folder of the same file system, which has got one image before, and images with new UIDs. "node" is `wetread serve`,
which reads the slices of a CT while they come; "receiver alone" is what of it receives. storescp takes PDUs of 128 KiB,
and forks where there are several senders; it and Orthanc run without Nagle's algorithm (TCP_NODELAY=1), which would
cost 40 ms an instance. Only "durable" ones have an instance on disk when they acknowledge it. CPU is that of all
processes of a subject; memory is their own, without the page cache, "grown" over what they had before all this.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.receiving.images import Images, renew, write_images
from benchmarks.receiving.processes import Watch
from benchmarks.receiving.profile import Profile
from benchmarks.receiving.senders import SENDERS, fast
from benchmarks.receiving.subjects import (
    ALONE,
    ALONE_OFF,
    DURABLE,
    GROUP,
    OFF,
    ORTHANC,
    STORESCP,
    TUTORIAL,
    TWO,
    available,
    receiving,
)
from benchmarks.report import Row, row, tell
from tests.running_node import small_engines

PAIRS = (
    (DURABLE, "durable: node"),
    (TWO, "durable: node, 2 receivers"),
    (OFF, "sync off: node"),
    (GROUP, "sync group: node"),
    (ALONE, "durable: receiver alone"),
    (ALONE_OFF, "sync off: receiver alone"),
)
PEERS = (STORESCP, ORTHANC, TUTORIAL, DURABLE)
"""The last one only for the node with receivers."""


@dataclass(frozen=True)
class Case:
    """So many senders, each with so many images."""

    senders: int
    images: int
    kind: str

    @property
    def name(self) -> str:
        return f"{self.images} x 18 MB DX" if self.kind == "DX" else f"{self.senders} x {self.images} CT"


CASES = (Case(1, 300, "CT"), Case(4, 100, "CT"), Case(1, 1000, "CT"), Case(1, 10, "DX"))
QUICK = (Case(1, 40, "CT"), Case(4, 10, "CT"), Case(1, 120, "CT"), Case(1, 2, "DX"))


@dataclass(frozen=True)
class Measured:
    """One subject, once: per second, CPU time, memory."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    grown_mb: float


def main() -> None:
    options = parse()
    cases = [one for one in (QUICK if options.quick else CASES) if not options.case or one.name in options.case]
    subjects = [name for name in available() if not options.subject or name in options.subject]
    subjects = [name for name in subjects if name not in (GROUP, ALONE_OFF) or name in (options.subject or ())]
    senders = [name for name in SENDERS if name in (options.sender or SENDERS)]
    if absent := {STORESCP, ORTHANC} - set(available()):
        print(f"not installed, and left out: {', '.join(sorted(absent))}", file=sys.stderr)
    if shutil.which("storescu") is None:
        senders = [name for name in senders if name != "storescu"]
    rounds = 1 if options.quick or options.profile else options.rounds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=options.folder) as folder,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        bench = Bench(Path(folder), bar, options.profile)
        for case in cases:
            bench.measure(case, senders, subjects, rounds)
        bench.sum_up(rows, ratios)
    tell("receive", rounds, rows, ratios, options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wetread bench receive", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of small cases: whether it works")
    parser.add_argument(
        "--case", action="append", choices=[one.name for one in (*CASES, *QUICK)], help="may be given often"
    )
    parser.add_argument("--subject", action="append", help="by name; may be given more than once")
    parser.add_argument("--sender", action="append", choices=sorted(SENDERS))
    parser.add_argument("--folder", type=Path, help="where everything is stored; default: the temporary folder")
    parser.add_argument(
        "--profile", type=Path, help="one round; write where the Python subjects' time goes here (py-spy)"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


class Bench:
    """Measures cases in a folder, and sums up."""

    def __init__(self, folder: Path, bar: Progress, profiles: Path | None) -> None:
        self._folder, self._bar, self._profiles = folder, bar, profiles
        self._engines = {**small_engines(folder / "models"), "compiled": str(folder / "compiled")}
        self._run = 0
        self._measured: dict[tuple[Case, str], dict[str, list[Measured]]] = {}
        self._megabytes: dict[Case, float] = {}

    def measure(self, case: Case, senders: Sequence[str], subjects: Sequence[str], rounds: int) -> None:
        """Every sender to every subject, in turn; several receivers only where there are several senders."""
        subjects = [name for name in subjects if case.senders > 1 or name != TWO]
        task = self._bar.add_task(case.name, total=rounds * len(senders) * len(subjects))
        images = write_images(self._folder / "images", case.kind, case.senders, case.images)
        self._megabytes[case] = images.megabytes
        for turn in range(rounds):
            start = turn % len(subjects)
            for sender in senders:
                found = self._measured.setdefault((case, sender), defaultdict(list))
                for subject in (*subjects[start:], *subjects[:start]):
                    words = f"{case.name}, {sender} to {subject}"
                    self._bar.update(task, description=words)
                    try:
                        found[subject].append(self._once(words, case, sender, subject, images))
                    except RuntimeError as error:  # the others are worth their time
                        print(f"{words}: {error}", file=sys.stderr)
                    self._bar.advance(task)
        self._bar.update(task, description=case.name)
        shutil.rmtree(self._folder / "images")

    def _once(self, words: str, case: Case, sender: str, subject: str, images: Images) -> Measured:
        self._run += 1
        renew(images.files, self._run)
        folder = Path(tempfile.mkdtemp(prefix="subject-", dir=self._folder))
        with receiving(subject, folder, self._engines, case.senders) as to:
            fast(to.port, to.ae_title, [images.warm_up])
            to.settle()
            os.sync()  # so that nobody pays for what others have written
            with Profile(to.pid, self._profiles, words), Watch(to.pid) as watch:
                seconds = SENDERS[sender](to.port, to.ae_title, images.folders)
            if to.kept is not None and to.kept() != len(images.files):
                raise RuntimeError(f"it has {to.kept()} of {len(images.files)} images that it acknowledged")
        _empty(folder)
        return Measured(seconds, watch.cpu_seconds, watch.peak_mb, watch.grown_mb)

    def sum_up(self, rows: list[Row], ratios: dict[str, float]) -> None:
        """Rows of each case and subject, and the ratios of medians."""
        for (case, sender), subjects in self._measured.items():
            name, images = f"{case.name}, {sender}", case.senders * case.images
            for subject, values in subjects.items():
                speeds = [images / one.seconds for one in values]
                rows.append(row(name, subject, speeds, "images/s"))
                rows.append(row(name, subject, [self._megabytes[case] / one.seconds for one in values], "MB/s"))
                rows.append(row(name, subject, [one.cpu_seconds / images * 1e3 for one in values], "CPU ms/image"))
                rows.append(row(name, subject, [one.peak_mb for one in values], "MB at most"))
                rows.append(row(name, subject, [one.grown_mb for one in values], "MB grown"))
            for ours, words in PAIRS:
                for peer in PEERS:
                    if ours in subjects and peer in subjects and (peer != DURABLE or ours == TWO):
                        taken = {who: statistics.median(one.seconds for one in subjects[who]) for who in (ours, peer)}
                        ratios[f"{name}, {words}/{peer}"] = round(taken[peer] / taken[ours], 2)
        self._flatness(ratios)

    def _flatness(self, ratios: dict[str, float]) -> None:
        """Memory of the longest series over that of the shortest, for those subjects that had both."""
        for sender in SENDERS:
            cases = [case for case, its in self._measured if its == sender and case.senders == 1 and case.kind == "CT"]
            ends = sorted(cases, key=lambda case: case.images)[:: max(1, len(cases) - 1)]
            for subject in self._measured[ends[0], sender] if len(ends) > 1 else ():
                few, many = (
                    statistics.median(one.peak_mb for one in self._measured[case, sender][subject]) for case in ends
                )
                ratios[f"memory, {ends[1].name}/{ends[0].name}, {sender}: {subject}"] = round(many / few, 2)


def _empty(folder: Path) -> None:
    """Give back the room of its files, but not yet the files: for half a minute after many were removed, ext4 takes a
    quarter of a millisecond to make one (``recently_deleted`` in its ``ialloc.c``).
    """
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


if __name__ == "__main__":
    main()
