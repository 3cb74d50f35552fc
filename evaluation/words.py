"""How figures are said: words for the names of metrics, numbers with their interval."""

import re
from math import isfinite, isnan

from evaluation.estimate import Estimate

SPELLED = {
    "auc": "AUC", "ppv": "PPV", "npv": "NPV", "f1": "F1", "ece": "ECE", "iou": "IoU", "dice": "Dice", "froc": "FROC",
    "mae": "MAE", "mse": "MSE", "hausdorff95": "Hausdorff 95 %", "ml2": "(mL²)", "ml": "(mL)", "mm": "(mm)",
    "px": "(pixels)",
}  # fmt: skip
SIZE = re.compile(r"_(below|from)_(\d+)_mm$")
"""The lesions that a metric is about."""
UNITS = re.compile(r"_(mm|ml2|ml|px)(?=_|$)")
"""Parts of a metric's name that say that it is no number from 0 to 1."""


def in_words(metric: str) -> str:
    """Give the words for a metric: ``auc_viral_vs_normal`` is "AUC viral vs normal"."""
    size = SIZE.search(metric)
    said = " ".join(SPELLED.get(part, part) for part in SIZE.sub("", metric).split("_"))
    return said[:1].upper() + said[1:] + (f", {size[1]} {size[2]} mm" if size else "")


def is_share(metric: str, estimate: Estimate) -> bool:
    """Tell whether a metric lies between 0 and 1, so that it can be drawn beside others."""
    return not UNITS.search(SIZE.sub("", metric)) and isfinite(estimate.value) and 0 <= estimate.value <= 1


def number(value: float) -> str:
    """Give three digits after the point, fewer of large numbers; a dash where there is none."""
    if isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def interval(estimate: Estimate) -> str:
    """Give the 95 % interval; empty where there is none."""
    if isnan(estimate.low) or isnan(estimate.high):
        return ""
    return f"{number(estimate.low)} to {number(estimate.high)}"


def told(estimate: Estimate) -> str:
    """Give a figure with its interval: ``0.912 (0.880 to 0.941)``."""
    within = interval(estimate)
    return f"{number(estimate.value)} ({within})" if within else number(estimate.value)
