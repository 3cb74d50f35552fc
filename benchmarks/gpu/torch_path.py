"""The peer of our whole path: the same steps in PyTorch, all on the GPU but the components, as a good engineer would.

Upload, trilinear resampling to the network's spacing, window, sliding windows with Gaussian weights, largest components
on the network's grid (SimpleITK, on the host: PyTorch has none), trilinear interpolation back slab by slab, arg-max,
download. For axial series with even slices only; ours takes any.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engines.inference.postprocessing import keep_largest_component
from engines.inference.sliding_window import LEAST_WEIGHT, SIGMA, choose_patch
from engines.packages.package import ModelPackage
from engines.types import Volume

SLAB = 32
"""Slices of the source that are labelled at once: classes x slices x rows x columns of FP32 must fit."""


class TorchPath:
    """A model's whole path in PyTorch.

    Parameters
    ----------
    network
        From ``[n, 1, *patch]`` to probabilities ``[n, class, *patch]``, on the device.
    """

    def __init__(self, package: ModelPackage, network: Callable[[Tensor], Tensor], device: str) -> None:
        self._wanted: Any = package.input
        self._section: Any = package.description.segmentation
        self._network, self._device = network, device

    @torch.inference_mode()
    def __call__(self, volume: Volume) -> NDArray[np.uint8]:
        """Give the label map on the source's grid."""
        source = torch.from_numpy(volume.array).to(self._device, non_blocking=True).float()[None, None]
        lengths = [
            max(1, round(length * step / spacing))
            for length, step, spacing in zip(volume.array.shape, volume.spacing, self._wanted.spacing_mm, strict=True)
        ]
        grid = functional.interpolate(source, lengths, mode="trilinear")
        del source
        low, high = self._wanted.window
        to_low, to_high = self._wanted.range or (0.0, 1.0)
        grid = grid.clamp_(low, high).sub_(low).mul_((to_high - to_low) / (high - low)).add_(to_low)
        probabilities = self._in_windows(grid)
        if self._section.keep_largest:
            labels = probabilities.argmax(dim=1)[0].byte().cpu().numpy()
            dropped = torch.from_numpy(keep_largest_component(labels) != labels).to(self._device)
            probabilities[0, :, dropped] = 0.0
            probabilities[0, 0, dropped] = 1.0
        return self._on_source(probabilities, volume.array.shape)

    def _in_windows(self, image: Tensor) -> Tensor:
        shape = image.shape[2:]
        patch = choose_patch(shape, self._wanted.grids)
        padding = [max(0, length - size) for size, length in zip(shape, patch, strict=True)]
        sides = [part for missing in reversed(padding) for part in (missing // 2, missing - missing // 2)]
        padded = functional.pad(image, sides)
        size = padded.shape[2:]
        starts = list(product(*(starts_of(*axis, self._wanted.overlap) for axis in zip(size, patch, strict=True))))
        inside = tuple(
            slice(missing // 2, missing // 2 + length) for missing, length in zip(padding, shape, strict=True)
        )
        if len(starts) == 1:
            return self._network(padded).float()[(..., *inside)]
        weight = gaussian(patch, self._device)
        blended: Tensor | None = None
        weights = torch.zeros(size, device=self._device)
        for start in starts:
            here = tuple(slice(first, first + length) for first, length in zip(start, patch, strict=True))
            answer = self._network(padded[(..., *here)].contiguous())
            if blended is None:
                blended = torch.zeros((1, answer.shape[1], *size), device=self._device)
            blended[(..., *here)] += answer * weight
            weights[here] += weight
        assert blended is not None
        return (blended / weights)[(..., *inside)]

    def _on_source(self, probabilities: Tensor, shape: Sequence[int]) -> NDArray[np.uint8]:
        labels = np.empty(shape, np.uint8)
        rows, columns = (torch.arange(length, device=self._device) for length in shape[1:])
        y, x = (2 * rows + 1) / shape[1] - 1, (2 * columns + 1) / shape[2] - 1
        for first in range(0, shape[0], SLAB):
            slices = torch.arange(first, min(first + SLAB, shape[0]), device=self._device)
            z = (2 * slices + 1) / shape[0] - 1
            places = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1)[None]
            slab = functional.grid_sample(probabilities, places, "bilinear", "border", align_corners=False)
            labels[first : first + len(slices)] = slab.argmax(dim=1)[0].byte().cpu().numpy()
        return labels


def starts_of(size: int, length: int, overlap: float) -> list[int]:
    """Where the windows of one axis begin: the fewest that overlap enough, spread evenly."""
    count = 1 + ceil((size - length) / (length * (1 - overlap)))
    return [round(start) for start in np.linspace(0, size - length, count)]


def gaussian(patch: Sequence[int], device: str) -> Tensor:
    """Weights of a patch, the same as ours."""
    weight = torch.ones((), device=device)
    for length in patch:
        place = torch.arange(length, device=device) - (length - 1) / 2
        weight = weight[..., None] * torch.exp(-0.5 * (place / (length * SIGMA)) ** 2)
    return weight.clamp(min=LEAST_WEIGHT)
