"""What the steps share: a deadline, a record that is written as it grows, and interleaved timing."""

import argparse
import json
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Work = Callable[[], object]

MOST_SECONDS = 12.0
"""A subject that has taken so long in all of its turns has no further ones."""


class Step:
    """One step's record, ``OUT/NAME.json``: kept whole on disk after every entry, whatever happens next."""

    def __init__(self, name: str, out: Path, seconds: float) -> None:
        self.name, self._file = name, out / f"{name}.json"
        self._ends = time.monotonic() + seconds
        self.record: dict[str, Any] = {"errors": {}}
        out.mkdir(parents=True, exist_ok=True)
        self.save()

    @property
    def remaining(self) -> float:
        """Seconds until this step will be ended."""
        return self._ends - time.monotonic()

    def note(self, **entries: Any) -> None:
        self.record |= entries
        self.save()

    def save(self) -> None:
        whole = self._file.with_suffix(".part")
        whole.write_text(json.dumps(self.record, indent=1, default=str))
        whole.replace(self._file)

    @contextmanager
    def trying(self, what: str) -> Any:
        """Record an error and go on: what fails here never stops what comes after."""
        try:
            yield
        except Exception as error:
            lines = traceback.format_exception(error)
            self.record["errors"][what] = {"error": f"{type(error).__name__}: {error}"[:2000], "where": lines[-2][:500]}
            print(f"{self.name}: {what} failed: {error}", flush=True)
            self.save()


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every step has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("gpu-out"))
    parser.add_argument("--seconds", type=float, default=120.0, help="after which the step will be ended")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: only to try the script")
    parser.add_argument("--tiny", action="store_true", help="hardly any work, to try the script")
    parser.add_argument("--rounds", type=int, default=7)
    return parser


def gpu_is_there() -> bool:
    """Whether PyTorch sees a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def interleaved(subjects: Mapping[str, Work], rounds: int, step: Step, case: str, device: str) -> None:
    """Time each subject in turn, round by round, and record medians, extremes and GPU memory.

    ``wall_ms`` is until the answer is there (the device is synchronised); ``gpu_ms`` is between two CUDA events on
    PyTorch's stream; what runs on other streams is not between them. ``peak_mb`` is from one more run.
    """
    wall: dict[str, list[float]] = {name: [] for name in subjects}
    events: dict[str, list[float]] = {name: [] for name in subjects}
    alive = dict(subjects)
    for _ in range(rounds):
        for name, work in list(alive.items()):
            if step.remaining < 5:
                break
            if sum(wall[name]) > MOST_SECONDS * 1e3:
                continue
            try:
                took, between = once(work, device)
            except Exception as error:
                step.record["errors"][f"{case}: {name}"] = {"error": f"{type(error).__name__}: {error}"[:2000]}
                del alive[name]
                continue
            wall[name].append(took)
            events[name].append(between)
    for name, values in wall.items():
        if values:
            step.record.setdefault("cases", {}).setdefault(case, {})[name] = {
                "wall_ms": summary(values),
                "gpu_ms": summary(events[name]) if device == "cuda" else None,
                "peak_mb": peak_mb(alive[name]) if device == "cuda" and name in alive else None,
                "rounds": len(values),
            }
    step.save()


def once(work: Work, device: str) -> tuple[float, float]:
    """Wall-clock ms, and ms between CUDA events."""
    if device == "cpu":
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e3, 0.0
    import torch

    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    began = time.perf_counter()
    first.record()
    answer = work()
    last.record()
    torch.cuda.synchronize()
    took = (time.perf_counter() - began) * 1e3
    del answer
    return took, first.elapsed_time(last)


def peak_mb(work: Work) -> float:
    """By how much the free memory of the GPU falls at most while this runs, weights and caches of before not counted.

    Looked at every millisecond, so that it is the same measure for every library.
    """
    import torch

    torch.cuda.empty_cache()
    before = least = torch.cuda.mem_get_info()[0]
    done = threading.Event()

    def look() -> None:
        nonlocal least
        while not done.wait(0.001):
            least = min(least, torch.cuda.mem_get_info()[0])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        work()
        torch.cuda.synchronize()
        least = min(least, torch.cuda.mem_get_info()[0])
    finally:
        done.set()
        looking.join()
    return round((before - least) / 1e6, 1)


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }
