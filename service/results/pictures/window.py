"""Which values of an image are shown black and white."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.inference.measurements import HOUNSFIELD
from engines.types import Image, Radiograph
from service.results.pictures.views import Array, grey

LUNG_HU = (-950, -600)
LUNG_SHARE = 0.1
"""In the middle of a chest a quarter to a half of all voxels are lung; in a head or an abdomen next to none."""
PERCENTILES = (0.5, 99.5)
SAMPLES = 64
"""Along each axis, at most: enough to tell a chest from a head."""


@dataclass(frozen=True)
class Window:
    """Values from ``low`` (black) to ``high`` (white); ``name`` says which these are, for the reader."""

    low: float
    high: float
    name: str

    def shades(self, values: Array) -> NDArray[np.uint8]:
        """Values as grey, 0-255."""
        return grey(values, self.low, self.high)


LUNG = Window(-1350.0, 150.0, "lung window, level -600, width 1500 HU")
SOFT_TISSUE = Window(-160.0, 240.0, "soft tissue window, level 40, width 400 HU")


def display_window(image: Image) -> Window:
    """The window that shows most of an image.

    A CT with lungs in its middle gets a lung window, another one a soft tissue window. Where values are no Hounsfield
    units, and in an X-ray, the extreme half per cent at both ends are cut off.
    """
    if isinstance(image, Radiograph):
        return _percentiles(image.array)
    if image.unit != HOUNSFIELD.value:
        return _percentiles(image.array)
    middle = _sampled(image.array[:, *(_middle(size) for size in image.array.shape[1:])])
    share = float(np.mean((middle > LUNG_HU[0]) & (middle < LUNG_HU[1])))
    return LUNG if share > LUNG_SHARE else SOFT_TISSUE


def _percentiles(values: Array) -> Window:
    sampled = _sampled(values, 512)
    numbers = sampled[np.isfinite(sampled)]
    low, high = np.percentile(numbers.astype(np.float64), PERCENTILES).tolist() if numbers.size else (0.0, 0.0)
    if low == high:  # one shade of grey, which still must have a width
        low, high = low - 0.5, high + 0.5
    return Window(low, high, "window of the middle 99% of its values")


def _middle(size: int) -> slice:
    return slice(size // 4, max(size - size // 4, 1))


def _sampled(values: Array, most: int = SAMPLES) -> Array:
    steps = tuple(slice(None, None, max(size // most, 1)) for size in values.shape)
    sampled: Array = values[steps]
    return sampled
