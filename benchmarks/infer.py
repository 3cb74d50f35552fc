"""How fast the shipped models answer on this CPU, and what each precision costs in accuracy.

Peers: ONNX Runtime and PyTorch with the same weights and threads, in the same rounds. "network" is the golden input;
"whole path" is what a node does with a CT or an X-ray (`engines.inference.analyse`), the peers in the place of our
runtime. Subjects take turns in every round. Memory is what a fresh process grows by at most from before the engine is
made to after its first answer. CPU seconds are those of all threads: other work on the machine disturbs them less.
Accuracy is that of the model's card, on the data that it was not trained on
(`build_engines.recipes.figures.judged`); "fp16" is the graph that TensorRT is given, with every operator's result
rounded to FP16.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.inference.accuracy import OneEngine
from benchmarks.inference.images import images
from benchmarks.inference.subjects import ONNX_RUNTIME, SUBJECTS, WETREAD, Subject, available
from benchmarks.memory import Growth
from benchmarks.report import Row, row, tell
from build_engines.recipes.figures.judged import SETS, figures
from engines.inference.analyse import analyse
from engines.packages.description import RadiographInput
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from engines.runtimes.base import Engine
from engines.types import Image, LabelMap
from engines.verify import Verification, verify
from evaluation.estimate import Estimate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PAUSE_SECONDS = 0.1
"""Between subjects: threads of the one before spin for a while, waiting for more work."""

LEAST_SECONDS = 0.2
"""A network of a few milliseconds is run so long in each turn."""

COMPILED = "torch fp32 compiled"

ACCURACY = ("dice", "accuracy", "auc", "froc_mean")
"""Beginnings of the metrics that precisions are compared by; `wetread evaluate` gives all."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench infer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every subject")
    parser.add_argument("--only", action="append", help="a model; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="one round, neither memory nor accuracy")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, which takes minutes")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the models' data")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    packages = load_packages(SHIPPED_MODELS)
    if unknown := set(options.only or ()) - set(packages):
        raise SystemExit(f"no model {', '.join(unknown)}; choose of {', '.join(packages)}")
    subjects = [subject for subject in SUBJECTS if options.compiled or subject.name != COMPILED]
    rounds = 1 if options.quick else options.rounds
    shown = images(options.data)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with Progress(*columns, console=console) as bar:
        for name in options.only or packages:
            bench = Bench(packages, name, options.threads, subjects, bar)
            bench.speed(shown, rounds, rows, ratios)
            if not options.quick:
                bench.memory(rows)
                bench.accuracy(options.data, rows, ratios)
    tell("infer", rounds, rows, ratios, options.json)


@dataclass(frozen=True)
class Cost:
    """``cpu_seconds`` of all threads, those included that spin while they wait for more work."""

    seconds: float
    cpu_seconds: float


