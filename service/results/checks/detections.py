"""Does a region lie where something was detected? By the positions in the source's own headers, not by the volume's."""

import numpy as np

from engines.types import Volume
from service.results.analysis import Analysis
from service.results.contours import Points
from service.results.detected import Detected
from service.results.source import OFF_PLACE_MM, Plane


def lies_at(points: Points, index: int, found: Detected, analysis: Analysis) -> bool:
    """Whether a ring or a point on a slice lies in a detection, and on its middle slice around the detection's centre.

    Parameters
    ----------
    points
        Row and column, whole numbers are the centres of pixels.
    index
        Of the slice.
    """
    low, high = np.array(found.detection.low), np.array(found.detection.high)
    if not isinstance(analysis.image, Volume):
        last = np.array(analysis.image.array.shape) - 0.5
        inside = np.clip([low, high], -0.5, last)
        return bool(np.allclose([points.min(axis=0), points.max(axis=0)], inside, atol=1e-3))
    plane = analysis.source.planes[index]
    positions = _positions(points, plane)
    away = np.linalg.norm(positions - np.clip(positions, low, high), axis=1)
    # what lies between two slices is drawn on the nearer one, at most half the way to the next
    tolerance = OFF_PLACE_MM + _step(analysis) / 2
    near = bool((away <= tolerance).all())
    return near and (index != found.middle or _around(points, (low + high) / 2, plane, tolerance))


def _positions(points: Points, plane: Plane) -> Points:
    """Row and column as LPS mm (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.array(plane.orientation).reshape(2, 3)
    rows, columns = points[:, :1] * plane.spacing[0], points[:, 1:] * plane.spacing[1]
    positions: Points = np.array(plane.position) + rows * along_column + columns * along_row
    return positions


def _around(points: Points, centre: Points, plane: Plane, tolerance: float) -> bool:
    """Whether a centre, straight above or below, lies between the outermost points, give or take so many mm."""
    away = centre - plane.position
    along_row, along_column = np.array(plane.orientation).reshape(2, 3)
    place = np.array([away @ along_column, away @ along_row])
    least, largest = points.min(axis=0) * plane.spacing, points.max(axis=0) * plane.spacing
    return bool(((place >= least - tolerance) & (place <= largest + tolerance)).all())


def _step(analysis: Analysis) -> float:
    """The largest distance between neighbouring slices in mm."""
    positions = np.array([plane.position for plane in analysis.source.planes])
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).max(initial=0.0))
