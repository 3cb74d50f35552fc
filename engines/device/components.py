"""Connected components on the network's grid."""

from math import prod

import numpy as np

from engines.device.geometry import Shape
from engines.device.kernels import Kernels
from engines.device.memory import Allocations

LABELS = 256
"""A label map's values: 0 to 255."""


def drop_small_components(
    kernels: Kernels, memory: Allocations, labels: int, grid: Shape, probabilities: int, classes: int
) -> None:
    """Make background of all but the largest component of each segment; of several as large, the first is kept.

    Parameters
    ----------
    kernels, memory
        Of one stream.
    labels
        Address of the most probable class of each voxel, uint8.
    grid
        Shape of the labels.
    probabilities
        Address of float32 ``[classes, *grid]``, which are changed.
    classes
        With the background.
    """
    count = prod(grid)
    parents, sizes = memory.take(count, np.uint32), memory.take(count, np.uint32)
    largest = memory.take(LABELS, np.uint64)
    memory.fill(largest, 2 * LABELS)
    kernels.start("begin_components", count, parents, sizes, grid)
    kernels.start("join_components", count, labels, parents, grid)
    kernels.start("count_components", count, labels, parents, sizes, grid)
    kernels.start("find_largest", count, labels, parents, sizes, largest, grid)
    kernels.start("drop_components", count, labels, parents, largest, probabilities, grid, classes)
