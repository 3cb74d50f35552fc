"""How soon after its last image a series starts, and how often too soon: evidence against timers of 5 s and 60 s.

Simulated senders and archives (`tests/scanner.py`, `tests/simulated_node.py`) on a virtual clock; the watcher and the
ledger are the real ones, the spool is a list of names. The timers run from a series' last arrival, as those of other
open nodes do, on the same traffic.
"""

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from benchmarks.report import Row, row, tell
from tests.scanner import HABITS, Sent
from tests.simulated_node import ARCHIVES, play

TIMERS = (5.0, 60.0)
WETREAD = "wetread"
Started = Callable[[Sent], tuple[bool, float]]
"""Whether a series was started early, and seconds from its last image to the start with all of them."""

POLICIES: dict[str, Started] = {
    WETREAD: lambda series: (series.early > 0, series.delay),
    **{f"timer {seconds:.0f} s": lambda series, seconds=seconds: series.by_timer(seconds) for seconds in TIMERS},  # type: ignore[misc]
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench completeness", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="each with other seeds")
    parser.add_argument("--studies", type=int, default=2000, help="in each round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", action="store_true", help="end with the tables of docs/completeness.md")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    each = options.studies / (len(ARCHIVES) * sum(habit.weight for habit in HABITS))
    sent: dict[tuple[str, str], list[Sent]] = {}
    studies = 0
    for round_ in range(options.rounds):
        for habit in HABITS:
            for archive in ARCHIVES:
                count = math.ceil(each * habit.weight)
                studies += count
                sent.setdefault((habit.name, archive), []).extend(play(habit, archive, count, options.seed + round_))
    every = [series for some in sent.values() for series in some]
    cases = {
        "evidence": [series for series in every if series.evidence],
        "silence alone": [series for series in every if not series.evidence],
    }
    rows: list[Row] = []
    ratios: dict[str, float] = {"studies": studies, "series": len(every)}
    for case, some in cases.items():
        for policy, started in POLICIES.items():
            told = [started(series) for series in some]
            delays = sorted(delay for _, delay in told)
            early = sum(early for early, _ in told)
            rows += [
                row(case, policy, delays, "s from last image"),
                row(f"{case}, 95 %", policy, [percentile(delays, 0.95)], "s from last image"),
                row(f"{case}, started early", policy, [early], f"of {len(some)} series"),
            ]
            if policy != WETREAD:
                ratios[f"{case}: {policy} / {WETREAD}"] = round(median(delays) / median(our(some)), 2)
    ratios["early, not superseded"] = sum(series.decisions[-1][1] != len(series.came) for series in every)
    if options.markdown:
        print("\n".join(markdown(sent)))
    tell("completeness", options.rounds, rows, ratios, options.json)


def our(some: Sequence[Sent]) -> list[float]:
    return sorted(series.delay for series in some)


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[math.ceil(part * len(ordered)) - 1]


def markdown(sent: dict[tuple[str, str], list[Sent]]) -> list[str]:
    """One line for each habit and archive."""
    lines = ["| sender | archive | series | early | partial | median s | 95 % s | max s | early by 5 s | by 60 s |"]
    lines.append("|---|---|" + "--:|" * 8)
    for (habit, archive), some in sent.items():
        delays = our(some)
        cells: list[Any] = [habit, archive, len(some), sum(series.early > 0 for series in some)]
        cells.append(sum(series.decisions[-1][2].partial for series in some))
        cells += [f"{value:.1f}" for value in (median(delays), percentile(delays, 0.95), delays[-1])]
        cells += [sum(series.by_timer(seconds)[0] for series in some) for seconds in TIMERS]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


if __name__ == "__main__":
    main()
