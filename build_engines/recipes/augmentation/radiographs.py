"""What both X-ray recipes share: changing images at random as other detectors would.

Images are tensors ``[1, row, column]`` in 0–1, larger is whiter.
"""

import numpy as np
import torch
from torch import Tensor

from build_engines.recipes.augmentation import primitives
from build_engines.recipes.augmentation.primitives import Random, chance


def placement(shape: tuple[int, ...], size: tuple[int, int], random: Random) -> np.ndarray:
    """Draw how an image comes to lie in the tensor: from an index of the tensor to one of the image, homogeneous.

    Around the placement of serving (fitted by one factor, centred): turned, nearer or farther, shifted, stretched,
    mirrored.
    """
    fitted = max(shape[0] / size[0], shape[1] / size[1])
    angle = random.normal(0, 0.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    zoom = fitted * np.exp(random.normal(-0.07, 0.17)) * np.exp(random.normal(0, 0.07, 2))
    mirror = np.diag([1.0, -1.0 if chance(random, 0.5) else 1.0])
    centre = np.array(shape) * (0.5 + random.normal(0, 0.05, 2)) - 0.5
    return primitives.about_centre(turn @ np.diag(zoom) @ mirror, centre, size)


def develop(image: Tensor, random: Random, noise: float) -> Tensor:
    """Change tone and texture: gamma, a bent tone curve, uneven exposure, sharpness, noise."""
    image = image.clamp(0, 1) ** float(np.exp(random.normal(0, 0.35)))
    if chance(random, 0.5):
        knots = torch.from_numpy(np.sort(random.uniform(0, 1, 6)).astype(np.float32))
        place = image * (len(knots) - 1)
        below = place.floor().clamp(0, len(knots) - 2).long()
        bent = knots[below] + (knots[below + 1] - knots[below]) * (place - below)
        image = 0.4 * image + 0.6 * bent
    if chance(random, 0.5):
        image = image + random.uniform(0, 0.12) * primitives.smooth_noise(random, tuple(image.shape[1:]), 3)
    return primitives.texture(random, image, noise)


def surround(image: Tensor, random: Random) -> Tensor:
    """Add what is not the patient: side markers, letters, cables."""
    image = image.clone()
    rows, columns = image.shape[1:]
    for _ in range(int(random.integers(0, 4))):
        height, width = random.integers(3, 22, 2)
        top, left = random.integers(0, rows - height), random.integers(0, columns - width)
        if chance(random, 0.7):
            left = random.choice(
                [random.integers(0, columns // 6), random.integers(columns * 5 // 6 - 22, columns - 22)]
            )
        image[:, top : top + height, left : left + width] = random.uniform(0, 1.2)
    if chance(random, 0.3):
        down = torch.linspace(0, 1, rows)[:, None]
        path = random.uniform(0, 1) + random.normal(0, 0.5) * down + 0.1 * torch.sin(random.uniform(2, 9) * down)
        cable = (torch.linspace(0, 1, columns)[None] - path).abs() < random.uniform(0.003, 0.008)
        image[:, cable] = random.uniform(0.8, 1.2)
    return image


def collimate(image: Tensor, random: Random) -> tuple[Tensor, Tensor]:
    """Cover the border, dark or white or grey, as a collimator or a screen capture does.

    Returns
    -------
    image
        With its border.
    opening
        1 where the image is still seen, 0 on the border; float32 of the image's shape.
    """
    rows, columns = image.shape[1:]
    opening = torch.zeros_like(image)
    top, bottom = int(random.uniform(0, 0.12) * rows), rows - int(random.uniform(0, 0.2) * rows)
    left, right = int(random.uniform(0, 0.12) * columns), columns - int(random.uniform(0, 0.12) * columns)
    opening[:, top:bottom, left:right] = 1
    value = float(random.choice([0.0, 1.0, random.uniform(0, 1)], p=[0.6, 0.2, 0.2]))
    return image * opening + value * (1 - opening), opening


def window_again(image: Tensor, inside: Tensor, percentiles: tuple[float, float]) -> Tensor:
    """Window a changed image by its percentiles as serving does, and set the padding to 0.

    ``inside`` is true where the tensor holds image and not padding.
    """
    # NumPy's percentiles take a tenth of the time of PyTorch's.
    low, high = (float(value) for value in np.percentile(image[inside].numpy(), percentiles))
    mapped: Tensor = ((image - low) / max(high - low, 1e-3)).clamp(0, 1) * inside
    return mapped
