"""The outlines of all that was segmented, slice by slice: what contours, presentation states and pictures draw."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engines.types import Segment
from service.results.analysis import Analysis
from service.results.contours import Polygon, polygons


@dataclass(frozen=True, eq=False)
class Outline:
    """One segment on one slice.

    Attributes
    ----------
    number
        Of the segment in `Analysis.segments`, from 1.
    segment
        What it is.
    slice
        Index of the slice, and of its plane in `service.results.source.Source`; 0 in an X-ray.
    polygons
        Its regions in pixels.
    """

    number: int
    segment: Segment
    slice: int
    polygons: tuple[Polygon, ...]


def outlines(analysis: Analysis) -> Iterator[Outline]:
    """The outlines of each segment in turn, from the first slice to the last; slices without it have none."""
    number = 0
    for label_map in analysis.label_maps:
        for segment in label_map.present:
            number += 1
            for index in np.flatnonzero(label_map.counts[:, segment.number]).tolist():
                found = polygons(label_map.slices[index] == segment.number)
                yield Outline(number, segment, index, tuple(found))
