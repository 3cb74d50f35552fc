"""Where a classifier looked: its class activation maps (Zhou et al., CVPR 2016) on the pixels of an X-ray."""

import numpy as np
from numpy.typing import NDArray

from engines.inference.postprocessing import quantised
from engines.inference.preprocessing import Array, Placement

BAND = 64
"""Rows of an X-ray whose maps are made at a time: they stay in the processor's cache."""


def activations_on_radiograph(activations: Array, placement: Placement, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bring class activation maps back to the pixels of an X-ray.

    The cells of a map tile the tensor; between their centres the map is bilinear, beyond the outermost ones constant.

    Parameters
    ----------
    activations
        Float32 ``[class, row, column]``, with fewer rows and columns than the tensor.
    placement
        As from `engines.inference.preprocessing.fit`.
    size
        Rows and columns of the tensor.

    Returns
    -------
    NDArray[np.uint8]
        ``[class, row, column]`` on the X-ray. 255 is the largest value that any class has at any pixel, so that the
        classes of an image compare; 0 is what says nothing for the class, or speaks against it.
    """
    rows, columns = (
        np.clip((offset + (np.arange(length) + 0.5) * scale) * cells / tensor - 0.5, 0, cells - 1)
        for length, scale, offset, tensor, cells in zip(
            placement.shape, placement.scale, placement.offset, size, activations.shape[1:], strict=True
        )
    )
    bands = [slice(start, start + BAND) for start in range(0, len(rows), BAND)]
    widened = [np.ascontiguousarray(_between(activation.T, columns).T) for activation in activations]
    # Interpolated twice, for the common scale and for the maps: as floats, all maps take four times their memory.
    largest = max(float(_between(wide, rows[band]).max()) for wide in widened for band in bands)
    maps = np.zeros((len(activations), *placement.shape), np.uint8)
    if largest > 0:
        for target, wide in zip(maps, widened, strict=True):
            for band in bands:
                target[band] = quantised(_between(wide / np.float32(largest), rows[band]))
    return maps


def _between(lines: Array, at: NDArray[np.float64]) -> Array:
    """Interpolate linearly between the lines ``[cell, …]`` of a map, at places given in cells."""
    before = at.astype(int)
    share = (at - before).astype(np.float32)[:, None]
    between: Array = lines[before]
    between += share * (lines[np.minimum(before + 1, len(lines) - 1)] - between)
    return between
