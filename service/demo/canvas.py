"""Painting soft-edged shapes into a volume of Hounsfield units.

A shape is given by its *inside*: the distance to its surface in mm, positive inside. A voxel that the surface cuts
gets a mixture of both tissues, as partial volume does in a scanner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in LPS mm along each axis: ``x`` to the patient's left, ``y`` to the back, ``z`` to the head."""

    x: Array
    y: Array
    z: Array

    @classmethod
    def centred(cls, shape: tuple[int, int, int], spacing: tuple[float, float, float], bottom: float = 0.0) -> "Grid":
        """Build the grid of ``shape`` and ``spacing`` (slice, row, column), centred in x and y, from z = ``bottom``."""
        (slices, rows, columns), (dz, dy, dx) = shape, spacing
        return cls(
            x=((np.arange(columns) - (columns - 1) / 2) * dx).astype(np.float32),
            y=((np.arange(rows) - (rows - 1) / 2) * dy).astype(np.float32),
            z=(bottom + np.arange(slices) * dz).astype(np.float32),
        )

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along z, y and x, in mm."""
        return float(self.z[1] - self.z[0]), float(self.y[1] - self.y[0]), float(self.x[1] - self.x[0])


def ellipse(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float], power: float = 2.0) -> Array:
    """Inside of a (super)ellipse; ``power`` above 2 makes it squarer."""
    u, v = np.abs(x - centre[0]) / radii[0], np.abs(y - centre[1]) / radii[1]
    rho = np.sqrt(u * u + v * v) if power == 2.0 else (u**power + v**power) ** (1 / power)
    return np.asarray((1 - rho) * min(radii), dtype=np.float32)


def ellipsoid(x: Array, y: Array, z: float, centre: Point, radii: Point, axis: Point = (1.0, 0.0, 0.0)) -> Array:
    """Inside, on the plane ``z``, of an ellipsoid whose first radius lies along ``axis``."""
    first = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    second = np.cross((0.0, 0.0, 1.0), first)
    second /= np.linalg.norm(second)
    frame = (first, second, np.cross(first, second))
    dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
    squares = [((dx * e[0] + dy * e[1] + dz * e[2]) / radius) ** 2 for e, radius in zip(frame, radii, strict=True)]
    return np.asarray((1 - np.sqrt(squares[0] + squares[1] + squares[2])) * min(radii), dtype=np.float32)


class Canvas:
    """A volume of Hounsfield units ``[slice, row, column]`` and the share of each voxel that is lung tissue."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        shape = (grid.z.size, grid.y.size, grid.x.size)
        self.hu: Array = np.full(shape, -1000, dtype=np.float32)
        self.lung: Array = np.zeros(shape, dtype=np.float32)
        self._edge = max(grid.spacing[1:])

    def weight(self, inside: Array) -> Array:
        """Share of each voxel within a shape, 0–1."""
        return np.asarray(np.clip(inside / self._edge + 0.5, 0, 1), dtype=np.float32)

    def fill(self, plane: int, inside: Array, value: Array | float) -> None:
        """Paint a shape with ``value`` HU on one slice; the lung gives way."""
        weight = self.weight(inside)
        self.hu[plane] += weight * (value - self.hu[plane])
        self.lung[plane] *= 1 - weight

    def aerate(self, plane: int, inside: Array, value: Array | float) -> None:
        """Paint lung tissue on one slice."""
        weight = self.weight(inside)
        self.hu[plane] += weight * (value - self.hu[plane])
        np.maximum(self.lung[plane], weight, out=self.lung[plane])

    def tube(self, path: Sequence[Point], radii: Sequence[float], value: float, *, in_lung: bool = False) -> None:
        """Paint a tube along ``path`` with a radius in mm at each point.

        A tube ``in_lung`` (a vessel, a bronchus) is seen only within lung tissue and stays part of the lung; any other
        displaces the lung.
        """
        for start, end, first, last in zip(path, path[1:], radii, radii[1:], strict=False):
            self._segment(np.asarray(start), np.asarray(end), first, last, value, in_lung)

    def _segment(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        first: float,
        last: float,
        value: float,
        in_lung: bool,
    ) -> None:
        reach = max(first, last) + self._edge
        low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
        grid = self.grid
        sz, sy, sx = (
            slice(int(np.searchsorted(axis, low[i])), int(np.searchsorted(axis, high[i])))
            for axis, i in ((grid.z, 2), (grid.y, 1), (grid.x, 0))
        )
        box = self.hu[sz, sy, sx]
        if box.size == 0:
            return
        dx = grid.x[None, None, sx] - np.float32(start[0])
        dy = grid.y[None, sy, None] - np.float32(start[1])
        dz = grid.z[sz, None, None] - np.float32(start[2])
        run = (end - start).astype(np.float32)
        along = np.clip((dx * run[0] + dy * run[1] + dz * run[2]) / max(float(run @ run), 1e-6), 0, 1)
        distance = np.sqrt((dx - along * run[0]) ** 2 + (dy - along * run[1]) ** 2 + (dz - along * run[2]) ** 2)
        weight = self.weight(first + along * (last - first) - distance)
        # A vessel thinner than a voxel never reaches its full value there.
        weight *= np.minimum(1, 2 * (first + along * (last - first)) / self._edge)
        if in_lung:
            weight *= self.lung[sz, sy, sx]
        else:
            self.lung[sz, sy, sx] *= 1 - weight
        box += weight * (value - box)
