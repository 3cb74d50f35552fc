"""The frames of a Segmentation object: which there are, and what each of them shows (PS3.3 C.8.20.2)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.types import LabelMap, Segment

SegmentationType = Literal["BINARY", "LABELMAP", "FRACTIONAL"]


class Frames(Protocol):
    """Frames by channel and slice; only those that show anything are stored.

    Attributes
    ----------
    type
        Segmentation Type (0062,0001).
    shape
        Rows and columns.
    present
        Which frames show anything, ``[channel, slice]``. Each segment is a channel, counted from 0; a label map has one
        for all.
    """

    type: ClassVar[SegmentationType]

    @property
    def shape(self) -> tuple[int, int]:
        """See above."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """See above."""

    def draw(self, channel: int, index: int, frame: NDArray[np.uint8]) -> None:
        """Write the stored values of a frame into an array, ``[row, column]``."""


@dataclass(frozen=True, eq=False)
class Masks:
    """For each segment the voxels that are its own, as 0 and 1."""

    label_map: LabelMap
    segments: tuple[Segment, ...]
    type: ClassVar[SegmentationType] = "BINARY"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return _shape(self.label_map.array)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """``[segment, slice]``."""
        return self.label_map.counts[:, [segment.number for segment in self.segments]].T > 0

    def draw(self, channel: int, index: int, frame: NDArray[np.uint8]) -> None:
        """1 where the segment is."""
        np.equal(self.label_map.slices[index], self.segments[channel].number, out=frame.view(np.bool_))


@dataclass(frozen=True, eq=False)
class Labels:
    """All segments in one frame for each slice, numbered from 1 without a gap."""

    label_map: LabelMap
    segments: tuple[Segment, ...]
    type: ClassVar[SegmentationType] = "LABELMAP"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return _shape(self.label_map.array)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """``[0, slice]``."""
        of_segments = Masks(self.label_map, self.segments).present
        return np.array([of_segments.any(axis=0)])

    @cached_property
    def _numbers(self) -> NDArray[np.uint8]:
        numbers = np.zeros(256, np.uint8)
        numbers[[segment.number for segment in self.segments]] = np.arange(1, len(self.segments) + 1)
        return numbers

    def draw(self, channel: int, index: int, frame: NDArray[np.uint8]) -> None:
        """The number of the segment at each pixel; 0 is background."""
        labels = self.label_map.slices[index]
        # the labels are within the table: "clip" only spares numpy a buffer
        np.take(self._numbers, labels, out=frame, mode="clip")


@dataclass(frozen=True, eq=False)
class Fractions:
    """For each segment how sure it is at each pixel, ``[slice, row, column]``, uint8; 255 is a whole."""

    values: tuple[NDArray[np.uint8], ...]
    type: ClassVar[SegmentationType] = "FRACTIONAL"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return _shape(self.values[0])

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """``[segment, slice]``."""
        return np.array([[frame.any() for frame in segment] for segment in self.values], np.bool_)

    def draw(self, channel: int, index: int, frame: NDArray[np.uint8]) -> None:
        """The fractions of one segment."""
        frame[:] = self.values[channel][index]


def _shape(array: NDArray[np.uint8]) -> tuple[int, int]:
    rows, columns = array.shape[-2:]
    return int(rows), int(columns)
