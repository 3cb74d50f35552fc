"""A synthetic chest, for golden inputs and for tests: body, two lungs with vessels, heart, spine.

It only has to make a trained network answer with all of its segments; it is not meant to look like a patient.
"""

import numpy as np
from numpy.typing import NDArray

AIR, FAT, TISSUE, BLOOD, BONE, LUNG = -1000.0, -90.0, 40.0, 50.0, 500.0, -830.0

Grid = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def chest(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Draw the chest in Hounsfield units on an LPS-aligned grid ``[slice, row, column]``, centred."""
    z, y, x = np.meshgrid(
        *((np.arange(length) - (length - 1) / 2) * spacing for length, spacing in zip(shape, spacing_mm, strict=True)),
        indexing="ij",
        sparse=True,
    )
    grid = (z, y, x)
    image = np.full(shape, AIR)
    trunk = np.maximum(0, z - 90) / 2.2
    for shrink, value in ((0, FAT), (14, TISSUE)):
        body = (x / (165 - shrink - trunk)) ** 2 + (y / (112 - shrink - 0.4 * trunk)) ** 2 < 1
        image = np.where(body, value, image)
    for side in (-1, 1):
        lung: NDArray[np.bool_] = _ellipsoid(grid, (0, 4, 72 * side), (125, 82, 56)) & (
            z > -95 + 45 * np.exp(-(((x - 70 * side) / 45) ** 2))
        )
        image = np.where(lung, LUNG, image)
        # Vessels: a lattice of thin bright sheets that crosses itself gives a branching look without any drawing.
        waves = np.sin((x + 0.4 * z) / 7) * np.sin((y - 0.3 * z) / 6) * np.sin((z + 0.5 * y) / 9)
        image = np.where(lung & (waves > 0.8), TISSUE - 300, image)
    image = np.where(_ellipsoid(grid, (-45, -25, 18), (60, 48, 52)), BLOOD, image)
    image = np.where(_ellipsoid(grid, (50, 0, 0), (400, 34, 26)), TISSUE, image)
    image = np.where(np.hypot(x, y - 20) + 0 * z < 8, np.where(z > 20, AIR, image), image)
    image = np.where(np.hypot(x, y - 78) + 0 * z < 20, BONE, image)
    return image.astype(np.float32)


def radiograph(size: tuple[int, int]) -> NDArray[np.float32]:
    """Project the chest from back to front: ``[row, column]``, larger is whiter, 0–1."""
    rows, columns = size
    volume = chest((rows, 75, columns), (300 / rows, 3.2, 380 / columns))
    path = ((volume[::-1] + 1000) / 1000).sum(axis=1) * 0.32
    image: NDArray[np.float32] = (1 - np.exp(-0.16 * path)).astype(np.float32)
    return image


def _ellipsoid(grid: Grid, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    distances = [((axis - middle) / radius) ** 2 for axis, middle, radius in zip(grid, centre, radii, strict=True)]
    inside: NDArray[np.bool_] = sum(distances, start=np.zeros(1)) < 1
    return inside
