"""``python -m build_engines.recipes.ladder.nodule_pictures DATA``: held-out nodules with outlines and boxes.

Writes ``docs/pictures/ladder-nodules.png`` with what the trained rows of the tables say; a row that was not trained yet
is left out. LIDC-IDRI is under CC BY 3.0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from build_engines.recipes.data.nodules import LIDC_WINDOW, NodulePatch, read_lidc
from build_engines.recipes.ladder.nodule_detector import PLACES, SCORES, find
from build_engines.recipes.ladder.nodule_slices import SIZE, Tile, cut, of_patch
from build_engines.recipes.ladder.unpackaged import KEPT, compiled
from build_engines.recipes.networks.centre2d import Centre2d
from build_engines.recipes.networks.faster_rcnn import FasterRcnn
from build_engines.recipes.networks.pyramid import Detector
from build_engines.recipes.networks.ssd import Ssd
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines

OUTLINE = "nodule-outline-unet"
DETECTORS: Mapping[str, tuple[type[Detector], str]] = {
    "nodule-ssd": (Ssd, "deepskyblue"),
    "nodule-centre2d": (Centre2d, "orange"),
    "nodule-faster-rcnn": (FasterRcnn, "magenta"),
}
REFERENCE, ANSWER = "lime", "red"
SHOWN = 8
"""Every other one of the held-out nodules, as they come."""

LEAST = 0.3
"""Score from which a box is shown."""


def run(data: Annotated[Path, typer.Argument(help="Folder with the data.")]) -> None:
    """Draw the picture."""
    import matplotlib.pyplot as plt

    patches = read_lidc(data, held_out=True)[: 2 * SHOWN : 2]
    figure, axes = plt.subplots(2, SHOWN, figsize=(2 * SHOWN, 4.6), facecolor="black")
    for axis, patch, mask in zip(axes[0], patches, outlines(patches), strict=True):
        middle = round(float(np.argwhere(patch.mask)[:, 0].mean()))
        axis.imshow(patch.image[middle], cmap="gray", vmin=LIDC_WINDOW[0], vmax=LIDC_WINDOW[1])
        for outline, colour in ((patch.mask, REFERENCE), (mask, ANSWER)):
            if outline[middle].any():
                axis.contour(outline[middle], [0.5], colors=colour, linewidths=1)
        axis.set_title(f"{patch.diameter_mm:.0f} mm", color="white", fontsize=9)
    tiles = [cut(scan, scan.nodules[0].centre + np.array([0, 6, -6]), np.eye(3)) for scan in map(of_patch, patches)]
    for axis, tile in zip(axes[1], tiles, strict=True):
        axis.imshow(tile.image[1], cmap="gray", vmin=0, vmax=1, extent=(0, SIZE, SIZE, 0))
        for box in tile.boxes.tolist():
            axis.add_patch(rectangle(box, REFERENCE))
    words = [f"reference {REFERENCE}", f"U-Net {ANSWER}"]
    for name, (network, colour) in DETECTORS.items():
        if (KEPT / f"{name}.pt").exists():
            words.append(f"{network.__name__} {colour}")
            for axis, boxes in zip(axes[1], boxes_of(name, network, tiles), strict=True):
                for box in boxes:
                    axis.add_patch(rectangle(box, colour))
    for axis in axes.ravel():
        axis.axis("off")
    figure.text(0.01, 0.01, f"LIDC-IDRI, CC BY 3.0; {', '.join(words)}", color="white", fontsize=9)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(Path(__file__).resolve().parents[3] / "docs" / "pictures" / "ladder-nodules.png", dpi=60)


def outlines(patches: tuple[NodulePatch, ...]) -> list[NDArray[np.bool_]]:
    """Outline nodules as a node does."""
    package = load_package(KEPT / "ladder" / OUTLINE)
    with open_engines({OUTLINE: package}, RuntimeSettings(threads=1)) as engines:
        found = [engines.run(OUTLINE, patch.volume).label_map for patch in patches]
    return [
        labels.array > 0 if labels else np.zeros_like(patch.mask) for labels, patch in zip(found, patches, strict=True)
    ]


def boxes_of(name: str, network: type[Detector], tiles: list[Tile]) -> list[list[list[float]]]:
    """Detect nodules with a trained row: boxes of each tile."""
    detector = network()
    detector.load_state_dict(torch.load(KEPT / f"{name}.pt", weights_only=True))
    engine = compiled(detector, np.zeros((1, 3, SIZE, SIZE), np.float32), (PLACES, SCORES), threads=1)
    found = [find(engine, tile) for tile in tiles]
    return [
        [[*low, *high] for low, high, score in zip(each.low, each.high, each.scores, strict=True) if score >= LEAST]
        for each in found
    ]


def rectangle(box: list[float], colour: str) -> Any:
    """Draw a box: low row, low column, high row, high column."""
    from matplotlib.patches import Rectangle

    low_row, low_column, high_row, high_column = box
    return Rectangle((low_column, low_row), high_column - low_column, high_row - low_row, fill=False, edgecolor=colour)


if __name__ == "__main__":
    typer.run(run)
