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
        Of the segment among those that have a voxel, counted from 1 through all label maps.
    segment
        What it is.
    slice
        Index of the slice, and of its plane in `service.results.source.Source`; 0 in an X-ray.
    voxels
        How many of its voxels, or pixels, are in the slice.
    polygons
        Its regions in pixels.
    """

    number: int
    segment: Segment
    slice: int
    voxels: int
    polygons: tuple[Polygon, ...]


def segments_of(analysis: Analysis) -> tuple[Segment, ...]:
    """All segments that have a voxel, in the order of their numbers in outlines, whichever label map they are in."""
    return tuple(segment for label_map in analysis.label_maps for segment in label_map.present)


def outlines(analysis: Analysis) -> Iterator[Outline]:
    """The outlines of each segment in turn, from the first slice to the last; slices without it have none."""
    number = 0
    for label_map in analysis.label_maps:
        planes = label_map.array.reshape(-1, *label_map.array.shape[-2:])
        counts = [np.bincount(plane.ravel(), minlength=256) for plane in planes]
        for segment in label_map.present:
            number += 1
            for index, plane in enumerate(planes):
                if voxels := int(counts[index][segment.number]):
                    yield Outline(number, segment, index, voxels, tuple(polygons(plane == segment.number)))
