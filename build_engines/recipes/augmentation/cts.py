"""Random changes of training patches of a chest CT: air, contrast medium, disease, slices and field of view.

Images and masks are ``[1, slice, row, column]``. Images are 0 at the low end of the window (-1000 HU) and 1 at its
upper end (400 HU).
"""

import numpy as np
import torch
from torch import Tensor, nn

from build_engines.recipes.augmentation.primitives import Random, chance, smooth_noise

NODULE, GAS = (0.4, 0.75), (0.0, 0.1)
"""Lowest and highest values of nodules and of gas."""

SOFT = 0.55
"""Least value of soft tissue."""


def aerate(image: Tensor, lungs: Tensor, random: Random) -> Tensor:
    """Fill the lungs with more or less air, vessels left as they are.

    The training CT breathe shallowly (median -710 to -790 HU); a deep breath is near -880 HU, emphysema below -950 HU.
    """
    parenchyma = lungs * torch.sigmoid(25 * (0.35 - image))
    if chance(random, 0.3):
        return image + random.uniform(0, 0.15) * parenchyma
    uneven = torch.sigmoid(2 * smooth_noise(random, tuple(image.shape[1:]), 4))
    return image * (1 - random.uniform(0, 1) * (0.6 + 0.4 * uneven) * parenchyma)


def consolidate(image: Tensor, lung: Tensor, random: Random) -> Tensor:
    """Fill a part of a lung, small or large, with fluid: it stays lung.

    The part lies to one side, so that it reaches the pleura, with an uneven border. It is as dense as soft tissue, or a
    veil (ground glass); in the bronchi there may still be air.

    Parameters
    ----------
    image
        See the module.
    lung
        1 in the lung that is ill, else 0.
    random
        Decides side, size, border and density.
    """
    shape = tuple(image.shape[1:])
    inside = lung > 0
    if not inside.any():
        return image
    axes = torch.meshgrid(*(torch.linspace(-1, 1, length) for length in shape), indexing="ij")
    towards = random.standard_normal(3)
    # Seldom from the top: fluid follows gravity, and lobes end at the base.
    towards[0] = -abs(towards[0]) if chance(random, 0.7) else towards[0]
    ramp = sum(float(part) * axis for part, axis in zip(towards / np.linalg.norm(towards), axes, strict=True))
    field = torch.as_tensor(ramp)[None] + random.uniform(0.1, 0.5) * smooth_noise(random, shape, 5)
    border = torch.quantile(field[inside][:: max(1, int(inside.sum()) // 10000)], 1 - random.uniform(0.05, 0.7))
    ill = inside * torch.sigmoid(random.uniform(8, 60) * (field - border))
    density = random.uniform(0.64, 0.78) + 0.03 * torch.from_numpy(
        random.standard_normal(tuple(image.shape), dtype=np.float32)
    )
    if chance(random, 0.5):
        bronchi = torch.sigmoid(12 * (smooth_noise(random, shape, 20) - random.uniform(1.0, 2.0)))
        density = density * (1 - 0.8 * bronchi)
    opacity = 1.0 if chance(random, 0.6) else random.uniform(0.2, 0.9)
    return image + opacity * ill * (torch.maximum(density, image) - image)


def add_balls(image: Tensor, where: Tensor, values: tuple[float, float], random: Random) -> Tensor:
    """Put balls of one value into places, the parts of them that are in these places.

    Soft tissue in the lungs stays lung: nodules, vessels and consolidations belong to it. Gas outside of the lungs
    stays background: it is in stomach and bowel, often just under the diaphragm.

    Parameters
    ----------
    image
        See the module.
    where
        1 where balls may be, else 0; of the same shape.
    values
        Lowest and highest value of a ball.
    random
        Decides number, places, radii and values.
    """
    inside = torch.nonzero(where[0])
    if not len(inside):
        return image
    axes = torch.meshgrid(*(torch.arange(length, dtype=torch.float32) for length in image.shape[1:]), indexing="ij")
    for _ in range(int(random.integers(1, 5))):
        centre = inside[random.integers(len(inside))]
        distance = sum((axis - float(place)) ** 2 for axis, place in zip(axes, centre, strict=True))
        ball = torch.sigmoid(2 * (random.uniform(1.0, 6.0) - torch.sqrt(torch.as_tensor(distance)))) * where[0]
        image = image + ball * (random.uniform(*values) - image)
    return image


def contrast(image: Tensor, random: Random) -> Tensor:
    """Make soft tissue and vessels brighter in places, as contrast medium does: by up to 400 HU."""
    tissue = torch.sigmoid(30 * (image - 0.68))
    reached = torch.sigmoid(4 * smooth_noise(random, tuple(image.shape[1:]), 4))
    return image + random.uniform(0.03, 0.3) * reached * tissue


def thick_slices(image: Tensor, random: Random) -> Tensor:
    """Average two to four slices of the grid to one, and interpolate between them: a reconstruction of 6 to 12 mm."""
    slices = image.shape[1]
    together = int(random.choice([count for count in (2, 3, 4) if slices % count == 0] or [1]))
    thick = nn.functional.avg_pool3d(image[None], (together, 1, 1))
    return nn.functional.interpolate(thick, size=tuple(image.shape[1:]), mode="trilinear", align_corners=False)[0]


def field_of_view(shape: tuple[int, int, int], random: Random) -> Tensor:
    """Draw a round reconstruction field, 1 inside and 0 outside, the same on every slice: ``[1, 1, row, column]``."""
    rows, columns = (torch.linspace(-1, 1, length) for length in shape[1:])
    centre = random.uniform(-0.25, 0.25, 2)
    distance = torch.hypot(rows[:, None] - centre[0], columns[None, :] - centre[1])
    return (distance < random.uniform(0.75, 1.2)).float()[None, None]
