"""``python -m build_engines.recipes.pictures.xray_lungs``: the lung fields that the rows find, side by side.

Draws test X-rays of Montgomery (U.S. National Library of Medicine, public domain), the outline of the reference and
that of each row whose package is there.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from build_engines.recipes.cxr_lung import NAME
from build_engines.recipes.data.sources import OutlinedXray, read_masks
from build_engines.recipes.folders import DATA, LADDER, PICTURES
from build_engines.recipes.ladder.xray_lungs import NETWORKS
from build_engines.recipes.pictures import canvas
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from engines.types import Radiograph
from engines.verify import dice

MARGIN = 28
"""Pixels around both lungs."""


def run(
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
    out: Annotated[Path, typer.Option(help="The picture.")] = PICTURES / "ladder-xray-lungs.png",
    cases: Annotated[str, typer.Option(help="Numbers of the test X-rays.")] = "2,18",
) -> None:
    """Draw the lung fields that the rows of the ladder find."""
    packages = {NAME: load_package(SHIPPED_MODELS / NAME)}
    packages |= {name: load_package(LADDER / name) for name in NETWORKS if (LADDER / name).is_dir()}
    test = read_masks(data, "montgomery", "test")
    xrays = [test[int(number)] for number in cases.split(",")]
    figure, axes = canvas.panels(len(xrays), len(packages), 1.6, 1.8)
    with open_engines(packages, RuntimeSettings(precision="fp32")) as engines:
        for of_xray, xray in zip(axes, xrays, strict=True):
            for axis, name in zip(of_xray, packages, strict=True):
                found = engines.run(name, Radiograph(xray.image, None, "")).label_map
                _panel(axis, name, xray, found.array > 0 if found else np.zeros_like(xray.mask))
    canvas.save(figure, out, "Montgomery, U.S. National Library of Medicine")


def _panel(axis: Any, name: str, xray: OutlinedXray, answer: NDArray[np.bool_]) -> None:
    rows, columns = (np.flatnonzero(xray.mask.any(axis=other)) for other in (1, 0))
    middle = [(int(each[0]) + int(each[-1])) // 2 for each in (rows, columns)]
    reach = max(int(np.ptp(rows)), int(np.ptp(columns))) // 2 + MARGIN
    axis.imshow(xray.image, cmap="gray")
    canvas.outline(axis, xray.mask, canvas.REFERENCE)
    canvas.outline(axis, answer, canvas.ANSWER)
    axis.set_xlim(max(middle[1] - reach, 0), min(middle[1] + reach, xray.mask.shape[1] - 1))
    axis.set_ylim(min(middle[0] + reach, xray.mask.shape[0] - 1), max(middle[0] - reach, 0))
    canvas.title(axis, f"{name.removeprefix('xray-lungs-')}  {dice(xray.mask, answer):.3f}")


if __name__ == "__main__":
    typer.run(run)
