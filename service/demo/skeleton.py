"""The phantom's bones: spine, ribs with their cartilage, sternum and clavicles."""

import numpy as np

from service.demo.canvas import Array, Canvas, Point, ellipse
from service.demo.tissue import CAGE_DEPTH, CAGE_WIDTH, CARTILAGE, CORTEX, FLUID, MARROW, SPONGIOSA, profile

VERTEBRA_TOP, VERTEBRA_HEIGHT = 285.0, 25.0

# Ribs 1–10 from the spine: drop to the front (mm), angle at which bone ends (°, 0 = back), z of the sternal insertion.
RIB_DROP = (24, 40, 50, 58, 64, 68, 70, 70, 66, 58)
RIB_END = (148, 150, 149, 147, 144, 139, 132, 124, 114, 100)
RIB_INSERTION = (248, 228, 208, 190, 173, 158, 146, 132, 118, None)


def paint_spine(canvas: Canvas, plane: int, x: Array, y: Array, z: float, wall: Array) -> None:
    """Vertebral bodies with discs between them, the ring around the canal, transverse and spinous processes."""
    phase = (VERTEBRA_TOP - z) % VERTEBRA_HEIGHT - VERTEBRA_HEIGHT / 2
    waist = 1 - 0.06 * np.cos(np.pi * phase / VERTEBRA_HEIGHT)
    body = ellipse(x, y, (0, 60), (18.5 * waist, 15.5 * waist), 2.3)
    if abs(phase) > VERTEBRA_HEIGHT / 2 - 2.5:
        canvas.fill(plane, body, CARTILAGE - 15)
    else:
        endplate = abs(phase) > VERTEBRA_HEIGHT / 2 - 4.5
        canvas.fill(plane, body, CORTEX * 0.7)
        canvas.fill(plane, body - 1.5, CORTEX * 0.6 if endplate else SPONGIOSA)
    canal = ellipse(x, y, (0, 84), (9.5, 8.5))
    arch = float(np.interp(abs(phase), (0, 9, 12), (4.5, 4.0, 1.5)))
    processes = np.maximum(
        np.minimum(3.5 - np.abs(x), np.minimum(y - 88, np.minimum(112 - 0.5 * abs(phase) - y, wall - 6))),
        np.minimum(np.minimum(33 - np.abs(x), np.abs(x) - 8), 4.5 - abs(phase + 4) - np.abs(y - 80 - 0.15 * np.abs(x))),
    )
    ring = np.maximum(np.minimum(canal + arch, -canal), processes)
    canvas.fill(plane, ring, CORTEX * 0.8)
    canvas.fill(plane, ring - 1.6, SPONGIOSA + 60)
    canvas.fill(plane, canal, FLUID)
    canvas.fill(plane, ellipse(x, y, (0, 84), (5.5, 4)), 35.0)


def _rib(index: int, side: int) -> tuple[list[Point], list[Point]]:
    """Bony path of one rib from the spine to the front, and its cartilage to the sternum."""
    level = VERTEBRA_TOP - VERTEBRA_HEIGHT * index
    angles = np.radians(np.linspace(16, RIB_END[index], 26))
    z = level - RIB_DROP[index] * (1 - np.cos(angles)) / 2 * 1.15
    width, depth = profile(CAGE_WIDTH, z.astype(np.float32)) + 5, profile(CAGE_DEPTH, z.astype(np.float32)) + 5
    sine, cosine = np.sin(angles), np.cos(angles)
    reach = ((np.abs(sine) / width) ** 2.3 + (np.abs(cosine) / depth) ** 2.3) ** (-1 / 2.3)
    bone: list[Point] = [(side * 20.0, 72.0, level + 2.0)]
    bone += [(side * float(r * s), float(r * c), float(h)) for r, s, c, h in zip(reach, sine, cosine, z, strict=True)]
    insertion = RIB_INSERTION[index]
    if insertion is None:
        return bone, []
    end = bone[-1]
    front = -float(profile(CAGE_DEPTH, float(insertion))) - 3
    middle = ((end[0] + side * 14) / 2, min(end[1], front) * 0.75 + end[1] * 0.25, (end[2] * 0.6 + insertion * 0.4))
    return bone, [end, middle, (side * 14.0, front, float(insertion))]


def paint_skeleton(canvas: Canvas) -> None:
    """Ribs with their cartilage, sternum and clavicles; cortex first, marrow inside it."""
    ribs = [_rib(index, side) for index in range(len(RIB_DROP)) for side in (-1, 1)]
    clavicles = [
        [
            (side * 16.0, -70.0, 254.0),
            (side * 55.0, -66.0, 264.0),
            (side * 95.0, -30.0, 276.0),
            (side * 128.0, -6.0, 290.0),
        ]
        for side in (-1, 1)
    ]
    for _, cartilage in ribs:
        canvas.tube(cartilage, [5.0] * len(cartilage), CARTILAGE)
    for radius, value in ((5.0, CORTEX), (3.4, MARROW)):
        for bone, _ in ribs:
            canvas.tube(bone, [radius] * len(bone), value)
        for clavicle in clavicles:
            canvas.tube(clavicle, [radius + 1] * 4, value)
    heights = np.arange(122, 256, 4.0)
    fronts = -profile(CAGE_DEPTH, heights.astype(np.float32)) - 5
    for inset, value in ((0.0, CORTEX * 0.7), (1.8, MARROW)):
        for shift in (-10.0, -5.0, 0.0, 5.0, 10.0):
            path = [(shift, float(front), float(height)) for front, height in zip(fronts, heights, strict=True)]
            canvas.tube(path, [5.5 - inset] * len(path), value)
