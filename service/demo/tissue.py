"""What the phantom is made of: Hounsfield units of the tissues, and the sizes of the trunk at each height."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.demo.canvas import Array

Table = Sequence[tuple[float, float]]

AIR, LUNG, FAT, MEDIASTINAL_FAT = -1000.0, -850.0, -105.0, -85.0
MUSCLE, SKIN, BLOOD, LIVER, SPLEEN, FLUID = 55.0, 25.0, 42.0, 60.0, 50.0, 12.0
CARTILAGE, MARROW, SPONGIOSA, CORTEX = 100.0, 130.0, 160.0, 620.0

# (z, size in mm) of the trunk, of the rib cage (inside) and of the mediastinum, each from its middle.
TRUNK_WIDTH = ((-40, 148), (30, 150), (120, 163), (190, 166), (240, 158), (275, 128), (300, 80), (330, 66))
TRUNK_DEPTH = ((-40, 104), (30, 106), (120, 113), (190, 112), (240, 100), (280, 82), (300, 70), (330, 66))
CAGE_WIDTH = ((-40, 118), (30, 122), (100, 127), (150, 124), (200, 110), (235, 92), (260, 74), (285, 50), (330, 30))
CAGE_DEPTH = ((-40, 76), (30, 80), (100, 88), (150, 88), (200, 79), (235, 66), (260, 54), (285, 40), (330, 30))
MEDIASTINUM = ((-40, 30), (100, 34), (160, 38), (190, 34), (215, 27), (250, 25), (285, 30), (330, 34))


def profile(table: Table, z: float | Array) -> NDArray[np.float64]:
    """Smooth curve through a (z, size) table."""
    levels, sizes = np.asarray(table, dtype=np.float64).T
    smooth = [np.interp(z + shift, levels, sizes) for shift in range(-18, 19, 6)]
    return np.asarray(np.mean(smooth, axis=0), dtype=np.float64)
