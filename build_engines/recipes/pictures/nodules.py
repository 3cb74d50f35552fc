"""``python -m build_engines.recipes.pictures.nodules``: held-out nodules with the outlines and boxes of the rows.

A row that was not trained yet is left out. LIDC-IDRI is under CC BY 3.0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from build_engines.recipes.data.nodules import LIDC_WINDOW, NodulePatch, read_lidc
from build_engines.recipes.folders import DATA, LADDER, PICTURES
from build_engines.recipes.ladder.nodule_detection import PLACES, SCORES, find
from build_engines.recipes.ladder.nodule_outlines import centred
from build_engines.recipes.ladder.nodule_slices import SIZE, Tile, cut, of_patch
from build_engines.recipes.ladder.unpackaged import compiled
from build_engines.recipes.networks.centre2d import Centre2d
from build_engines.recipes.networks.faster_rcnn import FasterRcnn
from build_engines.recipes.networks.pyramid import Detector
from build_engines.recipes.networks.ssd import Ssd
from build_engines.recipes.pictures import canvas
from build_engines.recipes.trainer import weights_of
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from evaluation.metrics.detection import Candidates

OUTLINE = "nodule-outline-unet"
DETECTORS: Mapping[str, tuple[type[Detector], str]] = {
    "nodule-ssd": (Ssd, "deepskyblue"),
    "nodule-centre2d": (Centre2d, "orange"),
    "nodule-faster-rcnn": (FasterRcnn, "magenta"),
}
SHOWN = 8
"""Every other one of the held-out nodules, as they come."""

LEAST = 0.3
"""Score from which a box is shown."""


def run(
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
    out: Annotated[Path, typer.Option(help="The picture.")] = PICTURES / "ladder-nodules.png",
) -> None:
    """Draw held-out nodules: outlines above, boxes below."""
    patches = read_lidc(data, held_out=True)[: 2 * SHOWN : 2]
    figure, axes = canvas.panels(2, SHOWN, 1.6, 1.8)
    outlined = [centred(patch) for patch in patches]
    for axis, patch, mask in zip(axes[0], outlined, outlines(outlined), strict=True):
        middle = round(float(np.argwhere(patch.mask)[:, 0].mean()))
        axis.imshow(patch.image[middle], cmap="gray", vmin=LIDC_WINDOW[0], vmax=LIDC_WINDOW[1])
        canvas.outline(axis, patch.mask[middle], canvas.REFERENCE)
        canvas.outline(axis, mask[middle], canvas.ANSWER)
        canvas.title(axis, f"{patch.diameter_mm:.0f} mm")
    tiles = [cut(scan, scan.nodules[0].centre + np.array([0, 6, -6]), np.eye(3)) for scan in map(of_patch, patches)]
    for axis, tile in zip(axes[1], tiles, strict=True):
        axis.imshow(tile.image[1], cmap="gray", vmin=0, vmax=1, extent=(0, SIZE, SIZE, 0))
        for low, high in tile.boxes.numpy().reshape(-1, 2, 2):
            canvas.box(axis, low, high, canvas.REFERENCE)
    shown = [f"LIDC-IDRI, CC BY 3.0; outlines of {OUTLINE}"]
    for name, (network, colour) in DETECTORS.items():
        if weights_of(name).exists():
            shown.append(f"{name} {colour}")
            for axis, found in zip(axes[1], boxes(name, network, tiles), strict=True):
                for low, high in zip(found.low[found.scores >= LEAST], found.high[found.scores >= LEAST], strict=True):
                    canvas.box(axis, low, high, colour)
    canvas.save(figure, out, ", ".join(shown))


def outlines(patches: Sequence[NodulePatch]) -> list[NDArray[np.bool_]]:
    """Outline nodules as a node does."""
    package = load_package(LADDER / OUTLINE)
    with open_engines({OUTLINE: package}, RuntimeSettings(threads=1)) as engines:
        found = [engines.run(OUTLINE, patch.volume).label_map for patch in patches]
    return [
        labels.array > 0 if labels else np.zeros_like(patch.mask) for labels, patch in zip(found, patches, strict=True)
    ]


def boxes(name: str, network: type[Detector], tiles: Sequence[Tile]) -> list[Candidates]:
    """Detect nodules on each tile with a trained row."""
    detector = network()
    detector.load_state_dict(torch.load(weights_of(name), weights_only=True))
    engine = compiled(detector, np.zeros((1, 3, SIZE, SIZE), np.float32), (PLACES, SCORES), threads=1)
    return [find(engine, tile) for tile in tiles]


if __name__ == "__main__":
    typer.run(run)
