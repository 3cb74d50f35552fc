"""The phantom's tubes: great vessels, airways, and the trees of vessels in the lungs."""

import numpy as np
from numpy.typing import NDArray

from service.demo.canvas import Canvas, Point
from service.demo.tissue import AIR, BLOOD, MEDIASTINAL_FAT, MUSCLE

CARINA: Point = (0.0, 12.0, 190.0)
HILUM: dict[int, Point] = {-1: (-42.0, 12.0, 162.0), 1: (46.0, 14.0, 160.0)}


def paint_great_vessels(canvas: Canvas) -> None:
    """Aorta, caval veins, pulmonary trunk and arteries, the branches of the arch, the gullet."""
    arch: list[Point] = [(4, -22, 140), (-16, -34, 165), (-18, -34, 190), (-12, -26, 207), (8, -4, 218), (25, 16, 213)]
    arch += [(29, 32, 196), (26, 36, 160), (21, 36, 110), (12, 36, 60), (4, 34, -40)]
    tubes: list[tuple[list[Point], list[float], float]] = [
        (arch, [16, 16, 15.5, 14.5, 13.5, 13, 12.5, 12, 12, 11.5, 11], BLOOD),
        ([(-24, -14, 140), (-30, -20, 175), (-29, -20, 215), (-22, -22, 245)], [11, 10, 9, 8], BLOOD),
        ([(-22, -22, 240), (-30, -18, 270), (-26, -14, 320)], [8, 7, 6], BLOOD),
        ([(-22, -24, 238), (4, -42, 238), (28, -30, 258), (30, -14, 320)], [7, 7, 7, 6], BLOOD),
        ([(-24, 8, 140), (-26, 26, 100), (-24, 32, 40), (-20, 30, -40)], [12, 12, 12, 12], BLOOD),
        ([(14, -38, 150), (18, -34, 172), (20, -18, 184), (40, 4, 186), (50, 14, 176)], [15, 14, 13, 11, 9], BLOOD),
        ([(18, -22, 180), (-6, -4, 176), (-38, 2, 174), (-50, 8, 166)], [12, 11, 10, 9], BLOOD),
        ([(-10, -24, 210), (-14, -14, 240), (-24, -8, 280), (-24, 0, 320)], [7, 6, 5, 4], BLOOD),
        ([(6, -4, 216), (14, -2, 245), (24, -2, 320)], [5, 4.5, 4], BLOOD),
        ([(16, 12, 214), (24, 12, 250), (40, 2, 276)], [6, 5, 4.5], BLOOD),
        ([(6, 30, 320), (6, 28, 200), (8, 24, 150), (10, 20, 110), (30, 8, 86)], [7, 7, 7, 8, 8], MUSCLE - 10),
        ([(6, 30, 320), (6, 28, 200)], [1.5, 1.5], -600.0),
    ]
    for path, radii, _ in tubes[:-2]:
        canvas.tube(path[1:], [radius + 2 for radius in radii[1:]], MEDIASTINAL_FAT)
    for path, radii, value in tubes:
        canvas.tube(path, radii, value)


def paint_airways(canvas: Canvas) -> None:
    """Trachea, main bronchi and the first lobar branches; the wall first, then the air in it."""
    trachea: list[Point] = [(0, -8, 330), (0, 0, 260), CARINA]
    right: list[Point] = [CARINA, (-20, 13, 178), HILUM[-1]]
    left: list[Point] = [CARINA, (24, 14, 176), HILUM[1]]
    central: list[tuple[list[Point], list[float]]] = [
        (trachea, [9, 9, 9]),
        (right, [7.5, 7, 5.5]),
        (left, [6.5, 6, 5]),
        ([(-22, 13, 177), (-44, 8, 190), (-60, 4, 206)], [5, 4, 2.5]),
        ([(40, 14, 165), (54, 4, 180), (66, -6, 200)], [4.5, 3.5, 2.5]),
        ([HILUM[-1], (-54, 24, 136), (-66, 34, 110)], [5, 4, 2.5]),
        ([HILUM[1], (56, 28, 136), (68, 38, 112)], [5, 4, 2.5]),
        ([HILUM[-1], (-58, -12, 146), (-70, -36, 130)], [3.5, 3, 2]),
    ]
    for wall, value in ((1.4, MUSCLE - 30), (0.0, AIR + 25)):
        for path, radii in central:
            canvas.tube(path, [radius + wall for radius in radii], value)


def paint_lung_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """An arterial and a venous tree in each lung, grown from the hilum towards points spread in the lung."""
    for side in (-1, 1):
        for origin, twigs in ((HILUM[side], 420), ((HILUM[side][0] * 0.8, 4.0, HILUM[side][2] - 18), 300)):
            targets = _points_in_lung(canvas, side, twigs, rng)
            for path, radii in _grow(np.asarray(origin, dtype=np.float64), targets, rng):
                canvas.tube(path, radii, BLOOD - 5, in_lung=True)


def _points_in_lung(canvas: Canvas, side: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    grid = canvas.grid
    lung = canvas.lung * (side * grid.x > 0)
    indices = np.flatnonzero(lung > 0.99)
    planes, rows, columns = np.unravel_index(rng.choice(indices, count, replace=False), lung.shape)
    return np.stack([grid.x[columns], grid.y[rows], grid.z[planes]], axis=1).astype(np.float64)


def _grow(
    start: NDArray[np.float64], targets: NDArray[np.float64], rng: np.random.Generator
) -> list[tuple[list[Point], list[float]]]:
    """Branches of a tree that halves its targets at each fork; radii follow Murray's law (r³ is conserved)."""
    radius = 0.8 * len(targets) ** (1 / 3)
    if len(targets) == 1:
        return [([_point(start), _point(targets[0])], [radius, radius * 0.5])]
    fork = start + rng.uniform(0.3, 0.45) * (targets.mean(axis=0) - start)
    spread = targets - targets.mean(axis=0)
    along = np.argsort(spread @ np.linalg.svd(spread, full_matrices=False)[2][0])
    near, far = np.array_split(targets[along], 2)
    branches = [([_point(start), _point(fork)], [radius, radius * 0.95])]
    return branches + _grow(fork, near, rng) + _grow(fork, far, rng)


def _point(position: NDArray[np.float64]) -> Point:
    return float(position[0]), float(position[1]), float(position[2])
