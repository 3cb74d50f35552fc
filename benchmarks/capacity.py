"""What one machine, a hospital, a region need: a day of studies, simulated with measured costs (docs/scale.md).

All figures come from one file, `benchmarks/capacity.toml`; put in your own. First it is reckoned what each part has to
do in the busiest hour, then days are played, with machines and archives that are away. Nothing is measured here.
"""

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.report import Row, row, tell
from benchmarks.scaling.inputs import HOURS, POOL, Inputs, Scenario, load
from benchmarks.scaling.simulation import HOUR, Day, Simulation

HERE = Path(__file__).resolve().parent
LOADS = (0.5, 1, 2, 3, 4, 5, 6, 6.5, 7, 7.5, 8, 9)
"""Of the scenario ``machine``, for the picture that shows where it breaks."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench capacity", description=__doc__)
    parser.add_argument("--inputs", type=Path, default=HERE / "capacity.toml")
    parser.add_argument("--only", action="append", default=[], help="this scenario alone; may be given several times")
    parser.add_argument("--rounds", type=int, default=3, help="days of each scenario, each with another seed")
    parser.add_argument("--pictures", type=Path, help="write the pictures of docs/scale.md into this folder")
    parser.add_argument("--markdown", action="store_true", help="end with the tables of docs/scale.md")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    inputs = load(options.inputs)
    chosen = {name: each for name, each in inputs.scenarios.items() if not options.only or name in options.only}
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    table: list[str] = []
    with ProcessPoolExecutor(2) as processes:
        for name, scenario in chosen.items():
            share = busy(inputs, scenario)
            ratios |= {f"{name}: {part}, busiest hour": round(value, 2) for part, value in share.items()}
            seeds = range(1, options.rounds + 1)
            days = list(processes.map(play, [inputs] * len(seeds), [scenario] * len(seeds), seeds))
            rows += rows_of(name, days)
            table.append(line(scenario, days, share))
        if options.pictures:
            from benchmarks.scaling import pictures

            one = inputs.scenarios["machine"]
            count = len(LOADS)
            played = list(processes.map(play, [inputs] * count, [one] * count, [1] * count, LOADS))
            studies = [each * one.studies_per_day for each in LOADS]
            pictures.loads(studies, played, options.pictures / "scale-loads.svg")
            bad = inputs.scenarios["hospital-bad-day"]
            pictures.day(play(inputs, bad, 1), bad, options.pictures / "scale-day.svg")
    if options.markdown:
        print("\n".join([*HEAD, *table, "", *needs(inputs)]))
    tell("capacity", options.rounds, rows, ratios, options.json)


def play(inputs: Inputs, scenario: Scenario, seed: int, load: float = 1.0) -> Day:
    return Simulation(inputs, scenario, seed, load).run()


# ---- reckoned -------------------------------------------------------------------------------------------------------


def per_study(inputs: Inputs) -> dict[str, float]:
    """What an average study asks of each part: core-seconds of pools, megabytes, syncs, transitions, objects."""
    asks = dict.fromkeys(("receive", "prepare", "infer", "deliver", "spool MB", "syncs", "transitions", "objects"), 0.0)
    for kind in inputs.kinds.values():
        items, slices = kind.share * kind.items, kind.slices.mean
        for stage, cost in kind.costs.items():
            asks[POOL[stage]] += items * cost.mean(slices)
        received = slices * kind.slice_mb
        # results: written, read by their check, and to be sent
        asks["spool MB"] += items * (inputs.limits.spool_passes * received + 3 * kind.result_mb)
        asks["syncs"] += items * (slices + kind.objects)
        jobs = 2 + 4 * kind.models  # receive, assemble; infer, encode, deliver, commit of each model
        asks["transitions"] += items * jobs * inputs.limits.transitions_per_job
        asks["objects"] += items * kind.objects
    return asks


def slots(inputs: Inputs, scenario: Scenario) -> dict[str, int]:
    """How many there are of each pool."""
    found = dict.fromkeys(("receive", "prepare", "infer"), 0)
    for group, count in scenario.machines.items():
        for pool, each in inputs.machines[group].slots.items():
            found[pool] += each * count
    return found | {"deliver": inputs.associations_per_archive * scenario.archives}


def busy(inputs: Inputs, scenario: Scenario) -> dict[str, float]:
    """How much of each part the busiest hour takes; more than 1 is more than there is."""
    rate = scenario.studies_per_day / (HOURS * HOUR) * inputs.peak
    asks, there, limits = per_study(inputs), slots(inputs, scenario), inputs.limits
    found = {pool: rate * asks[pool] / count for pool, count in there.items()}
    return found | {
        "ledger": rate * asks["transitions"] / limits.ledger_transitions,
        "spool": rate * asks["spool MB"] / limits.spool_mb,
        "syncs": rate * asks["syncs"] / limits.spool_syncs,
        "archive": rate * asks["objects"] / limits.archive_objects / scenario.archives,
    }


def needs(inputs: Inputs) -> list[str]:
    """What so many studies a day need, part by part, and how many cells that is."""
    limits, asks = inputs.limits, per_study(inputs)
    lines = ["| studies a day | " + " | ".join(f"{name}" for name in NEEDS) + " |", "|--:|" + "--:|" * len(NEEDS)]
    for studies in (1_000, 10_000, 50_000, 200_000, 1_000_000, 10_000_000):
        rate = studies / (HOURS * HOUR) * inputs.peak
        planned = {pool: math.ceil(rate * asks[pool] / limits.planned) for pool in ("receive", "prepare", "infer")}
        asked = rate * asks["transitions"], rate * asks["spool MB"], rate * asks["syncs"]
        offered = limits.ledger_transitions, limits.spool_mb, limits.spool_syncs
        cells = max(math.ceil(each / there / limits.planned) for each, there in zip(asked, offered, strict=True))
        stored = studies * sum(
            kind.share * kind.items * kind.slices.mean * kind.slice_mb for kind in inputs.kinds.values()
        )
        cells_ = [
            f"{rate:.3f}" if rate < 0.1 else f"{rate:,.2g}" if rate < 10 else f"{rate:,.0f}",
            *(f"{each:,}" for each in planned.values()),
            f"{asked[0]:,.0f}",
            f"{asked[1]:,.0f}",
        ]
        lines.append(
            f"| {studies:,} | " + " | ".join([*cells_, f"{asked[2]:,.0f}", f"{stored / 1e6:,.1f}", f"{cells:,}"]) + " |"
        )
    return lines


NEEDS = (
    "studies/s, busiest hour", "cores: receive", "prepare", "infer", "transitions/s", "spool MB/s", "syncs/s",
    "TB kept for a day", "cells",
)  # fmt: skip


# ---- played ---------------------------------------------------------------------------------------------------------


def part(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def rows_of(name: str, days: Sequence[Day]) -> list[Row]:
    rows = []
    for subject, times in turnarounds(days).items():
        for share, word in ((0.5, "median"), (0.95, "95 %"), (1.0, "longest")):
            rows.append(row(f"{name}, {word}", subject, [part(each, share) for each in times], "s from last image"))
    rows.append(row(name, "images", [day.images for day in days], "a day"))
    rows.append(row(name, "done again", [day.lost for day in days], "a day"))
    rows.append(row(name, "at work at most", [most_at_work(day) for day in days], "images"))
    rows.append(row(name, "kept for an archive at most", [most_kept(day) for day in days], "images"))
    return rows


def turnarounds(days: Sequence[Day]) -> dict[str, list[list[float]]]:
    """By kind of image, one ordered list a day."""
    kinds = {kind: [sorted(day.turnaround[kind]) for day in days] for kind in days[0].turnaround}
    return {**kinds, "urgent": [sorted(day.urgent) for day in days]}


def most_at_work(day: Day) -> int:
    return max(work for _, work, _ in day.looks)


def most_kept(day: Day) -> int:
    return max(kept for _, _, kept in day.looks)


def caught_up(day: Day, scenario: Scenario) -> str:
    """Minutes from an archive's return until all is delivered that had waited for it."""
    back = max((event.at_hour + event.hours for event in scenario.events if event.what == "archive"), default=0.0)
    return f"{(day.caught_up - back) * 60:.0f}" if back else ""


HEAD = (
    "| | studies a day | machines | busiest part | CT: median, 95 %, s | X-ray | urgent | at work at once | "
    "kept for archives | caught up, min |",
    "|---|--:|---|---|--:|--:|--:|--:|--:|--:|",
)


def line(scenario: Scenario, days: Sequence[Day], share: dict[str, float]) -> str:
    """One row of the table of docs/scale.md: the middle one of the days."""
    middle = sorted(days, key=most_at_work)[len(days) // 2]
    times = [sorted(each) for each in (*middle.turnaround.values(), middle.urgent)]
    busiest = max(share, key=lambda name: share[name])
    cells = [scenario.title, f"{scenario.studies_per_day:,.0f}"]
    cells.append(", ".join(f"{count} {group}" for group, count in scenario.machines.items()))
    cells.append(f"{busiest} {share[busiest]:.0%}")
    cells += [f"{part(each, 0.5):,.0f}, {part(each, 0.95):,.0f}" for each in times]
    cells += [f"{most_at_work(middle):,}", f"{most_kept(middle):,}", caught_up(middle, scenario)]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
