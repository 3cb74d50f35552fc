"""Boxes by anchors: low row, low column, high row, high column in pixels, 0 the outer edge of the image."""

import numpy as np
import torch
from torch import Tensor

SPREAD = (0.1, 0.1, 0.2, 0.2)
"""Usual size of what is learnt of a box: its middle, and the logarithm of its sides (as SSD and Faster R-CNN do)."""


def anchors(grid: tuple[int, int], stride: int, sides: tuple[float, ...]) -> Tensor:
    """Lay squares of each size around the middle of each place: ``[row * column * side, 4]``, sides fastest."""
    rows, columns, edges = np.meshgrid(
        *((np.arange(length, dtype=np.float32) + 0.5) * stride for length in grid),
        np.asarray(sides, np.float32),
        indexing="ij",
    )
    boxes = np.stack([rows - edges / 2, columns - edges / 2, rows + edges / 2, columns + edges / 2], axis=-1)
    return torch.from_numpy(boxes.reshape(-1, 4))


def flat(head: Tensor, numbers: int) -> Tensor:
    """Bring ``[batch, side * numbers, row, column]`` to ``[batch, row * column * side, numbers]``, as `anchors` are."""
    return head.permute(0, 2, 3, 1).reshape(head.shape[0], -1, numbers)


def encode(boxes: Tensor, around: Tensor) -> Tensor:
    """Say how boxes differ from anchors, both ``[..., 4]``: move of the middle, and growth of the sides."""
    middle, side = _middle_and_side(boxes)
    anchor_middle, anchor_side = _middle_and_side(around)
    away = torch.cat([(middle - anchor_middle) / anchor_side, torch.log(side / anchor_side)], dim=-1)
    return away / torch.tensor(SPREAD)


def decode(away: Tensor, around: Tensor) -> Tensor:
    """Undo `encode`; sides grow at most eightfold."""
    away = away * torch.tensor(SPREAD)
    anchor_middle, anchor_side = _middle_and_side(around)
    middle = anchor_middle + away[..., :2] * anchor_side
    half = anchor_side * torch.exp(away[..., 2:].clamp(-2.08, 2.08)) / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Give intersection over union of boxes ``[n, 4]`` and ``[m, 4]``: ``[n, m]``."""
    low = torch.maximum(one[:, None, :2], other[None, :, :2])
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=-1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared)


def match(around: Tensor, boxes: Tensor, least: float, always: bool = True) -> tuple[Tensor, Tensor]:
    """Give each anchor the box that it is to learn.

    Parameters
    ----------
    around, boxes
        ``[n, 4]`` and ``[m, 4]``.
    least
        Overlap from which an anchor learns a box.
    always
        Whether the anchor that a box overlaps most learns it in any case.

    Returns
    -------
    overlap
        ``[n]``: with the box that it overlaps most.
    which
        ``[n]``: index of the box to learn, -1 where there is none.
    """
    if not len(boxes):
        return torch.zeros(len(around)), torch.full((len(around),), -1)
    shared = overlaps(around, boxes)
    overlap, nearest = shared.max(dim=1)
    which = torch.where(overlap >= least, nearest, -1)
    if always:
        which[shared.argmax(dim=0)] = torch.arange(len(boxes))
    return overlap, which


def _middle_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
