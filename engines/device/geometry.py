"""Where the voxels of a volume lie on the network's grid, as numbers that kernels take."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.inference.preprocessing import block, even_places, grid_over
from engines.packages.description import VolumeInput
from engines.types import Volume

Shape = tuple[int, int, int]

Matrix = NDArray[np.float64]
"""Homogeneous matrix from an index (slice, row, column, 1) to another."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A volume and the grid over it; what `engines.inference.preprocessing.resample_to_grid` works out on the way.

    Attributes
    ----------
    stored
        Shape of the volume's array.
    even
        Shape of the volume with one slice at each step of its affine.
    places
        Between which stored slices each even one lies; None where they are the same.
    at
        Where each stored slice lies in steps; None where slice *k* lies at *k*.
    block
        How many voxels of the even volume are averaged into one.
    averaged
        Shape of the averaged volume.
    grid
        Shape of the network's grid.
    to_averaged
        From an index of the grid to one of the averaged volume.
    to_grid
        From a step, row and column of the volume to an index of the grid.
    """

    stored: Shape
    even: Shape
    places: NDArray[np.float64] | None
    at: NDArray[np.float64] | None
    block: Shape
    averaged: Shape
    grid: Shape
    to_averaged: Matrix
    to_grid: Matrix

    @classmethod
    def of(cls, volume: Volume, wanted: VolumeInput) -> Self:
        """Lay the grid that a model wants over a volume."""
        slices, rows, columns = volume.array.shape
        at = None if volume.at is None else np.asarray(volume.at, np.float64)
        places = None if volume.at is None else even_places(volume.at)
        even = (slices if places is None else len(places), rows, columns)
        affine, grid = grid_over(even, volume.affine, wanted.spacing_mm, wanted.axes)
        to_even = np.linalg.inv(volume.affine) @ affine
        size = np.array(block(even, to_even))
        # A block's middle is the averaged voxel's centre.
        to_averaged = np.diag([*(1 / size), 1.0])
        to_averaged[:3, 3] = -(size - 1) / 2 / size
        return cls(
            stored=(slices, rows, columns),
            even=even,
            places=places,
            at=at,
            block=_shape(size),
            averaged=_shape(-(-np.array(even) // size)),
            grid=grid,
            to_averaged=to_averaged @ to_even,
            to_grid=np.linalg.inv(affine) @ volume.affine,
        )

    @property
    def as_stored(self) -> bool:
        """Whether the averaged volume is the stored one."""
        return self.places is None and self.block == (1, 1, 1)


def _shape(lengths: NDArray[np.integer]) -> Shape:
    slices, rows, columns = (int(length) for length in lengths)
    return slices, rows, columns
