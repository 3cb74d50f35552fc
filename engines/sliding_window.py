"""A network that sees a patch, moved over a volume that is larger."""

from collections.abc import Callable
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIGMA = 0.125
"""Width of the Gaussian as a fraction of the patch (Isensee et al., nnU-Net, Nature Methods 2021)."""

LEAST_WEIGHT = 1e-3
"""So that a corner which only one patch sees is still divided by something that is not lost in rounding."""


def sliding_window(
    infer: Callable[[Array], Array], image: Array, patch: tuple[int, int, int], overlap: float, classes: int
) -> Array:
    """Run a network over a volume patch by patch and blend what overlaps, weighted towards each patch's centre.

    Parameters
    ----------
    infer
        From ``[1, 1, *patch]`` to ``[1, classes, *patch]``.
    image
        ``[slice, row, column]``; where it is smaller than the patch it is padded with 0 on both sides.
    patch
        Slices, rows and columns that the network sees.
    overlap
        Least fraction of a patch that its neighbour sees too, 0 to below 1.
    classes
        Channels of the network's output.

    Returns
    -------
    Array
        ``[classes, slice, row, column]`` on the image's grid.
    """
    before = [max(0, (length - size) // 2) for size, length in zip(image.shape, patch, strict=True)]
    padded = np.zeros([max(size, length) for size, length in zip(image.shape, patch, strict=True)], np.float32)
    inside = tuple(slice(first, first + size) for first, size in zip(before, image.shape, strict=True))
    padded[inside] = image

    places = [_starts(size, length, overlap) for size, length in zip(padded.shape, patch, strict=True)]
    weight = _gaussian(patch)
    blended = np.zeros((classes, *padded.shape), np.float32)
    weights = np.zeros(padded.shape, np.float32)
    for start in product(*places):
        here = tuple(slice(first, first + length) for first, length in zip(start, patch, strict=True))
        answer = infer(padded[here][None, None])[0]
        blended[(slice(None), *here)] += answer * weight
        weights[here] += weight
    blended /= weights
    return blended[(slice(None), *inside)]


def _starts(size: int, length: int, overlap: float) -> list[int]:
    """Spread the fewest patches evenly that overlap enough and reach both ends."""
    count = 1 + ceil((size - length) / (length * (1 - overlap)))
    return [round(start) for start in np.linspace(0, size - length, count)]


def _gaussian(patch: tuple[int, int, int]) -> Array:
    axes = (
        np.exp(-0.5 * ((np.arange(length) - (length - 1) / 2) / (length * SIGMA)) ** 2).astype(np.float32)
        for length in patch
    )
    weight: Array = np.einsum("i,j,k->ijk", *axes)
    return np.maximum(weight, LEAST_WEIGHT)
