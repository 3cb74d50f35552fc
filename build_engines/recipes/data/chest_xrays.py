"""The chest X-rays with a class, each with its lungs as ``cxr-lung`` finds them, and what of it a network is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import getpid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from build_engines.recipes.data.sources import CLASSES, rows_of
from build_engines.recipes.folders import KEPT
from engines.inference.preprocessing import Array, Box, bounding_box, crop
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from engines.types import Radiograph
from evaluation.images import read_radiograph

LUNGS = "cxr-lung"
MARGIN = 0.05
"""Of the lungs' box, on each side: as ``crop_margin`` of the model."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ChestXray:
    """One X-ray ``[row, column]``, 0–255, with its lungs, and what the manifest says of it.

    ``lungs`` is empty and ``box`` the whole image where no lungs were found.
    """

    name: str
    image: NDArray[np.uint8]
    lungs: Mask
    box: Box
    target: int
    source: str
    patient: str
    split: str
    split_by_source: str


def read_chest_xrays(data: Path) -> tuple[ChestXray, ...]:
    """Read all X-rays of the manifest; where their lungs are is kept in ``.train`` for the next time.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr/manifest.csv``.
    ModelPackageError
        If ``cxr-lung`` has not been trained yet.
    """
    manifest = data / "cxr" / "manifest.csv"
    rows = rows_of(manifest)
    images = [read_radiograph(manifest.parent / "images" / row["file"]).array.astype(np.uint8) for row in rows]
    lungs = _kept_lungs(manifest, images)
    return tuple(
        ChestXray(
            name=row["file"],
            image=image,
            lungs=mask,
            box=bounding_box(mask, MARGIN) or Box(0, 0, *image.shape),
            target=CLASSES.index(row["class"]),
            source=row["source"],
            patient=f"{row['source']} {row['patient']}",
            split=row["split"],
            split_by_source=row["split_by_source"],
        )
        for row, image, mask in zip(rows, images, lungs, strict=True)
    )


def _kept_lungs(manifest: Path, images: Sequence[NDArray[np.uint8]]) -> list[Mask]:
    """Find the lungs once for each version of the lung model and of the manifest."""
    package = load_package(SHIPPED_MODELS / LUNGS)
    key = sha256(package.identity.digest.encode() + manifest.read_bytes()).hexdigest()[:12]
    file = KEPT / f"chest-xray-lungs-{key}.npz"
    if not file.exists():
        with open_engines({LUNGS: package}, RuntimeSettings(threads=1)) as engines:
            found = [engines.run(LUNGS, Radiograph(image.astype(np.float32), None, "")).label_map for image in images]
        masks = [answer.array > 0 if answer else np.zeros(1, bool) for answer in found]
        KEPT.mkdir(exist_ok=True)
        # Two trainings may begin at once: the file is whole, or not there.
        partial = KEPT / f"{file.stem}.{getpid()}.part"
        with partial.open("wb") as opened:
            np.savez_compressed(opened, *[np.packbits(mask) for mask in masks])
        partial.replace(file)
    with np.load(file) as kept:
        return [
            np.unpackbits(kept[f"arr_{index}"], count=image.size).reshape(image.shape).astype(bool)
            for index, image in enumerate(images)
        ]


def lung_crop(xray: ChestXray, box: Box) -> Array:
    """Show the box around the lungs, as the model's ``crop_to`` does."""
    return crop(xray.image.astype(np.float32), box)


def whole(xray: ChestXray, box: Box) -> Array:
    """Show everything; the box does not matter."""
    return xray.image.astype(np.float32)


def inside(xray: ChestXray, box: Box) -> Array:
    """Show the lungs alone: the box around them, with all that is not lung black."""
    return crop(np.where(xray.lungs, xray.image, 0).astype(np.float32), box)


def outside(xray: ChestXray, box: Box) -> Array:
    """Show all but the lungs: the whole image, with the box around them black.

    A mask misses the part of a lung that disease has made white, and its outline tells of the disease; the box around
    the lungs, a twentieth wider, holds what the mask misses, and has no outline but four sides.
    """
    image = xray.image.astype(np.float32)
    hidden = xray.box
    image[hidden.top : hidden.bottom, hidden.left : hidden.right] = 0
    return image


View = Callable[[ChestXray, Box], Array]
VIEWS: Mapping[str, View] = {"lung crop": lung_crop, "whole": whole, "inside": inside, "outside": outside}
"""What of an X-ray a network is shown: from the X-ray and the box around its lungs, which training moves a little."""
