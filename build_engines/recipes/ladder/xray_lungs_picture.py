"""``python -m build_engines.recipes.ladder.xray_lungs_picture``: the lung fields that the rows find, side by side.

Draws two test X-rays of Montgomery (U.S. National Library of Medicine, public domain), the outline of the reference and
that of each row whose package is there.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from build_engines.recipes.cxr_lung import NAME
from build_engines.recipes.data.sources import OutlinedXray, read_masks
from build_engines.recipes.ladder.rows import RESULTS
from build_engines.recipes.ladder.xray_lungs import NETWORKS
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from engines.types import Radiograph
from engines.verify import dice

ROOT = RESULTS.parents[1]
REFERENCE, ANSWER = "#40e060", "#ff4040"
MARGIN = 28
"""Pixels around both lungs."""

COLOURS = 96
"""Of the picture: few enough for a small file."""


def run(
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = ROOT.parent / "shared" / "data",
    packages: Annotated[Path, typer.Option(help="Folder with the packages of the rows.")] = ROOT / ".train" / "ladder",
    out: Annotated[Path, typer.Option(help="The picture.")] = ROOT / "docs" / "pictures" / "ladder-xray-lungs.png",
    cases: Annotated[str, typer.Option(help="Two of the test X-rays.")] = "2,18",
) -> None:
    """Draw the lung fields that the rows of the ladder find."""
    found = {NAME: load_package(SHIPPED_MODELS / NAME)}
    found |= {name: load_package(packages / name) for name in NETWORKS if (packages / name).is_dir()}
    xrays = read_masks(data, "montgomery", "test")
    _draw(found, [xrays[int(number)] for number in cases.split(",")], out)


def _draw(packages: dict[str, ModelPackage], xrays: list[OutlinedXray], out: Path) -> None:
    import matplotlib as mpl
    from PIL import Image

    mpl.use("Agg")
    from matplotlib import pyplot

    columns = -(-len(packages) // 2)
    figure, axes = pyplot.subplots(2 * len(xrays), columns, figsize=(1.8 * columns, 3.8 * len(xrays)), squeeze=False)
    with open_engines(packages, RuntimeSettings(precision="fp32")) as engines:
        for number, xray in enumerate(xrays):
            of_xray = axes[2 * number : 2 * number + 2].ravel()
            for axis in of_xray:
                axis.axis("off")
            for axis, name in zip(of_xray, packages, strict=False):
                answer = engines.run(name, Radiograph(xray.image, None, "")).label_map
                _panel(axis, name, xray, np.zeros_like(xray.mask) if answer is None else answer.array > 0)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.975, 0.03, 0.1)
    figure.savefig(out, dpi=115)
    pyplot.close(figure)
    picture = Image.open(out).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(out, optimize=True)


def _panel(axis: Any, name: str, xray: OutlinedXray, answer: NDArray[np.bool_]) -> None:
    rows, columns = (np.flatnonzero(xray.mask.any(axis=other)) for other in (1, 0))
    middle = [(int(each[0]) + int(each[-1])) // 2 for each in (rows, columns)]
    reach = max(int(np.ptp(rows)), int(np.ptp(columns))) // 2 + MARGIN
    axis.imshow(xray.image, cmap="gray")
    axis.contour(xray.mask, [0.5], colors=REFERENCE, linewidths=0.8)
    if answer.any():
        axis.contour(answer, [0.5], colors=ANSWER, linewidths=0.8)
    axis.set_xlim(max(middle[1] - reach, 0), min(middle[1] + reach, xray.mask.shape[1] - 1))
    axis.set_ylim(min(middle[0] + reach, xray.mask.shape[0] - 1), max(middle[0] - reach, 0))
    axis.set_title(f"{name.removeprefix('xray-lungs-')}  {dice(xray.mask, answer):.3f}", fontsize=7, pad=2)


if __name__ == "__main__":
    typer.run(run)
