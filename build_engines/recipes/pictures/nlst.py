"""``python -m build_engines.recipes.pictures.nlst``: the nodule of the NLST scan, and what ``ct-nodule`` finds there.

A sight check on a series that nothing is trained or tuned on; prints each candidate.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from build_engines.recipes.data.nlst import read_nlst
from build_engines.recipes.folders import DATA, PICTURES
from build_engines.recipes.pictures import canvas
from engines.packages.package import SHIPPED_MODELS, load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from engines.types import Volume

MODEL = "ct-nodule"

CLOSE = 30
"""Pixels on each side of the nodule that the close-up shows."""


def run(
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
    out: Annotated[Path, typer.Option(help="The picture.")] = PICTURES / "ct-nodule-nlst.png",
) -> None:
    """Draw the marked nodule, axial and coronal, with the nearest candidate; print all candidates."""
    volume, lesion = read_nlst(data)
    with open_engines(load_packages(SHIPPED_MODELS), RuntimeSettings()) as engines:
        detections = engines.run(MODEL, volume).detections
    assert detections is not None
    marked = np.array([lesion.low, lesion.high])
    away = [
        float(np.linalg.norm(np.mean([found.low, found.high], axis=0) - marked.mean(axis=0)))
        for found in detections.found
    ]
    for rank, (found, distance) in enumerate(zip(detections.found, away, strict=True), 1):
        typer.echo(
            f"{rank}: score {found.score:.2f}, {found.diameter_mm:.1f} mm, {distance:.0f} mm from the marked one"
        )
    boxes = {canvas.REFERENCE: marked}
    words = "not found"
    if away:
        nearest = detections.found[int(np.argmin(away))]
        boxes[canvas.ANSWER] = np.array([nearest.low, nearest.high])
        words = f"score {nearest.score:.2f}, {nearest.diameter_mm:.0f} mm"
    corners = {colour: to_index(volume, box) for colour, box in boxes.items()}
    place, row, column = np.round(corners[canvas.REFERENCE].mean(axis=0)).astype(int)
    figure, axes = canvas.panels(1, 3, 3.2, 3.2)
    lung = {"cmap": "gray", "vmin": -1200, "vmax": 300}
    for axis, title in zip(axes[0], ("axial, the patient's left on the right", words, "coronal"), strict=True):
        coronal = title == "coronal"
        step_mm, pixel_mm = volume.spacing[0], volume.spacing[1]
        plane = volume.array[::-1, row] if coronal else volume.array[place]
        axis.imshow(plane, aspect=step_mm / pixel_mm if coronal else 1, **lung)
        canvas.title(axis, title)
        for colour, box in corners.items():
            if coronal:
                heights = np.sort(len(volume.array) - 1 - box[:, 0])
                box = np.column_stack([heights, box[:, 2]])
            canvas.box(axis, box[0, -2:], box[1, -2:], colour)
    axes[0, 1].set_xlim(column - CLOSE, column + CLOSE)
    axes[0, 1].set_ylim(row + CLOSE, row - CLOSE)
    canvas.save(figure, out, "NLST (National Cancer Institute), CC BY 4.0")


def to_index(volume: Volume, box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring the two corners of a box from LPS mm to slice, row and column, the lower of each first."""
    placed = np.linalg.inv(volume.affine) @ np.column_stack([box, np.ones(2)]).T
    ordered: NDArray[np.float64] = np.sort(placed[:3].T, axis=0)
    return ordered


if __name__ == "__main__":
    typer.run(run)
