"""Run the campaign: one line of JSON for each seed in FOLDER/runs.jsonl, and a summary at the end.

A seed that has its line is not run again; ``--fresh`` begins anew. What a run with findings has left stays in
FOLDER/seed-N for a look.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import gettempdir

from service.operate.progress import progress
from tests.faults.campaign.catalogue import ALL, FAULTS
from tests.faults.campaign.many import LINES, Line, run_all
from tests.faults.campaign.summary import summary, told


def seeds_of(words: str) -> list[int]:
    """``0-329``, ``7`` or ``1,5,9-12``."""
    seeds: list[int] = []
    for word in words.split(","):
        first, _, last = word.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def main() -> int:
    """Run; the exit code is 1 where anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", default="0-329", help="0-329 (default), 7, or 1,5,9-12")
    parser.add_argument("--only", choices=sorted(ALL), action="append", help="this fault alone; may be repeated")
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "wetread-campaign")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that the folder has")
    parser.add_argument("--jobs", type=int, default=2, help="so many runs at a time (default: 2)")
    parser.add_argument("--lock", type=Path, help="lock this file (shared) during each run")
    parser.add_argument("--json", action="store_true", help="nothing but the summary, in one line")
    asked = parser.parse_args()
    if asked.fresh:
        (asked.folder / LINES).unlink(missing_ok=True)
    names = asked.only or list(FAULTS)
    plan = [(seed, names[seed % len(names)]) for seed in seeds_of(asked.seeds)]
    with progress(asked.json) as watch:
        done = 0

        def tell(line: Line) -> None:
            nonlocal done
            done += 1
            watch(f"seed {line['seed']}: {line['fault']}", done, len(plan))
            if not asked.json and not line["ok"]:
                print(f"seed {line['seed']}, {line['fault']}: {line.get('error') or line.get('findings')}", flush=True)

        lines = run_all(plan, asked.folder, asked.jobs, asked.lock, tell)
    print(json.dumps(summary(lines)) if asked.json else told(lines))
    return 0 if all(line["ok"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
