"""Random changes of training images, in 2D and 3D alike: geometry, noise, blur, and what lies around the patient.

Images are tensors ``[1, (slice,) row, column]`` in 0–1.
"""

import numpy as np
import torch
from torch import Tensor, nn

Random = np.random.Generator


def chance(random: Random, probability: float) -> bool:
    """Throw a coin."""
    return bool(random.random() < probability)


def sample(image: Tensor, shape: tuple[int, ...], matrix: np.ndarray, mode: str) -> Tensor:
    """Sample an image on another grid.

    Parameters
    ----------
    image
        ``[channel, (slice,) row, column]``.
    shape
        Of the result.
    matrix
        Homogeneous, from an index of the result to an index of the image, in array order.
    mode
        ``bilinear`` (which is trilinear in 3D) or ``nearest``; 0 outside of the image.
    """
    dimension = len(shape)
    # grid_sample counts from -1 to 1 between the outer edges, in the order (column, row, slice).
    result = np.array(shape, dtype=np.float64)
    source = np.array(image.shape[1:], dtype=np.float64)
    linear = matrix[:dimension, :dimension] * (result[None, :] / source[:, None])
    centre = matrix[:dimension, :dimension] @ ((result - 1) / 2) + matrix[:dimension, dimension]
    shift = (2 * centre + 1) / source - 1
    theta = np.concatenate([linear[::-1, ::-1], shift[::-1, None]], axis=1)
    grid = nn.functional.affine_grid(torch.tensor(theta[None], dtype=torch.float32), [1, 1, *shape], False)
    return nn.functional.grid_sample(image[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def rotation(angles: np.ndarray) -> np.ndarray:
    """Rotate in 3D by small angles (radians) about the slice, row and column axes."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def about_centre(linear: np.ndarray, centre: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give the homogeneous matrix that maps the middle of a result of ``shape`` to ``centre``."""
    dimension = len(shape)
    matrix = np.eye(dimension + 1)
    matrix[:dimension, :dimension] = linear
    matrix[:dimension, dimension] = centre - linear @ ((np.array(shape) - 1) / 2)
    return matrix


def smooth_noise(random: Random, shape: tuple[int, ...], cells: int) -> Tensor:
    """Draw normal noise at ``cells`` points an axis and interpolate it to ``shape``: ``[1, *shape]``."""
    coarse = torch.from_numpy(random.standard_normal((1, 1, *(cells for _ in shape)), dtype=np.float32))
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    return nn.functional.interpolate(coarse, size=shape, mode=mode, align_corners=True)[0]


def blur(image: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian of ``sigma`` pixels."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    dimension = image.ndim - 1
    convolve = nn.functional.conv3d if dimension == 3 else nn.functional.conv2d
    result = image[None]
    for axis in range(dimension):
        shape, padding = [1] * (dimension + 2), [0] * dimension
        shape[axis + 2], padding[axis] = len(kernel), reach
        result = convolve(result, kernel.reshape(shape), padding=tuple(padding))
    return result[0]


def texture(random: Random, image: Tensor, noise: float) -> Tensor:
    """Change sharpness and noise: blur or sharpen, then white and grainy noise up to ``noise``."""
    if chance(random, 0.4):
        image = blur(image, random.uniform(0.4, 1.5))
    elif chance(random, 0.3):
        image = image + random.uniform(0.2, 1.0) * (image - blur(image, 1.0))
    if chance(random, 0.6):
        grain = torch.from_numpy(random.standard_normal(tuple(image.shape), dtype=np.float32))
        if chance(random, 0.5):
            grain = 2 * blur(grain, 0.7)
        image = image + random.uniform(0, noise) * grain
    return image
