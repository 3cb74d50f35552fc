"""Outlines of what was found, as polygons on the pixel grid, and the pixels that polygons hold.

Points are ``(row, column)``; whole numbers are the centres of pixels, so that an image covers -0.5 to rows - 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Corners of a closed ring, ``[n, 2]``, row and column; the last is joined to the first, which is not repeated."""


@dataclass(frozen=True, eq=False)
class Polygon:
    """One connected region: its outer ring, and a ring around each of its holes."""

    outer: Points
    holes: tuple[Points, ...] = ()

    @property
    def rings(self) -> tuple[Points, ...]:
        """All rings, the outer one first."""
        return (self.outer, *self.holes)


def polygons(mask: NDArray[np.bool_]) -> list[Polygon]:
    """The regions of a mask, by marching squares at one half (Lorensen and Cline, 1987, in two dimensions).

    Rings run midway between the centres of a pixel inside and its neighbour outside, so that `inside` gives back
    exactly the mask. A region that touches the border of the image reaches half a pixel beyond its centres.

    Parameters
    ----------
    mask
        ``[row, column]``.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return []
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    padded = np.pad(box, 1).astype(np.float64)
    generator = contour_generator(z=padded, name="serial", fill_type=FillType.OuterOffset)
    # contourpy counts columns as x and rows as y
    origin = np.array([rows[0] - 1, columns[0] - 1], np.float64)
    found = []
    for points, offsets in zip(*generator.filled(0.5, np.inf), strict=True):
        corners = np.asarray(points, np.float64)[:, ::-1] + origin
        rings = [_corners(corners[start : end - 1]) for start, end in pairwise(offsets)]
        found.append(Polygon(rings[0], tuple(rings[1:])))
    return found


def inside(rings: Sequence[Points], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres lie in an odd number of rings: within a polygon, and not in its holes.

    Parameters
    ----------
    rings
        Of one polygon or of several that do not overlap; those that a channel joins (a keyhole) count as one.
    shape
        Rows and columns of the image.

    Returns
    -------
    NDArray[np.bool_]
        ``[row, column]``.
    """
    starts = np.concatenate([np.zeros((0, 2)), *rings])
    ends = np.concatenate([np.zeros((0, 2)), *(np.roll(ring, -1, axis=0) for ring in rings)])
    whole = np.zeros(shape, bool)
    if not len(starts):
        return whole
    # all of it happens in the box around the rings
    low = np.clip(np.ceil(starts.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.floor(starts.max(axis=0)) + 1, low, shape).astype(int)
    rows, width = high[0] - low[0], high[1] - low[1] + 1
    starts, ends = starts - low, ends - low
    # each edge crosses the rows from its upper end to above its lower one, so that a corner on a row counts once
    upper, lower = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    first = np.clip(np.ceil(upper), 0, rows).astype(int)
    counts = np.clip(np.ceil(lower), 0, rows).astype(int) - first
    edges = np.repeat(np.arange(len(starts)), counts)
    row = first[edges] + np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
    start, step = starts[edges], (ends - starts)[edges]
    crossing = start[:, 1] + (row - start[:, 0]) * step[:, 1] / step[:, 0]
    # a crossing turns all pixels to its right from outside to inside, or back
    column = np.clip(np.ceil(crossing), 0, width - 1).astype(int)
    turns = np.bincount(row * width + column, minlength=rows * width).reshape(rows, width)
    odd = np.logical_xor.accumulate(turns[:, :-1] % 2 == 1, axis=1)
    whole[low[0] : high[0], low[1] : high[1]] = odd
    return whole


def simplified(points: Points, tolerance: float) -> Points:
    """Leave out corners of a ring that lie near the line between those that stay (Douglas and Peucker, 1973).

    Parameters
    ----------
    points
        A ring.
    tolerance
        How far, in pixels, a corner that is left out may lie from the ring that stays.

    Returns
    -------
    Points
        A ring of at least three corners where the given one has them.
    """
    if len(points) <= 3:
        return points
    opposite = int(np.argmax(np.hypot(*(points - points[0]).T)))
    ring = np.concatenate([points, points[:1]])
    stays = np.zeros(len(ring), bool)
    stays[[0, opposite]] = True
    spans = [(0, opposite), (opposite, len(ring) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        squared = _squared_distances(ring[start + 1 : end], ring[start], ring[end])
        farthest = int(squared.argmax())
        if squared[farthest] > tolerance**2:
            middle = start + 1 + farthest
            stays[middle] = True
            spans += [(start, middle), (middle, end)]
    if stays[:-1].sum() < 3:
        stays[int(np.argmax(_squared_distances(points, points[0], points[opposite])))] = True
    return points[stays[:-1]]


def _corners(ring: Points) -> Points:
    """Leave out the points in the middle of a straight line: the ring stays what it is."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: Points = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return turns


def _squared_distances(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """From each point to the segment between two."""
    along, offsets = end - start, points - start
    share = np.minimum(np.maximum(offsets @ along / max(float(along @ along), 1e-12), 0.0), 1.0)
    offsets -= share[:, None] * along
    squared: NDArray[np.float64] = np.einsum("ij,ij->i", offsets, offsets)
    return squared
