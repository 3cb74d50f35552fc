"""How large a segment is."""

import numpy as np
from numpy.typing import NDArray

from engines.inference.measurements import CUBIC_MM_PER_ML, slice_widths
from engines.types import Volume


def volume_ml(mask: NDArray[np.bool_], volume: Volume) -> float:
    """Give the volume of a mask ``[slice, row, column]`` on a CT's grid in mL, as a node's report gives it.

    A voxel is a parallelepiped, also where a gantry tilt shears it; a slice reaches half of the way to its neighbours.
    """
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / CUBIC_MM_PER_ML
    return float(np.count_nonzero(mask, axis=(1, 2)) @ slice_widths(volume)) * voxel_ml
