"""Lung nodules to learn from: 3D patches of LIDC-IDRI with outlines, and 2D patches of LUNA16 with a label.

LIDC-IDRI (Armato et al., Medical Physics 38, 2011; CC BY 3.0) and LUNA16 (Setio et al., Medical Image Analysis 42,
2017; CC BY). Needs no PyTorch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.types import Volume
from evaluation.cases import Lesion

LIDC_WINDOW = (-1160.0, 380.0)
"""HU of the patches' 0 and 255, as far as fat (176), muscle (200) and lung (53) tell; the source does not say."""

LIDC_MIDDLE = 26.5
"""Index on each axis where the patches have their nodule, to within half a voxel: not 25, the middle of their 51."""

LUNA_WINDOW = (-1000.0, 400.0)
"""HU of the patches' 0 and 255: muscle is at 190, lung at 24."""

HELD_OUT = 5
"""Every fifth patient of the LIDC patches, in the order of their numbers, is held out."""


@dataclass(frozen=True, eq=False)
class NodulePatch:
    """A nodule amid 51 × 51 × 51 voxels of 1 mm, in HU, with its outline: ``[slice, row, column]``."""

    name: str
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]

    @property
    def diameter_mm(self) -> float:
        """Of the ball of the same volume."""
        return float((6 * self.mask.sum() / np.pi) ** (1 / 3))

    @property
    def volume(self) -> Volume:
        """The patch as a CT of its own: columns to the left, rows to the back, slices to the head (LPS)."""
        return Volume(self.image, np.eye(4)[:, [2, 1, 0, 3]], tuple(str(index) for index in range(len(self.image))))

    @property
    def lesion(self) -> Lesion:
        """The nodule in that CT, in LPS mm; the box goes to the outer edges of its voxels."""
        where = np.argwhere(self.mask)[:, ::-1]
        low, high = (where.min(axis=0) - 0.5).tolist(), (where.max(axis=0) + 0.5).tolist()
        return Lesion(tuple(low), tuple(high), self.diameter_mm)


def read_lidc(data: Path, held_out: bool) -> tuple[NodulePatch, ...]:
    """Read the LIDC patches that are trained on, or those that are held out; each is another patient's.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_nodule/lidc_patches.npz``.
    """
    arrays = _read(data / "ct_nodule" / "lidc_patches.npz")
    order = np.argsort([int(name.split("_")[0]) for name in arrays["id"]])
    low, high = LIDC_WINDOW
    return tuple(
        NodulePatch(
            name=str(arrays["id"][index]),
            # The source has slices last.
            image=np.moveaxis(low + arrays["image"][index].astype(np.float32) * ((high - low) / 255), 2, 0),
            mask=np.moveaxis(arrays["mask"][index], 2, 0),
        )
        for place, index in enumerate(order)
        if (place % HELD_OUT == 0) == held_out
    )


def read_luna(data: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the LUNA16 patches of ``train`` or ``val``: ``[patch, 50, 50]`` in HU, and 1 for a nodule, 0 for none.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_nodule/luna_patches2d_SPLIT.npz``.
    """
    arrays = _read(data / "ct_nodule" / f"luna_patches2d_{split}.npz")
    low, high = LUNA_WINDOW
    return low + arrays["image"].astype(np.float32) * ((high - low) / 255), arrays["label"].astype(np.int64)


def _read(file: Path) -> dict[str, NDArray[np.generic]]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: name the folder of the training data with --data")
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}
