"""Planes of an image as a radiologist looks at them, with segments drawn on."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFilter

from engines.types import Affine, Segment

FILL = 0.28
"""How much of a pixel is its segment's colour; the rest is the image."""
OUTLINE_PIXELS = 2

Array = NDArray[Any]


def in_patient_order(array: Array, affine: Affine) -> Array:
    """Turn an array so that it runs to the head, to the posterior and to the patient's left.

    Each of the array's axes becomes the patient axis that it is nearest to; nothing is resampled.

    Parameters
    ----------
    array
        ``[slice, row, column]``, of any orientation.
    affine
        Array index to LPS millimetres.

    Returns
    -------
    Array
        A view ``[z, y, x]`` with growing LPS coordinates.
    """
    directions = _directions(affine)
    axes = patient_axes(affine)
    turned: Array = np.transpose(array, axes)
    return np.flip(turned, tuple(place for place, axis in enumerate(axes) if directions[2 - place, axis] < 0))


def at_even_steps(array: Array, at: tuple[float, ...] | None) -> Array:
    """Give an array one slice at each step of its affine: the nearest one, so that nothing is drawn that is not there.

    Parameters
    ----------
    array
        ``[slice, row, column]``.
    at
        Where its slices lie, see `engines.types.Volume`.
    """
    if at is None:
        return array
    nearest = np.interp(np.arange(round(at[-1]) + 1), at, np.arange(len(at)))
    even: Array = array[np.rint(nearest).astype(int)]
    return even


def patient_axes(affine: Affine) -> tuple[int, ...]:
    """Which axis of the array runs along z, y and x of the patient."""
    along = np.abs(_directions(affine))
    return max(permutations(range(3)), key=lambda axes: sum(along[2 - place, axis] for place, axis in enumerate(axes)))


def _directions(affine: Affine) -> NDArray[np.float64]:
    directions: NDArray[np.float64] = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return directions


def grey(values: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Map values to 0–255, ``low`` and what is below to black, ``high`` and above to white."""
    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    shades: NDArray[np.uint8] = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return shades


def fit(shape: tuple[int, ...], spacing: tuple[float, float], box: tuple[int, int]) -> tuple[int, int]:
    """The largest width and height in pixels, within a box, at which a plane has its true proportions.

    Parameters
    ----------
    shape
        Rows and columns.
    spacing
        Between rows and between columns.
    box
        Width and height.
    """
    height, width = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = min(box[0] / width, box[1] / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def plane_picture(
    shades: NDArray[np.uint8], labels: Array | None, segments: Sequence[Segment], size: tuple[int, int]
) -> Pillow.Image:
    """Draw one plane: segments as an outline with a translucent fill in their own colour.

    Parameters
    ----------
    shades
        ``[row, column]``, 0–255.
    labels
        Segment numbers, same shape, or None.
    size
        Width and height of the picture.
    """
    picture = Pillow.fromarray(shades).resize(size, Pillow.Resampling.BICUBIC).convert("RGB")
    if labels is None:
        return picture
    for segment in segments:
        mask = Pillow.fromarray(np.where(labels == segment.number, 255, 0).astype(np.uint8))
        if mask.getbbox() is None:
            continue
        # interpolated and cut at one half: a smooth edge however coarse the grid is
        inside = mask.resize(size, Pillow.Resampling.BILINEAR).point(lambda value: 255 if value > 127 else 0)
        colour = Pillow.new("RGB", size, segment.colour)
        picture.paste(colour, mask=inside.point(lambda value: int(value * FILL)))
        core = inside.filter(ImageFilter.MinFilter(2 * OUTLINE_PIXELS - 1))
        picture.paste(colour, mask=Pillow.composite(Pillow.new("L", size, 0), inside, core))
    return picture
