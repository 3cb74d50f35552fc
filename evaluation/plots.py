"""The pictures of a report that are no images: figures with intervals, curves. Each is an SVG."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from evaluation.estimate import Estimate
from evaluation.judgement import Curve
from evaluation.words import in_words, number

INK, GREY, PAPER = "#1b2733", "#8a97a3", "#ffffff"
COLOURS = ("#1f6f8b", "#c8553d", "#5b8c5a", "#8b5fbf", "#d9a441", "#3d5a80", "#a23b72", "#6b705c")
FALSE_POSITIVES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
"""Of a FROC curve, per scan (Setio et al., Medical Image Analysis 42, 2017)."""
AGAINST_REST = "vs rest"
MOST_LINES = 8
"""Of one picture."""


def forest(metrics: Mapping[str, Estimate]) -> bytes:
    """Draw figures between 0 and 1 with their intervals, one below the other."""
    with style():
        return _forest(metrics)


def curves(of_one_kind: Sequence[Curve]) -> bytes:
    """Draw curves that share their axes into one picture."""
    with style():
        return _curves(of_one_kind)


@contextmanager
def style() -> Iterator[None]:
    """Draw so that the same figures give the same bytes, and no word is markup: text becomes outlines."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "wetread", "text.parse_math": False}):
        yield


def _forest(metrics: Mapping[str, Estimate]) -> bytes:
    figure, axes = _axes(6.4, 0.55 + 0.27 * len(metrics))
    for place, estimate in enumerate(reversed(tuple(metrics.values()))):
        if np.isfinite(estimate.low) and np.isfinite(estimate.high):
            axes.plot([estimate.low, estimate.high], [place, place], color=COLOURS[0], linewidth=2.2, alpha=0.45)
        axes.plot(estimate.value, place, "o", color=COLOURS[0], markersize=5, clip_on=False)
        axes.annotate(
            number(estimate.value),
            (1.03, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(range(len(metrics)), [in_words(name) for name in reversed(tuple(metrics))])
    least = min((each.low if np.isfinite(each.low) else each.value) for each in metrics.values())
    axes.set_xlim(0 if least < 0.45 else 0.4, 1.005)
    axes.set_ylim(-0.6, len(metrics) - 0.4)
    axes.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
    return _svg(figure)


def _curves(of_one_kind: Sequence[Curve]) -> bytes:
    figure, axes = _axes(3.35, 3.2)
    first = of_one_kind[0]
    log = "false positives" in first.x.lower()
    for curve, colour in zip(of_one_kind[:MOST_LINES], COLOURS, strict=False):
        points = np.array(curve.points, float).reshape(-1, 2)
        x = np.maximum(points[:, 0], FALSE_POSITIVES[0] / 2) if log else points[:, 0]
        style = "o-" if len(points) <= 20 and not log else "-"
        axes.plot(x, points[:, 1], style, color=colour, linewidth=1.6, markersize=3.5, label=curve.title)
        for words, (mark_x, mark_y) in curve.marks.items():
            axes.plot(mark_x, mark_y, "D", color=colour, markeredgecolor=PAPER, markersize=6.5)
            axes.annotate(words, (mark_x, mark_y), xytext=(6, -10), textcoords="offset points", fontsize=7, color=INK)
    if any(word in first.title.lower() for word in ("roc", "reliability", "calibration")) and not log:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    if log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(FALSE_POSITIVES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.set_xlim(FALSE_POSITIVES[0] / 1.2, FALSE_POSITIVES[-1] * 1.2)
    else:
        axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(first.x)
    axes.set_ylabel(first.y)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.legend(fontsize=6.5, frameon=False, loc="best")
    return _svg(figure)


def kinds(found: Sequence[Curve]) -> list[tuple[Curve, ...]]:
    """Put together the curves that share their axes, in order; one class against the rest is a picture of its own."""
    alike: dict[tuple[str, str, bool], tuple[Curve, ...]] = {}
    for curve in found:
        if curve.points:
            key = curve.x, curve.y, curve.title.endswith(AGAINST_REST)
            alike[key] = (*alike.get(key, ()), curve)
    return list(alike.values())


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8, colors=INK, length=2.5)
    axes.xaxis.label.set(size=8.5, color=INK)
    axes.yaxis.label.set(size=8.5, color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    return figure, axes


def _svg(figure: Any) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()
