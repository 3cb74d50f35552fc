"""How long a lesion is: the diameters that radiologists measure on a slice (RECIST 1.1, Eisenhauer et al., 2009)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import SimpleITK
from numpy.typing import NDArray

Point = tuple[float, float, float]
"""Slice, row and column of an array; whole numbers are the centres of voxels."""
Points = NDArray[np.float64]
"""``[n, 2]``, row and column."""


@dataclass(frozen=True)
class Diameter:
    """A straight line on one slice, from end to end, and its length in mm."""

    millimetres: float
    ends: tuple[Point, Point]


def long_and_short_axis(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> tuple[Diameter, Diameter]:
    """Measure the longest diameter within a slice, and the longest one that is perpendicular to it there.

    Ends lie on the outline, midway between a voxel inside and its neighbour outside, so that one voxel is one voxel
    long. Each connected region of a slice is a lesion of its own; the longest counts. The short axis is that of the
    region's convex hull.

    Parameters
    ----------
    mask
        ``[slice, row, column]``, with at least one voxel.
    spacing
        Between rows and between columns, in mm.
    """
    scale = np.array(spacing)
    rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    inside = mask[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corner = np.array([rows[0], columns[0]])
    longest, at, ring = 0.0, 0, np.zeros((0, 2))
    # no diameter is longer than the diagonal of the box: what cannot be longer is not looked at
    for index in sorted(np.flatnonzero(inside.any(axis=(1, 2))), key=lambda number: -_reach(inside[number], scale)):
        if _reach(inside[index], scale) <= longest:
            break
        for component, origin in _components(inside[index], longest, scale):
            hull = _convex_hull(_outline(component) * scale)
            length = float(_distances(hull).max())
            if length > longest:
                longest, at, ring = length, int(index), hull + (corner + origin) * scale
    one, other = np.unravel_index(int(_distances(ring).argmax()), (len(ring), len(ring)))
    short = _widest_across(ring, ring[one], ring[other])
    return _diameter(at, ring[[one, other]], scale), _diameter(at, short, scale)


def _reach(mask: NDArray[np.bool_], scale: Points) -> float:
    """The diagonal of the box around a mask, in mm."""
    heights, widths = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    sides = np.array([heights[-1] - heights[0] + 1, widths[-1] - widths[0] + 1]) * scale
    return float(np.hypot(*sides))


def _components(
    mask: NDArray[np.bool_], longer_than: float, scale: Points
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Each connected region whose box has a longer diagonal, and the row and column where its box begins."""
    components = SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(mask.astype(np.uint8)))
    labels = SimpleITK.GetArrayFromImage(components)
    places = np.argwhere(labels)
    numbers = labels[labels > 0]
    first, last = np.full((numbers.max() + 1, 2), max(mask.shape)), np.zeros((numbers.max() + 1, 2), np.int64)
    np.minimum.at(first, numbers, places)
    np.maximum.at(last, numbers, places)
    diagonals = np.hypot(*((last - first + 1) * scale).T)
    diagonals[0] = 0
    for number in np.flatnonzero(diagonals > longer_than):
        (top, left), (bottom, right) = first[number], last[number] + 1
        yield labels[top:bottom, left:right] == number, first[number]


def _outline(mask: NDArray[np.bool_]) -> Points:
    """The outermost points of the outline, in every row and every column."""
    points = []
    for axis in (0, 1):
        lines = mask if axis == 0 else mask.T
        first, last = lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
        at = np.arange(len(lines), dtype=np.float64)
        for across in (first - 0.5, last + 0.5):
            pair = (at, across) if axis == 0 else (across, at)
            points.append(np.stack(pair, axis=1))
    return np.concatenate(points)


def _convex_hull(points: Points) -> Points:
    """The corners of the smallest convex polygon around points, in order (Andrew's monotone chain, 1979)."""
    ordered = np.unique(points, axis=0).tolist()
    halves = (_half_hull(ordered), _half_hull(ordered[::-1]))
    return np.array(list(chain.from_iterable(half[:-1] for half in halves)))


def _half_hull(points: list[list[float]]) -> list[list[float]]:
    half: list[list[float]] = []
    for point in points:
        while len(half) > 1 and _turn(half[-2], half[-1], point) <= 0:
            half.pop()
        half.append(point)
    return half


def _turn(start: list[float], middle: list[float], end: list[float]) -> float:
    """Above 0 for a turn to one side, below 0 to the other."""
    return (middle[0] - start[0]) * (end[1] - start[1]) - (middle[1] - start[1]) * (end[0] - start[0])


def _distances(points: Points) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))
    return distances


def _widest_across(ring: Points, start: Points, end: Points) -> Points:
    """The longest line across a convex polygon that is perpendicular to the one from start to end.

    How wide the polygon is changes linearly between its corners, so that it is widest at a corner.
    """
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]])
    place, height = (ring - start) @ along, (ring - start) @ across
    one_side, other_side = (_edge(place, side * height) for side in (1, -1))
    upper, lower = (np.interp(place, *side) for side in (one_side, other_side))
    widest = int((upper + lower).argmax())
    at = start + place[widest] * along
    return np.stack([at + upper[widest] * across, at - lower[widest] * across])


def _edge(place: NDArray[np.float64], height: NDArray[np.float64]) -> tuple[Points, Points]:
    """One side of a convex polygon that the line between its ends divides: the corners on or above that line."""
    above = height >= -1e-9
    order = np.argsort(place[above], kind="stable")
    return place[above][order], np.maximum(height[above][order], 0)


def _diameter(at: int, ends: Points, scale: Points) -> Diameter:
    first, second = (ends / scale).tolist()
    return Diameter(float(np.hypot(*(ends[1] - ends[0]))), ((float(at), *first), (float(at), *second)))
