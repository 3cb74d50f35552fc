"""The pictures of docs/scale.md."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.scaling.inputs import HOURS, Scenario
from benchmarks.scaling.simulation import Day

_STYLE = {
    "font.size": 9, "svg.hashsalt": "wetread", "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "font.family": "DejaVu Sans",
}  # fmt: skip
_BLUE, _ORANGE, _GREY = "#2b6ca3", "#d9772b", "#8a8a8a"


def loads(studies: Sequence[float], days: Sequence[Day], path: Path) -> None:
    """How long images take on one machine, by studies a day."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for kind, colour, name in (("ct", _BLUE, "CT"), ("xray", _ORANGE, "X-ray"), ("urgent", _GREY, "urgent ones")):
            times = [sorted(day.urgent if kind == "urgent" else day.turnaround[kind]) for day in days]
            axes.plot(studies, [_part(each, 0.5) for each in times], "-o", ms=3, color=colour, label=f"{name}, median")
            axes.plot(studies, [_part(each, 0.95) for each in times], ":", color=colour, label=f"{name}, 95 %")
        axes.set_yscale("log")
        axes.set_yticks([1, 10, 60, 600, 3600], ["1 s", "10 s", "1 min", "10 min", "1 h"])
        axes.minorticks_off()
        axes.set_xlabel("studies a day on one machine of four cores")
        axes.set_ylabel("last image to delivered")
        axes.grid(axis="y", color="#e4e4e4")
        axes.legend(fontsize=8, ncols=3, loc="upper left")
        _save(figure, path)


def day(played: Day, scenario: Scenario, path: Path) -> None:
    """What is at work, and what waits for an archive, over a day on which things go wrong."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        hours = [hour for hour, _, _ in played.looks]
        above.plot(hours, [work for _, work, _ in played.looks], color=_BLUE, lw=0.9)
        above.set_ylabel("images\nat work")
        below.fill_between(hours, [kept for _, _, kept in played.looks], color=_ORANGE, lw=0, zorder=2)
        below.set_ylabel("images kept\nfor the archive")
        below.set_xlabel("hour of the day")
        for event in scenario.events:
            axes = below if event.what == "archive" else above
            colour = "#eeeeee" if event.planned else "#f9e4d6"
            axes.axvspan(event.at_hour, event.at_hour + event.hours, color=colour, lw=0, zorder=0)
        for axes in (above, below):
            axes.set_xlim(0, HOURS)
            axes.set_xticks(range(0, HOURS + 1, 3))
            axes.set_ylim(bottom=0)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        figure.savefig(path, metadata={"Date": None})


def _part(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
