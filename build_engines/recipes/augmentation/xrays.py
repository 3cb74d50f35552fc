"""How training changes a chest X-ray that is to be classified, so that nothing but the lungs tells its class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes.augmentation import primitives, radiographs
from build_engines.recipes.augmentation.primitives import Random, chance
from build_engines.recipes.data.chest_xrays import ChestXray, View, inside, lung_crop
from engines.inference.preprocessing import Array, Box, crop, fit, percentile_window


@dataclass(frozen=True)
class Changes:
    """Which parts of the augmentation are on.

    Attributes
    ----------
    geometry
        Another crop; turned, stretched, shifted, nearer or farther, mirrored.
    tone
        Another detector: tone curve, exposure, sharpness, resolution, noise.
    surroundings
        What is around the lungs is another X-ray's or grey, with markers, letters and cables on it.
    """

    geometry: bool = True
    tone: bool = True
    surroundings: bool = True


ALL = Changes()

Shown: TypeAlias = Tensor
"""``[3, row, column]``: the image in 0–1, its lungs, and 1 where there is image and not padding."""


def plain(image: Array, size: tuple[int, int], percentiles: tuple[float, float]) -> NDArray[np.float32]:
    """Make the tensor that serving makes of what an X-ray shows: ``[1, row, column]``."""
    return fit(percentile_window(image, *percentiles), size)[0][None]


def show(xray: ChestXray, view: View, size: tuple[int, int], random: Random | None) -> Shown:
    """Place what is shown of an X-ray in the tensor: as serving does, or at random around that."""
    box = moved(xray.box, xray.image.shape, random) if random else xray.box
    image = view(xray, box)
    lungs = xray.lungs.astype(np.float32)
    if view in (lung_crop, inside):
        lungs = crop(lungs, box)
    if random:
        matrix = radiographs.placement(image.shape, size, random)
    else:
        centre = np.array(image.shape) / 2 - 0.5
        matrix = primitives.about_centre(np.eye(2) * max(np.divide(image.shape, size)), centre, size)
    layers = np.stack([image / 255, lungs, np.ones_like(image)]).astype(np.float32)
    return primitives.sample(torch.from_numpy(layers), size, matrix, "bilinear")


def change(
    shown: Shown,
    other: Callable[[], Shown],
    changes: Changes,
    percentiles: tuple[float, float],
    random: Random,
) -> tuple[Tensor, Tensor]:
    """Make a training image ``[1, row, column]`` and its lung mask ``[row, column]``.

    Parameters
    ----------
    shown
        See `Shown`.
    other
        Shows another X-ray, of any class, whose surroundings may be taken.
    percentiles
        Of the window, as in serving.
    """
    image, lungs, seen = shown.chunk(3)
    lungs = (lungs > 0.5).float()
    if changes.surroundings and chance(random, 0.4):
        image, seen = elsewhere(image, lungs, seen, other(), random)
    if changes.tone:
        image = radiographs.develop(image, random, noise=0.04)
        if chance(random, 0.3):
            image = coarsen(image, random.uniform(1.0, 2.5))
    if changes.surroundings:
        image = radiographs.surround(image, random)
    return radiographs.window_again(image, seen > 0.5, percentiles), lungs[0].long()


def elsewhere(image: Tensor, lungs: Tensor, seen: Tensor, other: Shown, random: Random) -> tuple[Tensor, Tensor]:
    """Put the lungs, and a margin around them, into another X-ray or on grey; the seam is soft.

    Half of what disease has made white is no lung to ``cxr-lung``; the margin keeps most of it.
    """
    if not lungs.any():
        return image, seen
    near = (4 * primitives.blur(lungs, image.shape[1] / 16)).clamp(max=1)
    around, _, around_seen = other.chunk(3)
    if chance(random, 0.3):
        around, around_seen = torch.full_like(image, random.uniform(0, 1)), torch.ones_like(seen)
    return near * image + (1 - near) * around, torch.maximum((near > 0.5) * seen, around_seen)


def coarsen(image: Tensor, factor: float) -> Tensor:
    """Lower the resolution by a factor."""
    size = [max(8, round(length / factor)) for length in image.shape[1:]]
    small = nn.functional.interpolate(image[None], size=size, mode="area")
    return nn.functional.interpolate(small, size=image.shape[1:], mode="bilinear", align_corners=False)[0]


def moved(box: Box, shape: tuple[int, ...], random: Random) -> Box:
    """Move each side of a box by a few percent of its size, as another lung outline would."""
    down, across = (random.uniform(-0.06, 0.06, 2) * length for length in (box.bottom - box.top, box.right - box.left))
    return Box(
        top=max(0, round(box.top + down[0])),
        left=max(0, round(box.left + across[0])),
        bottom=min(shape[0], round(box.bottom + down[1])),
        right=min(shape[1], round(box.right + across[1])),
    )
