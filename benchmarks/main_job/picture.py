"""The picture of docs/performance.md: where the time goes, how it varies, and what an idle timer makes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.main_job.stages import WAY, Taken
from benchmarks.main_job.subjects import NODE, TIMER
from service.ledger.records import INFER

GOAL_SECONDS = 10.0
COLOURS = ("#9aa5b1", "#5b7fa6", "#d9772b", "#2b6ca3", "#4f9d69", "#8a6bb1")
_STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "font.family": "DejaVu Sans",
}  # fmt: skip


def draw(measured: Sequence[Taken], gpu: float, path: Path) -> None:
    """Draw what was measured, and beside it what is computed: inference ``gpu`` times as fast."""
    ours, timed = (sorted_by_turnaround(measured, name) for name in (NODE, TIMER))
    middle = ours[len(ours) // 2]
    computed = {**middle.stages, INFER: middle.stages[INFER] / gpu}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.4, 4.4 if timed else 3.2), layout="constrained")
        rows = figure.subplots(3 if timed else 2, height_ratios=[1.4, 1, 1.2][: 3 if timed else 2])
        bars, dots = rows[0], rows[1]
        _stack(bars, 1, middle.stages)
        _stack(bars, 0, computed, alpha=0.45)
        bars.set_yticks([1, 0], ["measured,\nmedian round", f"computed: infer\n{gpu:g} times as fast"])
        bars.legend(bars.containers[: len(WAY)], WAY, ncols=len(WAY), fontsize=8, loc="lower center",
                    bbox_to_anchor=(0.45, 1.0), handlelength=1, columnspacing=1)  # fmt: skip
        dots.plot([one.turnaround for one in ours], [0.5] * len(ours), "|", ms=16, color=COLOURS[3])
        dots.set_yticks([0.5], [f"{len(ours)} rounds"])
        dots.set_ylim(0, 1)
        dots.set_xlabel("seconds from the last C-STORE response to all results committed in the archive")
        end = max(GOAL_SECONDS, ours[-1].turnaround) * 1.08
        for axes in (bars, dots):
            axes.set_xlim(0, end)
            axes.axvline(GOAL_SECONDS, color="#b03030", lw=1, ls=":")
        dots.text(GOAL_SECONDS, 0.95, " goal", color="#b03030", fontsize=8, va="top")
        if timed:
            _stack(rows[2], 1, middle.stages)
            _stack(rows[2], 0, timed[len(timed) // 2].stages)
            rows[2].set_yticks([1, 0], ["the node", "the same behind an\nidle timer of 60 s"])
            rows[2].set_xlabel("seconds")
        figure.savefig(path, dpi=130, metadata={"Software": None})


def sorted_by_turnaround(measured: Sequence[Taken], name: str) -> list[Taken]:
    """Those of one subject, the quickest first."""
    return sorted((one for one in measured if one.subject == name), key=lambda one: one.turnaround)


def _stack(axes: Axes, at: float, stages: Mapping[str, float], alpha: float = 1.0) -> None:
    left = 0.0
    for stage, colour in zip(WAY, COLOURS, strict=True):
        axes.barh(at, stages[stage], left=left, height=0.7, color=colour, alpha=alpha)
        if stages[stage] > 1.0:
            axes.text(left + stages[stage] / 2, at, f"{stages[stage]:.1f}", ha="center", va="center", fontsize=8)
        left += stages[stage]
