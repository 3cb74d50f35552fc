"""Where detections lie on the images: a ring, or a point, on each slice that they are on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.types import Affine, Detection, Findings, Image, Volume
from service.results.contours import Points

ROUNDING = 1e-6
"""In mm: a box that ends where an image does, or lies flat in it, is on it."""


@dataclass(frozen=True, eq=False)
class Detected:
    """One detection on the images.

    Attributes
    ----------
    detection
        What it is.
    middle
        The slice nearest to its centre; 0 in an X-ray.
    on
        Where it is on each slice that it is on, the middle one always among them: row and column, whole numbers are
        the centres of pixels. A box is a ring whose last point repeats its first, a point is one point. Nothing reaches
        beyond the image.
    """

    detection: Detection
    middle: int
    on: Mapping[int, Points]


def detected(findings: Findings, image: Image) -> tuple[Detected, ...]:
    """All detections on their image, the highest score first."""
    found = findings.detections.found if findings.detections else ()
    if isinstance(image, Volume):
        return tuple(_in_volume(entry, image) for entry in found)
    return tuple(Detected(entry, 0, {0: _in_image(entry, image.array.shape)}) for entry in found)


def is_point(detection: Detection) -> bool:
    """Whether it is a point, and no box."""
    return detection.low == detection.high


def _in_image(detection: Detection, shape: tuple[int, ...]) -> Points:
    last = np.array(shape) - 0.5
    (top, left), (bottom, right) = np.clip([detection.low, detection.high], -0.5, last)
    if is_point(detection):
        return np.array([[top, left]])
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left], [top, left]])


def _in_volume(detection: Detection, volume: Volume) -> Detected:
    places = np.array(range(len(volume.array)) if volume.at is None else volume.at, np.float64)
    low, high = np.array(detection.low), np.array(detection.high)
    to_index = np.linalg.inv(volume.affine)
    centre = to_index[:3, :3] @ ((low + high) / 2) + to_index[:3, 3]
    middle = int(np.abs(places - centre[0]).argmin())
    if is_point(detection):
        point = np.clip(centre[1:], -0.5, np.array(volume.array.shape[1:]) - 0.5)
        return Detected(detection, middle, {middle: point[None]})
    # a flat box, or one between two slices, is drawn where its middle slice cuts it when its centre lies in it
    moved = (places[middle] - centre[0]) * volume.affine[:3, 0]
    on = {middle: _cut(low + moved, high + moved, volume.slice_affine(middle), volume.array.shape[1:])}
    for index in _slices_within(low, high, to_index.astype(np.float64), places):
        ring = _cut(low, high, volume.slice_affine(index), volume.array.shape[1:])
        if index != middle and len(ring):
            on[index] = ring
    return Detected(detection, middle, dict(sorted(on.items())))


def _slices_within(
    low: NDArray[np.float64], high: NDArray[np.float64], to_index: Affine, places: NDArray[np.float64]
) -> Iterator[int]:
    """The slices that lie between the outermost corners of a box."""
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1).reshape(-1, 3)
    along = corners @ to_index[0, :3] + to_index[0, 3]
    yield from np.flatnonzero((places >= along.min() - ROUNDING) & (places <= along.max() + ROUNDING)).tolist()


def _cut(low: NDArray[np.float64], high: NDArray[np.float64], plane: Affine, shape: tuple[int, ...]) -> Points:
    """The part of an image that lies in a box along the patient's axes: the image, cut at each side of the box.

    Parameters
    ----------
    plane
        From ``(0, row, column, 1)`` to LPS mm.

    Returns
    -------
    Points
        A closed ring; empty where the image does not meet the box.
    """
    bottom, right = shape[0] - 0.5, shape[1] - 0.5
    ring = np.array([[-0.5, -0.5], [-0.5, right], [bottom, right], [bottom, -0.5]])
    for axis in range(3):
        for side, sign in ((low[axis], 1.0), (high[axis], -1.0)):
            if not len(ring):
                return ring
            place = ring @ plane[axis, 1:3] + plane[axis, 3]
            ring = _cut_at(ring, sign * (place - side))
    return np.concatenate([ring, ring[:1]])


def _cut_at(ring: Points, above: NDArray[np.float64]) -> Points:
    """The part of a convex ring where a height, linear on it, is not below 0 (Sutherland and Hodgman, 1974)."""
    kept: list[NDArray[np.float64]] = []
    for index in range(len(ring)):
        point, height = ring[index], above[index]
        after, height_after = ring[(index + 1) % len(ring)], above[(index + 1) % len(ring)]
        if height >= -ROUNDING:
            kept.append(point)
        if (height > ROUNDING and height_after < -ROUNDING) or (height < -ROUNDING and height_after > ROUNDING):
            kept.append(point + (after - point) * height / (height - height_after))
    return np.array(kept).reshape(-1, 2)
