"""Where a finding lies within one image: lines that any viewer draws (PS3.3 C.10.5.1.2, C.18.6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.types import ClassProbability, Findings, LabelMap, Measurement, Segment, Volume
from service.results.analysis import Analysis
from service.results.contours import Points, Polygon, polygons, simplified
from service.results.detected import Detected

MOST_POINTS = 200
"""Of an outline: enough for the eye. The voxels themselves are in the segmentation."""
FINEST = 0.25
"""An outline that is this far off, in pixels, still holds the centres of the same pixels."""
ACTIVE = 0.5
"""What an image says for a class counts where it is at least this share of the most that it says for it."""


@dataclass(frozen=True, eq=False)
class Region:
    """A line on one image.

    Attributes
    ----------
    slice
        Index of the slice, and of its plane in `service.results.source.Source`; 0 for an X-ray.
    points
        Row and column; whole numbers are the centres of pixels. The last joins the first only where it repeats it.
    """

    slice: int
    points: Points

    @property
    def coordinates(self) -> NDArray[np.float32]:
        """Column and row as the standard counts them: from 0 at the outer corner of the first pixel, ``[n, 2]``."""
        return on_image(self.points).astype(np.float32)


def on_image(points: Points) -> Points:
    """From row and column to column and row as the standard has them: the first pixel spans 0 to 1 (PS3.3 C.10.5)."""
    return points[:, ::-1] + 0.5


def measured(findings: Findings, segment: Segment, along_a_line: bool) -> tuple[Measurement, ...]:
    """The measurements of one segment that have a value; that of an empty segment has none (its mean, say, is NaN)."""
    return tuple(
        entry
        for entry in findings.measurements
        if entry.segment == segment.number and np.isfinite(entry.value) and bool(entry.points) == along_a_line
    )


def drawn_on(label_map: LabelMap, segment: Segment, lines: Sequence[Measurement]) -> int:
    """The slice that stands for a segment: the one that its diameter was measured on, or where it has most voxels."""
    return int(lines[0].points[0][0] if lines else label_map.counts[:, segment.number].argmax())


def outline(label_map: LabelMap, segment: Segment, index: int) -> Region:
    """Around the largest part of a segment on a slice that has some of it; holes are left out."""
    largest = max(polygons(label_map.slices[index] == segment.number), key=_area)
    return Region(index, _closed(_few(largest.outer)))


def line(measurement: Measurement) -> Region:
    """What a measurement was taken along."""
    return Region(int(measurement.points[0][0]), np.array([point[1:] for point in measurement.points]))


def class_regions(analysis: Analysis) -> Iterator[tuple[ClassProbability, Region | None]]:
    """Of each class, the box around where the image speaks for it.

    Where the model has no such map, or nothing speaks for a class, those that the image is said to show
    (`engines.types.Classification.present`) have a box around all that was classified; others have none. Of a volume
    that is the border of the middle image.
    """
    findings = analysis.findings
    for entry in findings.classification.classes if findings.classification else ():
        where = None
        if entry.activation is not None and entry.activation.any():
            where = entry.activation >= ACTIVE * entry.activation.max()
        elif findings.classification and entry in findings.classification.present:
            if isinstance(analysis.image, Volume):
                yield entry, frame(analysis)
                continue
            where = _classified(findings, analysis.image.array.shape)
        yield entry, None if where is None else Region(0, _box(where))


def detected_regions(found: Detected) -> list[Region]:
    """A detection on each slice that it is on, in their order."""
    return [Region(index, points) for index, points in found.on.items()]


def frame(analysis: Analysis) -> Region:
    """The border of the middle image: where was looked."""
    slices, rows, columns = analysis.image.array.reshape(-1, *analysis.image.array.shape[-2:]).shape
    return Region(slices // 2, _box(np.ones((rows, columns), bool)))


def _classified(findings: Findings, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The segments of the same findings where there are any, else the whole image."""
    if findings.label_map and findings.label_map.present:
        return findings.label_map.array > 0
    return np.ones(shape, bool)


def _box(mask: NDArray[np.bool_]) -> Points:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0] - 0.5, rows[-1] + 0.5, columns[0] - 0.5, columns[-1] + 0.5
    return _closed(np.array([[top, left], [top, right], [bottom, right], [bottom, left]]))


def _few(ring: Points) -> Points:
    """Coarser and coarser, until there are not too many points; each that stays is one of the ring's."""
    points, tolerance = simplified(ring, FINEST), FINEST
    while len(points) >= MOST_POINTS:
        tolerance *= 1.5
        points = simplified(points, tolerance)
    return points


def _closed(ring: Points) -> Points:
    return np.concatenate([ring, ring[:1]])


def _area(polygon: Polygon) -> float:
    """In pixels (the shoelace formula)."""
    row, column = polygon.outer.T
    return abs(float(row @ np.roll(column, -1) - column @ np.roll(row, -1))) / 2
