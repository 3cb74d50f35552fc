"""The phantom's anatomy: a chest with its arms raised, painted from simple shapes.

All sizes are millimetres in LPS: x = 0 is the midline, z = 0 lies in the upper abdomen, the lungs reach from about
z = 35 to z = 280. Tissue values are Hounsfield units of an unenhanced scan at 120 kV.
"""

from dataclasses import dataclass

import numpy as np

from service.demo.canvas import Array, Canvas, Grid, Point, ellipse, ellipsoid
from service.demo.skeleton import paint_skeleton, paint_spine
from service.demo.tissue import (
    AIR,
    BLOOD,
    CAGE_DEPTH,
    CAGE_WIDTH,
    CORTEX,
    FAT,
    FLUID,
    LIVER,
    LUNG,
    MARROW,
    MEDIASTINAL_FAT,
    MEDIASTINUM,
    MUSCLE,
    SKIN,
    SPLEEN,
    SPONGIOSA,
    TRUNK_DEPTH,
    TRUNK_WIDTH,
    profile,
)
from service.demo.vessels import paint_airways, paint_great_vessels, paint_lung_vessels

NODULE: Point = (-68.0, -8.0, 218.0)
"""Centre of the nodule, in the right upper lobe."""
NODULE_RADIUS = 5.5


@dataclass(frozen=True, eq=False)
class Body:
    """The painted body: Hounsfield units and the share of lung (0–1), both ``[slice, row, column]``, on ``grid``."""

    grid: Grid
    hu: Array
    lung: Array


def paint_body(grid: Grid, seed: int = 1) -> Body:
    """Paint the chest on ``grid``; ``seed`` chooses the branching of vessels and airways."""
    canvas = Canvas(grid)
    texture = _Texture(grid, np.random.default_rng(seed))
    for plane, z in enumerate(grid.z):
        _paint_plane(canvas, plane, float(z), texture)
    paint_skeleton(canvas)
    paint_great_vessels(canvas)
    paint_airways(canvas)
    paint_lung_vessels(canvas, np.random.default_rng(seed + 1))
    _paint_nodule(canvas)
    return Body(grid, canvas.hu, canvas.lung)


class _Texture:
    """Low-frequency fields that keep tissues from being flat: fat streaks in muscle, gravity in the lung."""

    def __init__(self, grid: Grid, rng: np.random.Generator) -> None:
        self._x, self._y = grid.x[None, :], grid.y[:, None]
        self._waves = rng.normal(0, 1 / 14, (6, 3)), rng.uniform(0, 2 * np.pi, 6)

    def at(self, z: float) -> Array:
        """Field of mean 0 and a standard deviation of about 1 on the plane ``z``."""
        vectors, phases = self._waves
        total = np.zeros((self._y.shape[0], self._x.shape[1]), dtype=np.float32)
        for (kx, ky, kz), phase in zip(vectors, phases, strict=True):
            total += np.sin(np.float32(kx) * self._x + np.float32(ky) * self._y + np.float32(kz * z + phase))
        return total / np.float32(np.sqrt(3))


def _paint_plane(canvas: Canvas, plane: int, z: float, texture: _Texture) -> None:
    """Everything that is wider than it is long: wall, lungs, heart, upper abdomen."""
    x, y = canvas.grid.x[None, :], canvas.grid.y[:, None]
    field = texture.at(z)
    wall = _trunk(x, y, z)
    cage = _cage(x, y, z)
    canvas.fill(plane, wall, SKIN)
    canvas.fill(plane, wall - 2, FAT + 5 * field)
    flank = np.abs(x) / 165
    _fill_muscle(canvas, plane, np.minimum(wall - 9 - 7 * np.clip(y / 110, -1, 0) ** 2, cage + 17 + 10 * flank), field)
    canvas.fill(plane, np.minimum(np.abs(cage + 11) * -1 + 1.2, wall - 12), FAT + 40)
    for side in (-1, 1):
        _fill_muscle(canvas, plane, np.minimum(ellipse(x, y, (side * 34, 92), (27, 17)), wall - 7), field)
        _paint_shoulder(canvas, plane, x, y, z, side, field)
    canvas.fill(plane, cage, MEDIASTINAL_FAT + 6 * field)

    lungs = {side: _lung(x, y, z, side) for side in (-1, 1)}
    dome = {side: z - _diaphragm(x, y, side) for side in (-1, 1)}
    air = LUNG - 12 * field + 0.35 * y
    for side, lung in lungs.items():
        canvas.aerate(plane, np.minimum(lung, dome[side] * 0.6), air)
    _paint_abdomen(canvas, plane, x, y, z, cage, dome, field)
    _paint_heart(canvas, plane, x, y, z)
    paint_spine(canvas, plane, x, y, z, wall)


def _trunk(x: Array, y: Array, z: float) -> Array:
    width, depth = profile(TRUNK_WIDTH, z), profile(TRUNK_DEPTH, z)
    return ellipse(x, y, (0, 4), (float(width), float(depth)), 2.5)


def _cage(x: Array, y: Array, z: float) -> Array:
    return ellipse(x, y, (0, 0), (float(profile(CAGE_WIDTH, z)), float(profile(CAGE_DEPTH, z))), 2.3)


def _lung(x: Array, y: Array, z: float, side: int) -> Array:
    """Inside of one lung above its diaphragm: the cage without the mediastinum, closed by a rounded apex."""
    half = float(profile(MEDIASTINUM, z))
    inside: Array = np.minimum(_cage(x, y, z) - 1.5, side * x - 5)
    inside = np.minimum(inside, -ellipse(x, y, (0, -12), (half, 72)))
    inside = np.minimum(inside, -ellipse(x, y, (0, 62), (24, 26)))
    if z > 205:
        apex = ellipsoid(x, y, z, (side * 46, 4, 205), (60, 76, 77))
        inside = np.minimum(inside, apex)
    return inside


