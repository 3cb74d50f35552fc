"""Do outlines hold what was found?"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engines.types import LabelMap
from service.results.contours import Points, inside

Rings = Mapping[tuple[int, int], Sequence[Points]]
"""The rings drawn for each segment number on each slice."""


def differing_slices(rings: Rings, label_map: LabelMap, slices: Sequence[int]) -> list[int]:
    """The slices on which the rings of any segment of a label map do not hold exactly its voxels.

    Parameters
    ----------
    rings
        Of the segments of this label map.
    slices
        Which to look at.
    """
    numbers = [segment.number for segment in label_map.present]
    segments = np.zeros(256, np.uint8)
    segments[numbers] = numbers
    differing = []
    for index in slices:
        drawn = _drawn({number: rings.get((number, index), []) for number in numbers}, label_map.slices.shape[1:])
        if drawn is None or not np.array_equal(drawn, segments[label_map.slices[index]]):
            differing.append(index)
    return differing


def _drawn(rings: Mapping[int, Sequence[Points]], shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The labels of one slice, None where segments overlap."""
    labels = np.zeros(shape, np.uint8)
    for number, own in rings.items():
        if own:
            mask = inside(own, (shape[0], shape[1]))
            if labels[mask].any():
                return None
            labels[mask] = number
    return labels
