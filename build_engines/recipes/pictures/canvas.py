"""What all pictures share: panels without axes, outlines and boxes in fixed colours, and small files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCE, ANSWER = "lime", "red"

COLOURS = 128
"""Of a file: few enough for a small one."""


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Any, NDArray[Any]]:
    """Open a black figure of ``rows`` × ``columns`` panels, each of a size in inches; no display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), facecolor="black", layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    return figure, axes


def outline(axis: Any, mask: NDArray[np.bool_], colour: str) -> None:
    """Draw the border of a mask ``[row, column]``; nothing of an empty one."""
    if mask.any():
        axis.contour(mask, [0.5], colors=colour, linewidths=0.8)


def box(axis: Any, low: NDArray[np.float64], high: NDArray[np.float64], colour: str) -> None:
    """Draw a box from its low to its high corner, each row and column."""
    from matplotlib.patches import Rectangle

    rows, columns = high - low
    axis.add_patch(Rectangle((low[1], low[0]), columns, rows, fill=False, edgecolor=colour))


def title(axis: Any, text: str) -> None:
    """Write above a panel."""
    axis.set_title(text, color="white", fontsize=7, pad=2)


def save(figure: Any, file: Path, source: str) -> None:
    """Write a figure with the source of its images and the colours as a PNG of few colours."""
    from PIL import Image

    words = f"{source}; reference {REFERENCE}, answer {ANSWER}"
    figure.supxlabel(words, color="white", fontsize=8, x=0.01, ha="left")
    figure.savefig(file, dpi=110, facecolor="black")
    picture = Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(file, optimize=True)
