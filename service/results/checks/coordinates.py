"""Lines on images as a report has them (PS3.3 C.18.6), and what they go around."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from pydicom import Dataset

from service.results.contours import Points, inside

SAME_PLACE = 0.6
"""Least overlap (Dice) of an outline with what it goes around: an outline of a ragged part has few points."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A line on an image: row and column, whole numbers being the centres of pixels; the image, and its frame."""

    points: Points
    image: str
    frame: int | None

    @classmethod
    def read(cls, item: Dataset) -> Self:
        """From a decoded content item of the type SCOORD."""
        if item.GraphicType != ("POINT" if len(item.GraphicData) == 2 else "POLYLINE"):
            raise ValueError("a region that is neither a polyline nor a point")
        [selected] = item.ContentSequence
        [reference] = selected.ReferencedSOPSequence
        frame = reference.get("ReferencedFrameNumber")
        points = np.array(item.GraphicData, np.float64).reshape(-1, 2)[:, ::-1] - 0.5
        return cls(points, reference.ReferencedSOPInstanceUID, None if frame is None else int(frame))

    def within(self, shape: Sequence[int]) -> bool:
        """No point lies outside of an image of so many rows and columns."""
        return bool(((self.points >= -0.5) & (self.points <= np.array(shape) - 0.5)).all())


def length(points: Points, spacing: Sequence[float]) -> float:
    """From the first point to the last, in mm."""
    return float(np.hypot(*((points[-1] - points[0]) * spacing)))


def follows(points: Points, mask: NDArray[np.bool_]) -> bool:
    """Whether a closed line goes around a mask, or the largest part of one.

    Every corner must lie midway between a pixel inside and its neighbour outside, and the line must hold a large part
    of the mask and not much else; holes count as inside.
    """
    if len(points) < 4 or not np.array_equal(points[0], points[-1]):
        return False
    between = points % 1 == 0.5
    if not (between.sum(axis=1) == 1).all():
        return False
    padded = np.pad(mask, 1)
    one, other = (padded[tuple(side.astype(int).T + 1)] for side in (np.floor(points), np.ceil(points)))
    if not (one != other).all():
        return False
    components = SimpleITK.GetArrayFromImage(
        SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(mask.astype(np.uint8)))
    )
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    held = inside([points[:-1]], (mask.shape[0], mask.shape[1]))
    shares = np.bincount(components[held], minlength=len(sizes))
    shares[0] = 0
    around = _filled(components == shares.argmax())
    overlap = 2 * np.count_nonzero(held & around) / (np.count_nonzero(held) + np.count_nonzero(around))
    return bool(overlap >= SAME_PLACE and 2 * np.count_nonzero(around) >= sizes.max())


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled = SimpleITK.BinaryFillhole(SimpleITK.GetImageFromArray(mask.astype(np.uint8)))
    return np.asarray(SimpleITK.GetArrayFromImage(filled) > 0)
