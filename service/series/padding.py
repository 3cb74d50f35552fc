"""Pixels that are there only to make the image a rectangle (PixelPaddingValue, PS3.3 C.7.5.1.1.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from service.series.pixel_description import PixelDescription

PADDING_HU = -1024
"""What padding becomes in a CT: the lowest value of the 12-bit scale, with which most scanners fill what lies outside
of their field of view. It is air to every model, and near enough to real air (-1000) that interpolation across the edge
of the field does not darken the tissue there, as -2000 or -3024 would."""


@dataclass(frozen=True)
class Padding:
    """The stored values that mean padding: from ``low`` to ``high``, both included."""

    low: int
    high: int

    def mask(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Find the padding of a frame.

        Many headers name a value that the image uses, 0 in signed CT for example, which is water. So padding counts
        only if it lies as padding does: it reaches the edge of the frame, and all other pixels are on one side of it,
        brighter or darker.

        Returns
        -------
        array
            Shape of ``stored``, true where there is padding; None where there is none.
        """
        edges = (stored[0], stored[-1], stored[:, 0], stored[:, -1])
        if not any(self._at(edge).any() for edge in edges):
            return None
        found = self._at(stored)
        above, below = stored.max() > self.high, stored.min() < self.low
        return None if above and below else found

    def _at(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        if self.low == self.high:
            equal: NDArray[np.bool_] = stored == self.low
            return equal
        return (stored >= self.low) & (stored <= self.high)


def padding(data_set: Dataset, description: PixelDescription) -> Padding | None:
    """Read which stored values are padding, None where the header does not say.

    The values have the sign of the pixels, whatever VR the file gives them (63536 in signed 16-bit pixels is -2000).
    One that no pixel can have is not padding.
    """
    value, limit = data_set.get("PixelPaddingValue"), data_set.get("PixelPaddingRangeLimit")
    try:
        ends = [_as_pixel(int(each), description) for each in (value, value if limit is None else limit)]
    except (TypeError, ValueError):
        return None
    low, high = np.iinfo(description.kind).min, np.iinfo(description.kind).max
    if min(ends) < low or max(ends) > high:
        return None
    return Padding(min(ends), max(ends))


def without_padding(hounsfield: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Make air of the padding of a CT slice: a copy with `PADDING_HU` where ``mask`` is true, itself without a mask."""
    if mask is None:
        return hounsfield
    return np.where(mask, hounsfield.dtype.type(PADDING_HU), hounsfield)


def _as_pixel(value: int, description: PixelDescription) -> int:
    """Wrap a value to the sign of the pixel cell; one that fits neither way stays as it is."""
    size = 1 << description.allocated
    if description.signed and size // 2 <= value < size:
        return value - size
    if not description.signed and -size // 2 <= value < 0:
        return value + size
    return value
