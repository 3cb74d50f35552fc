"""Planes of an image as a radiologist looks at them, with segments drawn on."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageChops, ImageDraw, ImageFilter

from engines.inference.orientation import Turn
from engines.types import Affine, Segment
from service.results.contours import Points
from service.results.pictures.lettering import PANEL, TEXT, font

FILL = 0.28
"""How much of a pixel is its segment's colour; the rest is the image."""
THICK_FROM = 700
"""Pixels of a picture's longer side from which outlines are two pixels wide, for they are shown smaller."""
FROM_HALF, FROM_ANY = [255 * (value > 127) for value in range(256)], [255 * (value > 0) for value in range(256)]
TO_FILL = [int(value * FILL) for value in range(256)]

Array = NDArray[Any]

Layer = tuple[Array, Sequence[Segment]]
"""Segment numbers ``[..., row, column]``, uint8, and what they mean."""

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
READ_AS = (("L", "P"), ("L", "F"), ("P", "F"))
"""Where rows and columns point to in an axial, a coronal and a sagittal plane as a radiologist looks at them."""


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


def places_in_patient_order(places: Points, shape: tuple[int, ...], affine: Affine) -> Points:
    """Places ``[…, (slice, row, column)]`` in an array of this shape as places in what `in_patient_order` gives."""
    directions = _directions(affine)
    turned = [
        shape[axis] - 1 - places[..., axis] if directions[2 - place, axis] < 0 else places[..., axis]
        for place, axis in enumerate(patient_axes(affine))
    ]
    return np.stack(turned, axis=-1)


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


def reading_turn(affine: Affine) -> tuple[Turn, tuple[str, str]]:
    """How the stored planes of a volume are turned to lie as a radiologist looks at them; nothing is resampled.

    Returns
    -------
    tuple[Turn, tuple[str, str]]
        The turn, and where rows and columns then point to, to the nearest of the patient's axes (PS3.3 C.7.6.1.1.1).
    """
    axes = patient_axes(affine)
    row, column = READ_AS[axes.index(0)]
    along_row, along_column = _array_axis(affine, row), _array_axis(affine, column)
    return Turn(along_row[0] == 1, (along_column[1], along_row[1])), (row, column)


def _array_axis(affine: Affine, letter: str) -> tuple[int, bool]:
    """Which axis of the array runs along a direction of the patient, and whether it runs against it."""
    place = next(place for place, letters in enumerate(("HF", "AP", "RL")) if letter in letters)
    axis = patient_axes(affine)[place]
    grows = _directions(affine)[2 - place, axis] > 0
    return axis, bool(grows) != (letter in "HPL")


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


def plane_picture(shades: NDArray[np.uint8], layers: Sequence[Layer], size: tuple[int, int]) -> Pillow.Image:
    """Draw one plane: segments as an outline with a translucent fill in their own colour.

    Parameters
    ----------
    shades
        ``[row, column]``, 0–255.
    layers
        Segment numbers, of the same shape; later ones are drawn over earlier ones.
    size
        Width and height of the picture.
    """
    whole = Pillow.fromarray(np.ascontiguousarray(shades))
    picture = (whole if whole.size == size else whole.resize(size, Pillow.Resampling.BICUBIC)).convert("RGB")
    for labels, segments in layers:
        numbers = Pillow.fromarray(np.ascontiguousarray(labels))
        counts = numbers.histogram()
        for segment in segments:
            if counts[segment.number]:
                _draw_segment(picture, numbers, segment)
    return picture


def _draw_segment(picture: Pillow.Image, numbers: Pillow.Image, segment: Segment) -> None:
    mask = numbers.point([255 * (value == segment.number) for value in range(256)])
    scale = picture.width / mask.width, picture.height / mask.height
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    # only what the segment may reach once it is smoothed
    reach = int(max(*scale, 1.0)) + 4
    box = (
        max(int(left * scale[0]) - reach, 0),
        max(int(top * scale[1]) - reach, 0),
        min(int(right * scale[0]) + reach, picture.width),
        min(int(bottom * scale[1]) + reach, picture.height),
    )
    size = box[2] - box[0], box[3] - box[1]
    stored = (box[0] / scale[0], box[1] / scale[1], box[2] / scale[0], box[3] / scale[1])
    shares = mask.resize(size, Pillow.Resampling.BILINEAR, stored)
    # interpolated and cut at one half: a smooth edge however coarse the grid is
    inside = shares.point(FROM_HALF)
    if inside.getbbox() is None:  # thinner than a pixel of the picture, and still to be seen
        inside = shares.point(FROM_ANY)
    colour = Pillow.new("RGB", size, segment.colour)
    picture.paste(colour, box[:2], inside.point(TO_FILL))
    core = inside.filter(ImageFilter.MinFilter(3 if max(picture.size) < THICK_FROM else 5))
    picture.paste(colour, box[:2], ImageChops.subtract(inside, core))


def mark_sides(picture: Pillow.Image, orientation: tuple[str, str], size: int = 15) -> None:
    """Write at the edges of a picture where they lie in the patient.

    Parameters
    ----------
    orientation
        Where rows and columns point to, as `engines.types.Radiograph.orientation`.
    """
    row, column = orientation
    width, height = picture.size
    edges = (
        (OPPOSITE[row], (6, height / 2), "lm"),
        (row, (width - 6, height / 2), "rm"),
        (OPPOSITE[column], (width / 2, 6), "ma"),
        (column, (width / 2, height - 6), "md"),
    )
    draw = ImageDraw.Draw(picture)
    for side, place, anchor in edges:
        draw.text(place, side, TEXT, font(size), anchor=anchor, stroke_width=2, stroke_fill=PANEL)
