"""How an X-ray has to be turned so that a network sees it as a reader would."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """One of the eight ways in which a rectangle can lie: transposed first, then flipped.

    Attributes
    ----------
    transposed
        Rows and columns have changed places.
    flips
        Whether the rows (axis 0) and the columns (axis 1) then run the other way.
    """

    transposed: bool = False
    flips: tuple[bool, bool] = (False, False)

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array ``[row, column]``; a view."""
        return self._flipped(array.T if self.transposed else array)

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array that was turned back again; a view."""
        flipped = self._flipped(array)
        return flipped.T if self.transposed else flipped

    def pixel(self, pixel: tuple[float, float]) -> tuple[float, float]:
        """Give height and width of a pixel once it is turned."""
        return (pixel[1], pixel[0]) if self.transposed else pixel

    def places(self, places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Give places ``[…, (row, column)]`` on an array of this shape as places on the turned one."""
        turned = places[..., ::-1] if self.transposed else places
        lengths = shape[::-1] if self.transposed else shape
        return self._flipped_places(turned, lengths)

    def undo_places(self, places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Give places ``[…, (row, column)]`` on a turned array of this shape as places on the array before."""
        back = self._flipped_places(places, shape)
        return back[..., ::-1] if self.transposed else back

    def _flipped_places(self, places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        flipped = [
            length - 1 - places[..., axis] if flip else places[..., axis]
            for axis, (flip, length) in enumerate(zip(self.flips, shape, strict=True))
        ]
        return np.stack(flipped, axis=-1)

    def _flipped(self, array: NDArray[Any]) -> NDArray[Any]:
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return array[rows, columns]


def to_upright(orientation: tuple[str, str]) -> Turn:
    """Give the turn after which rows point to the patient's left and columns to the feet.

    Parameters
    ----------
    orientation
        Of a `engines.types.Radiograph`. Only a frontal view can be upright in this sense; any other one, a lateral
        view say, stays as it is.
    """
    row, column = orientation
    transposed = row in "HF"
    if transposed:
        row, column = column, row
    if row not in "LR" or column not in "HF":
        return Turn()
    return Turn(transposed, (column == "H", row == "R"))
