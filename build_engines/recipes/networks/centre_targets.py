"""What a centre-point detector is to answer, and how its answer is judged (Zhou et al., Objects as Points, 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes.networks.centre3d import STRIDE

PROMINENT = 0.4
"""Places whose heat is this or more learn where the middle is and how large the nodule."""


@dataclass(frozen=True, eq=False)
class Ball:
    """A nodule in a patch: its middle and its diameter in voxels; whole numbers are the centres of voxels."""

    centre: NDArray[np.float64]
    diameter: float


@dataclass(frozen=True, eq=False)
class Targets:
    """What is to be answered at each place.

    Attributes
    ----------
    heat
        1 at the middle of a nodule, less around it: ``[(batch,) …]``.
    boxes
        From the middle of the place to that of the nearest nodule in voxels, and its diameter: ``[(batch,) 4, …]``.
    counts
        Whether what is answered there counts.
    """

    heat: Tensor
    boxes: Tensor
    counts: Tensor

    @staticmethod
    def stack(several: Sequence["Targets"]) -> "Targets":
        """Make a batch."""
        return Targets(
            torch.stack([each.heat for each in several]),
            torch.stack([each.boxes for each in several]),
            torch.stack([each.counts for each in several]),
        )


def targets(balls: Sequence[Ball], shape: tuple[int, int, int], counts: NDArray[np.bool_] | None = None) -> Targets:
    """Say what is to be answered for a patch of ``shape``, of whose voxels those of ``counts`` count.

    The heat of a nodule is a Gaussian whose width grows with it. Its highest place has exactly 1. Where a nodule is cut
    by the patch or touches what does not count, nothing counts.
    """
    grid = tuple(length // STRIDE for length in shape)
    axes = np.meshgrid(*((np.arange(length) + 0.5) * STRIDE - 0.5 for length in grid), indexing="ij", sparse=True)
    heat, boxes, nearest = np.zeros(grid), np.zeros((4, *grid)), np.full(grid, np.inf)
    counting = np.ones(grid, np.bool_)
    if counts is not None:
        blocks = counts.reshape(*(part for length in grid for part in (length, STRIDE)))
        counting = np.asarray(blocks.all(axis=(1, 3, 5)))
    for ball in balls:
        away = [place - axis for place, axis in zip(ball.centre, axes, strict=True)]
        square = np.asarray(sum(each**2 for each in away))
        if not _is_whole(ball, shape, counts):
            counting = counting & (square > (ball.diameter / 2 + STRIDE) ** 2)
            continue
        sigma = max(0.75 * STRIDE, ball.diameter / 5)
        own = np.exp(-(square - square.min()) / (2 * sigma**2))
        closer = square < nearest
        nearest = np.where(closer, square, nearest)
        boxes = np.where(closer, np.stack([*np.broadcast_arrays(*away), np.full(grid, ball.diameter)]), boxes)
        heat = np.maximum(heat, own)
    return Targets(
        torch.from_numpy(heat.astype(np.float32)),
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(counting.astype(np.float32)),
    )


def _is_whole(ball: Ball, shape: tuple[int, int, int], counts: NDArray[np.bool_] | None) -> bool:
    if (ball.centre < ball.diameter / 3).any() or (ball.centre > np.array(shape) - 1 - ball.diameter / 3).any():
        return False
    return counts is None or bool(counts[tuple(np.round(ball.centre).astype(int))])


def centre_loss(heat: Tensor, boxes: Tensor, target: Targets, largest: float) -> Tensor:
    """Judge a batch: the focal loss of the heat map for each nodule, and the distances of its middle and its diameter.

    Parameters
    ----------
    heat, boxes
        As `build_engines.recipes.networks.centre3d.Centre3d.logits` gives them.
    target
        Of the batch.
    largest
        Diameter of which the last channel of ``boxes`` gives a part.
    """
    middle = (target.heat > 0.999).float() * target.counts
    hot = torch.nn.functional.logsigmoid(heat)
    cold = torch.nn.functional.logsigmoid(-heat)
    chance = torch.sigmoid(heat)
    found = -middle * (1 - chance) ** 2 * hot
    elsewhere = -(target.counts - middle) * (1 - target.heat) ** 4 * chance**2 * cold
    nodules = middle.sum().clamp(min=1)
    weight = target.heat * (target.heat >= PROMINENT) * target.counts
    away = (boxes[:, :3] - target.boxes[:, :3]).abs().sum(dim=1)
    # By how much of itself a diameter is off: 1 mm means more for a small nodule.
    wrong = (largest * torch.sigmoid(boxes[:, 3]) / target.boxes[:, 3].clamp(min=2) - 1).abs()
    placed = (weight * (0.1 * away + wrong)).sum() / weight.sum().clamp(min=1)
    return (found + elsewhere).sum() / nodules + placed
