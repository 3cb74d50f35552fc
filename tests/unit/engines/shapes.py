"""Outlines in the plainest way, to hold others against."""

from collections.abc import Iterator

import numpy as np
import SimpleITK
from numpy.typing import NDArray


def outline_points(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Of each connected region of each slice, the middle of every edge between a voxel inside and one outside."""
    for plane in mask:
        labels = SimpleITK.GetArrayFromImage(
            SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(plane.astype(np.uint8)))
        )
        for number in range(1, labels.max() + 1):
            region = np.pad(labels == number, 1)
            points = [
                (row - 1 + down / 2, column - 1 + right / 2)
                for row, column in np.argwhere(region)
                for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
                if not region[row + down, column + right]
            ]
            yield np.array(points)
