"""Where a network looked, laid over the X-ray it looked at."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from engines.types import Classification, ClassProbability, Findings, Radiograph
from service.results.pictures.capture import Picture, framed, picture_size, scaled
from service.results.pictures.legend import percentage
from service.results.pictures.lettering import FAINT, font, shortened
from service.results.pictures.views import mark_sides
from service.results.pictures.window import Window

WORTH_SHOWING = 0.1
"""The least probability of a class that gets a heat map, beside the most probable one."""
OPACITY = 0.65
"""How much of a pixel is the colour where the activation is highest."""
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""From nothing to most, of evenly growing lightness, so that it reads the same without colour vision (after the colour
map *inferno*, van der Walt and Smith, CC0)."""
NOT_A_SEGMENTATION = "where the network looked, not a segmentation"


def mapped_classes(classification: Classification) -> list[ClassProbability]:
    """The classes that have something to show, the most probable first: that one, and others from ten per cent."""
    able = [entry for entry in classification.classes if entry.activation is not None and entry.activation.any()]
    by_probability = sorted(able, key=lambda entry: -entry.probability)
    return [entry for place, entry in enumerate(by_probability) if place == 0 or entry.probability >= WORTH_SHOWING]


def heat_picture(
    findings: Findings,
    image: Radiograph,
    entry: ClassProbability,
    window: Window,
    sides: tuple[str, str] | None,
) -> Picture:
    """The activation of one class over its X-ray as it is stored, with a scale, the class and its probability.

    Parameters
    ----------
    entry
        With an activation on the image's grid.
    sides
        Where rows and columns point to; None where that is not known.
    """
    assert entry.activation is not None
    size = picture_size(image)
    grey = Pillow.fromarray(window.shades(image.array)).resize(size, Pillow.Resampling.BICUBIC)
    activation = Pillow.fromarray(entry.activation).resize(size, Pillow.Resampling.BILINEAR)
    colours = Pillow.fromarray(colour_table()[np.asarray(activation)])
    picture = Pillow.composite(colours, grey.convert("RGB"), activation.point(_opacities()))
    if sides:
        mark_sides(picture, sides, scaled(15, size))
    title = f"{entry.label} {percentage(entry.probability)}"
    whole = framed(picture, sides, findings, title, NOT_A_SEGMENTATION, ())
    _draw_scale(whole, entry)
    return whole


def colour_table() -> NDArray[np.uint8]:
    """The colour of each activation, ``[256, 3]``."""
    anchors = np.linspace(0, 255, len(COLOURS))
    channels = [np.interp(np.arange(256), anchors, channel) for channel in zip(*COLOURS, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _opacities() -> Sequence[int]:
    return [round(value * OPACITY) for value in range(256)]


def _draw_scale(picture: Picture, entry: ClassProbability) -> None:
    """The colours in a row, below everything else."""
    page, (left, top, right, bottom) = picture.page, picture.area
    size = right - left, bottom - top
    pad, thick, face = scaled(8, size), scaled(12, size), font(scaled(12, size))
    draw, middle = ImageDraw.Draw(page), page.height - pad - scaled(22, size)
    before = "speaks little"
    draw.text((pad, middle), before, FAINT, face, anchor="lm")
    left = round(2 * pad + face.getlength(before))
    bar = Pillow.fromarray(colour_table()[None]).resize((page.width // 4, thick), Pillow.Resampling.NEAREST)
    page.paste(bar, (left, middle - thick // 2))
    left += bar.width + pad
    after = shortened(f"much for {entry.label}", face, page.width - left - pad)
    draw.text((left, middle), after, FAINT, face, anchor="lm")
