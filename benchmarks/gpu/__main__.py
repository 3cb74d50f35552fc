"""Every step on the GPU, one after the other, each in a process of its own that is ended when its time is up.

What a step has found until then stays; what one step does never stops the next. Ends with ``OUT/gpu.json`` and
``OUT/gpu.md``. With ``--device cpu --tiny`` it only shows that the scripts run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.table import markdown

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Planned:
    """A step: its record's name, how long it may take, and what is run."""

    name: str
    seconds: float
    command: tuple[str, ...]


def step(module: str, seconds: float, *options: str, name: str | None = None) -> Planned:
    command = ("-m", f"benchmarks.gpu.{module}", "--seconds", f"{seconds:.0f}", *options)
    return Planned(name or module, seconds, command)


def tests(name: str, seconds: float, path: str) -> Planned:
    """Tests that end by themselves before they are ended, so that the log tells what failed."""
    options = ("--noconftest", "-p", "no:cacheprovider", "--tb=short", "--durations=10")
    limit = f"--session-timeout={seconds - 10:.0f}"
    return Planned(name, seconds, ("-m", "pytest", "-v", *options, limit, path))


# In the order of what must be known first: if the time is up, the last are missing.
STEPS = (
    step("facts", 30),
    step("probe", 60),
    tests("tests-engines", 60, "tests/gpu/test_engines.py"),
    tests("tests-device-path", 75, "tests/gpu/test_device_path.py"),
    step("models", 130, "--model", "ct-lung", name="model-ct-lung"),
    step("models", 110, "--model", "nnunet", name="model-nnunet"),
    step("models", 60, "--model", "ct-nodule", name="model-ct-nodule"),
    step("models", 30, "--model", "cxr-lung", name="model-cxr-lung"),
    step("models", 30, "--model", "cxr-pneumonia", name="model-cxr-pneumonia"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-out"))
    parser.add_argument("--seconds", type=float, default=460.0, help="for all steps together")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", action="append", help="a step; may be given more than once")
    options = parser.parse_args()
    out = options.out.resolve()
    (out / "steps").mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + options.seconds
    ran: dict[str, dict[str, Any]] = {}
    chosen = [planned for planned in STEPS if options.only is None or planned.name in options.only]
    for planned in chosen:
        seconds = min(planned.seconds, ends - time.monotonic())
        ran[planned.name] = run(planned, seconds, out, options) if seconds > 5 else {"ended": "no time was left"}
        write(out, ran)
    print((out / "gpu.md").read_text())


def run(planned: Planned, seconds: float, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a step in a process group of its own, so that all of it can be ended."""
    command = [sys.executable, *planned.command]
    if "benchmarks" in planned.command[1]:
        command += ["--out", str(out / "steps"), "--device", options.device, *(["--tiny"] if options.tiny else [])]
    began = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    print(f"{planned.name}: at most {seconds:.0f} s", flush=True)
    with (out / "steps" / f"{planned.name}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            ended = "finished" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = f"ended after {seconds:.0f} s"
    tail = (out / "steps" / f"{planned.name}.log").read_text(errors="replace")[-1500:]
    took = round(time.monotonic() - began, 1)
    print(f"{planned.name}: {ended}, {took} s", flush=True)
    return {"ended": ended, "seconds": took, "tail": tail}


def write(out: Path, ran: dict[str, dict[str, Any]]) -> None:
    """Put all records into one file, and the figures into one table."""
    records = {}
    for name in ran:
        file = out / "steps" / f"{name}.json"
        records[name] = json.loads(file.read_text()) if file.is_file() else {}
    whole = {"steps": ran, "records": records}
    (out / "gpu.json").write_text(json.dumps(whole, indent=1))
    (out / "gpu.md").write_text(markdown(whole))


if __name__ == "__main__":
    main()
