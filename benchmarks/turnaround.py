"""How long the main job takes: from a 300-slice CT's last C-STORE response to its results committed in the archive.

A node with the shipped models, all settings as they come, and a real Orthanc that is asked for storage commitment. The
archive has the series; it comes to the node over one association, as an archive forwards one. The peer is the same node
behind an idle timer of 60 s, as other nodes wait; while the timer runs, the node itself is measured. Both stay up from
round to round, and each round is another series for them.

What is measured can be kept in a file, to go on with later: ``--keep FILE --rounds 5``, several times.
"""

import argparse
import math
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pydicom

from benchmarks.main_job.series import write_series
from benchmarks.main_job.stages import WAY, Taken, keep, kept
from benchmarks.main_job.subjects import NODE, TIMER, TIMER_SECONDS, subject
from benchmarks.report import Row, row, tell
from service.demo.phantom import write_chest_xray

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GPU = (2.3, 8.3)
"""So many times as fast as a CPU of ten cores a GPU (RTX 3090) is with TotalSegmentator's models of 3 mm, where most is
preparation, and of 1.5 mm: 57 and 25 s, 872 and 105 s (its repository, resources/runtime.md, version 3.0.0)."""
ROOM_SECONDS = 20.0
"""A round is not begun when the timer ends sooner."""


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    measured = kept(options.keep) if options.keep else []
    if options.rounds:
        with tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=options.folder) as folder:
            for one in measure(Path(folder), options):
                measured.append(one)
                if options.keep:
                    keep(options.keep, one)
                print(f"{one.subject}: {one.turnaround:.2f} s, {one.objects} objects", file=sys.stderr)
    if options.picture:
        from benchmarks.main_job.picture import draw

        draw(measured, GPU[-1], options.picture)
    rows, ratios = summary(measured)
    tell("turnaround", sum(one.subject == NODE for one in measured), rows, ratios, options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wetread bench turnaround", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="of the node; 0: tell what was kept")
    parser.add_argument("--timers", type=int, default=8, help="how many of the rounds one behind the timer goes with")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no round after so long")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="real images; without them a phantom is sent")
    parser.add_argument("--keep", type=Path, help="append what is measured to this file, and tell all that is in it")
    parser.add_argument("--picture", type=Path, help="write it as a picture (PNG)")
    parser.add_argument("--folder", type=Path, help="where spools and archives lie; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measure(folder: Path, options: argparse.Namespace) -> Iterator[Taken]:
    """Rounds of the node, and of the one behind the timer as many as are wanted; each as it ends."""
    series = write_series(folder / "sent", options.slices, options.data)
    runs, begun = count(1), time.time()
    rounds, timers = options.rounds, options.timers
    with ExitStack() as stack:
        names = [NODE, TIMER] if timers else [NODE]
        subjects = {
            name: stack.enter_context(subject(name, folder / str(number), folder / "engines"))
            for number, name in enumerate(names)
        }
        xray = write_chest_xray(folder / "xray")
        for one in subjects.values():  # what happens once only, and not with every series
            one.begin(str(pydicom.dcmread(next(xray.iterdir())).SeriesInstanceUID), list(xray.iterdir()))
            one.end()
        while (rounds or timers) and time.time() < begun + options.seconds:
            until = begun + options.seconds
            behind = subjects[TIMER] if timers else None
            if behind:
                behind.begin(series.renew(next(runs)), series.paths)
                until = behind.answered_at + TIMER_SECONDS - ROOM_SECONDS
                timers -= 1
            while rounds and time.time() < until:
                subjects[NODE].begin(series.renew(next(runs)), series.paths)
                yield subjects[NODE].end()
                rounds -= 1
            if behind:
                yield behind.end()


def summary(measured: Sequence[Taken]) -> tuple[list[Row], dict[str, float]]:
    """Rows of each subject, measured and computed (`GPU`), and the ratio of the two."""
    rows: list[Row] = []
    middle: dict[str, float] = {}
    for name in (NODE, TIMER):
        its = [one for one in measured if one.subject == name]
        if not its:
            continue
        for stage in WAY:
            rows.append(row(name, stage, [one.stages[stage] for one in its], "s"))
            rows.append(row(name, f"{stage}: of it waiting", [one.waited[stage] for one in its], "s"))
        rows += [row(name, f"{stage}: work for all models", [one.work[stage] for one in its], "s") for stage in WAY[1:]]
        rows.append(row(name, "first model's results", [one.first for one in its], "s"))
        rows.append(row(name, "turnaround", [one.turnaround for one in its], "s"))
        for gpu in (*GPU, math.inf):
            rows.append(row(name, f"computed: infer × {gpu:g}", [one.with_gpu(gpu) for one in its], "s"))
        rows.append(row(name, "objects", [float(one.objects) for one in its], "objects"))
        middle[name] = statistics.median(one.turnaround for one in its)
    ratios = {f"{TIMER}/{NODE}": round(middle[TIMER] / middle[NODE], 2)} if len(middle) == 2 else {}
    return rows, ratios


if __name__ == "__main__":
    main()