class Bench:
    """The measurements of one model."""

    def __init__(
        self, packages: dict[str, ModelPackage], name: str, threads: int, subjects: list[Subject], bar: Progress
    ) -> None:
        self.packages, self.package, self.threads, self.bar = packages, packages[name], threads, bar
        self.name, self.subjects = name, subjects

    def speed(
        self, shown: dict[str, tuple[str, Image]], rounds: int, rows: list[Row], ratios: dict[str, float]
    ) -> None:
        """Seconds of the network and of the whole path, and whether each subject passes the golden check."""
        words, image = shown["xray" if isinstance(self.package.input, RadiographInput) else "ct"]
        network, whole = f"{self.name} network", f"{self.name} whole path, {words}"
        seconds: dict[str, dict[str, list[Cost]]] = {network: defaultdict(list), whole: defaultdict(list)}
        passed = set()
        with ExitStack() as stack:
            region = self.region(image)
            engines = self.open([subject for subject in self.subjects if subject.timed], stack)
            golden = self.package.golden().input
            for subject, engine in engines.items():
                found = verify(self.package, engine)
                passed |= {subject} if found.ok else set()
                rows += self.check_rows(subject, found)
                self.whole(engine, image, region)
            task = self.bar.add_task(f"{self.name}: rounds", total=rounds * len(engines))
            for number in range(rounds):
                turns = list(engines.items())
                for subject, engine in turns[number % len(turns) :] + turns[: number % len(turns)]:
                    time.sleep(PAUSE_SECONDS)
                    seconds[network][subject].append(timed(lambda engine=engine: engine.infer(golden)))
                    seconds[whole][subject].append(timed(lambda engine=engine: self.whole(engine, image, region)))
                    self.bar.advance(task)
        for case, each in seconds.items():
            for subject, costs in each.items():
                rows.append(row(case, subject, [cost.seconds for cost in costs], "s"))
                rows.append(row(case, f"{subject}: CPU", [cost.cpu_seconds for cost in costs], "s"))
            for words, of in {"": "seconds", ", CPU": "cpu_seconds"}.items():
                middle = {who: statistics.median(getattr(cost, of) for cost in costs) for who, costs in each.items()}
                ratios |= self.ratios(f"{case}{words}", middle, passed)

    def check_rows(self, subject: str, found: Verification) -> list[Row]:
        case = f"{self.name} golden check"
        return [
            row(case, subject, [float(found.ok)], "passed"),
            row(case, subject, [found.probability_error], "largest probability error"),
        ]

    def ratios(self, case: str, middle: dict[str, float], passed: set[str]) -> dict[str, float]:
        """How many times as fast we are as each peer that passes the check too, in our best mode and in each."""
        ours = {subject: middle[subject] for subject in WETREAD if subject in passed & set(middle)}
        best = min(ours, key=ours.__getitem__, default=None)
        if best is None:
            return {}
        peers = [subject for subject in middle if subject not in WETREAD and subject in passed]
        found = {f"{case}: OpenVINO best/{peer}": round(middle[peer] / ours[best], 2) for peer in peers}
        return found | {
            f"{case}: {mine}/{ONNX_RUNTIME}": round(middle[ONNX_RUNTIME] / value, 2) for mine, value in ours.items()
        }

    def memory(self, rows: list[Row]) -> None:
        """What a fresh process grows by with each subject."""
        timed_subjects = [subject for subject in self.subjects if subject.timed]
        task = self.bar.add_task(f"{self.name}: memory", total=len(timed_subjects))
        processes = multiprocessing.get_context("spawn")
        for subject in timed_subjects:
            with ProcessPoolExecutor(1, processes) as pool:
                grown = pool.submit(grown_by, subject.name, self.name, self.threads).result()
            if grown is not None:
                rows.append(row(f"{self.name} network", f"{subject.name}: memory", [grown], "MB"))
            self.bar.advance(task)

    def accuracy(self, data: Path, rows: list[Row], ratios: dict[str, float]) -> None:
        """The figures of the model's card with each precision of ours, and with FP16."""
        if self.name not in SETS:
            self.bar.console.print(f"{self.name}: no accuracy: there is no set of images to judge it on")
            return
        try:
            sets = SETS[self.name](data)
        except FileNotFoundError as error:
            self.bar.console.print(f"{self.name}: no accuracy: {error}")
            return
        precisions = [subject for subject in self.subjects if subject.name in WETREAD or not subject.timed]
        task = self.bar.add_task(f"{self.name}: accuracy, images", total=None)
        regions: dict[int, LabelMap | None] = {}
        found: dict[str, Mapping[str, Estimate]] = {}
        with ExitStack() as stack:
            reference = self.open_reference(stack)
            for subject in precisions:
                with ExitStack() as one:
                    for engine in self.open([subject], one).values():
                        models = OneEngine(self.package, engine, reference, regions, lambda: self.bar.advance(task))
                        found[subject.name] = figures(self.package, models, sets)
                        if not subject.timed:
                            rows += self.check_rows(subject.name, verify(self.package, engine))
        full = found[next(iter(WETREAD))]
        for subject_name, estimates in found.items():
            for metric, estimate in estimates.items():
                of, unit = f"{self.name}: {metric}", metric.split(".", 1)[1]
                if not unit.startswith(ACCURACY):
                    continue
                rows.append(row(of, subject_name, [estimate.value], unit))
                if estimates is not full and metric in full and full[metric].value:
                    ratios[f"{of}: {subject_name}/OpenVINO fp32"] = round(estimate.value / full[metric].value, 4)

    def open(self, subjects: list[Subject], stack: ExitStack) -> dict[str, Engine]:
        """Make the engines that can be had; say why the others cannot."""
        engines: dict[str, Engine] = {}
        for subject in subjects:
            made = available(subject, self.package, self.threads)
            if isinstance(made, str):
                self.bar.console.print(f"{self.name}: no {subject.name}: {made}")
                continue
            stack.callback(made.deactivate)
            engines[subject.name] = made
        return engines

    def open_reference(self, stack: ExitStack) -> dict[str, tuple[ModelPackage, Engine]]:
        """The model that this one is cropped to, in FP32."""
        wanted = self.package.input
        if wanted.crop_to is None:
            return {}
        package = self.packages[wanted.crop_to]
        engine = available(SUBJECTS[0], package, self.threads)
        if isinstance(engine, str):
            raise SystemExit(engine)
        stack.callback(engine.deactivate)
        return {package.name: (package, engine)}

    def region(self, image: Image) -> LabelMap | None:
        with ExitStack() as stack:
            for package, engine in self.open_reference(stack).values():
                return analyse(package, engine, image, clock=now).label_map
        return None

    def whole(self, engine: Engine, image: Image, region: LabelMap | None) -> Any:
        return analyse(self.package, engine, image, clock=now, region=region)


def now() -> datetime:
    return datetime.now(UTC)


def timed(work: Any) -> Cost:
    """One run, or the mean of several where one is short."""
    count, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - began) < LEAST_SECONDS:
        work()
        count += 1
    return Cost(took / count, (time.process_time() - cpu_began) / count)


def grown_by(subject_name: str, model: str, threads: int) -> float | None:
    """In a process of its own: MB from before the engine is made to after its first answer; None without engine."""
    package = load_packages(SHIPPED_MODELS)[model]
    golden = package.golden().input
    growth = Growth.begin()
    [subject] = [subject for subject in SUBJECTS if subject.name == subject_name]
    engine = available(subject, package, threads)
    if isinstance(engine, str):
        return None
    engine.infer(golden)
    return growth.peak


if __name__ == "__main__":
    main()