def _diaphragm(x: Array, y: Array, side: int) -> Array:
    """Height z of the dome; it falls off to the costophrenic angle, deepest at the back and least in front."""
    top = 114 if side < 0 else 107
    depth = np.where(y < -16, 145, 90)
    rho = np.sqrt(((side * x - 58) / 68) ** 2 + ((y + 16) / depth) ** 2)
    return np.asarray(top - 74 * np.power(rho, 2.4), dtype=np.float32)


def _fill_muscle(canvas: Canvas, plane: int, inside: Array, field: Array) -> None:
    canvas.fill(plane, inside, np.where(field > 1.5, MUSCLE - 35, MUSCLE + 3 * field))


def _paint_shoulder(canvas: Canvas, plane: int, x: Array, y: Array, z: float, side: int, field: Array) -> None:
    """The root of the raised arm with its humerus, and the shoulder blade behind the ribs."""
    if z > 225:
        centre = (side * (118 + 0.45 * (z - 245)), 8 - 0.1 * (z - 245))
        radius = float(np.interp(z, (225, 250, 330), (12, 46, 50)))
        canvas.fill(plane, ellipse(x, y, centre, (radius, radius)), SKIN)
        canvas.fill(plane, ellipse(x, y, centre, (radius - 2, radius - 2)), FAT)
        _fill_muscle(canvas, plane, ellipse(x, y, centre, (radius - 9, radius - 9)), field)
        if z > 262:
            bone = float(np.interp(z, (262, 275, 300, 330), (4, 22, 20, 12)))
            for size, value in ((bone, CORTEX), (bone - 3, SPONGIOSA)):
                canvas.fill(plane, ellipse(x, y, centre, (size, size)), value)
    if 150 < z < 262:
        across = (side * x - 104) * 0.86 + (y - 62) * -0.5
        through = (side * x - 104) * 0.5 + (y - 62) * 0.86
        half = float(np.interp(z, (150, 235, 262), (5, 42, 30)))
        thickness = 3.4 + np.maximum(np.abs(across) - 30, 0) / 6
        blade = np.minimum(half - np.abs(across - 0.12 * (z - 150)), thickness - np.abs(through))
        blade = np.minimum(blade, _trunk(x, y, z) - 14)
        _fill_muscle(canvas, plane, np.minimum(blade + 9, _trunk(x, y, z) - 6), field)
        canvas.fill(plane, blade, CORTEX)
        canvas.fill(plane, blade - 2, MARROW)


def _paint_abdomen(
    canvas: Canvas, plane: int, x: Array, y: Array, z: float, cage: Array, dome: dict[int, Array], field: Array
) -> None:
    """What lies under the domes: liver, spleen, stomach with its bubble; the diaphragm itself is muscle."""
    if z > 125:
        return
    for side in (-1, 1):
        below = np.minimum(np.minimum(-dome[side] * 0.6, cage - 1), side * x + 2)
        canvas.fill(plane, below, MUSCLE)
        canvas.fill(plane, np.minimum(below - 2, -ellipse(x, y, (0, 62), (26, 28))), FAT + 5 * field)
    right = np.minimum(np.minimum(-dome[-1] * 0.6 - 3, cage - 4), 22 - 0.35 * (y + 20) - x)
    left_lobe = np.minimum(ellipsoid(x, y, z, (18, -42, 66), (62, 34, 30)), -dome[1] * 0.6 - 3)
    liver = np.minimum(np.maximum(right, left_lobe), -ellipse(x, y, (0, 56), (36, 42)))
    canvas.fill(plane, liver, LIVER + 2 * field)
    room = np.minimum(-dome[1] * 0.6 - 3, cage - 4)
    canvas.fill(plane, np.minimum(ellipsoid(x, y, z, (92, 40, 48), (26, 46, 42)), room), SPLEEN)
    stomach = np.minimum(ellipsoid(x, y, z, (62, -8, 62), (40, 44, 34), (0.8, -0.3, -0.5)), room)
    canvas.fill(plane, stomach, MUSCLE - 15)
    canvas.fill(plane, stomach - 4, FLUID)
    canvas.fill(plane, np.minimum(stomach - 4, -14 - y), AIR + 15)


def _paint_heart(canvas: Canvas, plane: int, x: Array, y: Array, z: float) -> None:
    if not 60 < z < 200:
        return
    ventricles = ellipsoid(x, y, z, (26, -26, 112), (60, 44, 42), (0.74, -0.42, -0.52))
    right_atrium = ellipsoid(x, y, z, (-20, -16, 126), (27, 34, 40), (1.0, 0.0, 0.0))
    left_atrium = ellipsoid(x, y, z, (4, 14, 143), (36, 20, 24), (1.0, 0.0, 0.0))
    muscle = np.maximum(np.maximum(ventricles, right_atrium), left_atrium)
    canvas.fill(plane, muscle + 3, MEDIASTINAL_FAT)
    canvas.fill(plane, muscle, BLOOD + 8)
    for chamber in (ventricles - 11, right_atrium - 3, left_atrium - 3):
        canvas.fill(plane, chamber, BLOOD)


def _paint_nodule(canvas: Canvas) -> None:
    """A solid nodule with two lobes, 11 mm across."""
    x, y, z = NODULE
    canvas.tube([(x - 1, y, z), (x + 1, y + 1, z + 0.5)], [NODULE_RADIUS - 0.6, NODULE_RADIUS - 1], 30.0, in_lung=True)
