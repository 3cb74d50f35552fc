"""How long the main job takes, stage by stage: `wetread demo` on its phantoms, or on a study of yours.

It has no peer yet: none of the open nodes does the whole job in one installation.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.report import row, tell


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench turnaround", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--study", type=Path, help="a folder of DICOM instead of the phantoms")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for stage, value in demo(options.study).items():
            seconds[stage].append(value)
    case = "phantom CT and X-ray" if options.study is None else "study"
    rows = [row(case, stage, values, "s") for stage, values in seconds.items()]
    tell("turnaround", options.rounds, rows, {}, options.json)


def demo(study: Path | None) -> dict[str, float]:
    """Seconds of each stage, summed over the series and models of the study; all of them as ``all stages``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "service.cli", "demo", "--json", "--out", folder]
        command += [] if study is None else ["--study", str(study)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    stages: dict[str, float] = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return {**stages, "all stages": sum(stages.values())}


if __name__ == "__main__":
    main()
