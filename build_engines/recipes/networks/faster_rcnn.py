"""A two-stage detector: Faster R-CNN (Ren et al., 2015) with region pooling by bilinear sampling (He et al., 2017)."""

import numpy as np
import torch
from torch import Tensor, nn

from build_engines.recipes.networks.anchors import anchors, decode, encode, flat, match
from build_engines.recipes.networks.blocks import ConvolutionNorm
from build_engines.recipes.networks.pyramid import STRIDES, Detector, Pyramid, start_rare

STRIDE = STRIDES[0]
SIDES = (5.0, 8.0, 12.0, 18.0, 27.0)
"""Of the anchors at each place, in pixels."""

LEAST = 0.5
"""Overlap from which an anchor or a proposal is one of an object."""

NOT_ONE = 0.3
"""Overlap below which an anchor is none; between the two it is not learnt from."""

DRAWN = 64
"""Anchors of an image that the first stage learns from, no more than half of them of objects."""

PROPOSALS = 32
"""Regions that the second stage looks at; twice as many in training."""

POOLED = 5
"""Places along a side of a pooled region, each sampled once, in its middle."""


class FasterRcnn(Detector):
    """Proposals from anchors, each looked at again on the same features.

    Between the stages only anchors that are the highest of their 3 × 3 neighbours of the same size go on: in place of
    non-maximum suppression, which compiles to no static graph. In training the highest go on as they are.
    """

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.features = Pyramid()
        width = self.features.width
        self.propose = ConvolutionNorm(width, width, 3)
        self.objectness = nn.Conv2d(width, len(SIDES), 1)
        self.away = nn.Conv2d(width, 4 * len(SIDES), 1)
        self.look = nn.Sequential(
            nn.Linear(width * POOLED**2, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.score, self.move = nn.Linear(hidden, 1), nn.Linear(hidden, 4)
        start_rare(self.objectness)

    def logits(self, image: Tensor) -> tuple[Tensor, ...]:
        """Give what both stages say.

        Returns
        -------
        objectness, away, around
            Of the anchors: ``[batch, n]``, ``[batch, n, 4]``, and the anchors ``[n, 4]``.
        proposals, score, move
            Of the second stage: ``[batch, k, 4]`` in pixels, ``[batch, k]``, ``[batch, k, 4]``.
        """
        fine, _ = self.features(image)
        shared = self.propose(fine)
        objectness, away = flat(self.objectness(shared), 1)[..., 0].float(), flat(self.away(shared), 4).float()
        grid = (int(fine.shape[2]), int(fine.shape[3]))
        around = anchors(grid, STRIDE, SIDES)
        proposals = self._proposals(objectness.detach(), away.detach(), around, grid)
        looked = self.look(pooled(fine.float(), proposals))
        return objectness, away, around, proposals, self.score(looked)[..., 0], self.move(looked)

    def _proposals(self, objectness: Tensor, away: Tensor, around: Tensor, grid: tuple[int, int]) -> Tensor:
        number = 2 * PROPOSALS
        if not self.training:
            number = PROPOSALS
            maps = torch.sigmoid(objectness).reshape(-1, *grid, len(SIDES)).permute(0, 3, 1, 2)
            peaks = maps * (nn.functional.max_pool2d(maps, 3, 1, 1) == maps).float()
            objectness = peaks.permute(0, 2, 3, 1).reshape(objectness.shape)
        best = objectness.topk(number, dim=1).indices
        boxes = decode(away, around).gather(1, best[..., None].expand(-1, -1, 4))
        ends = torch.tensor([grid[0], grid[1]] * 2, dtype=torch.float32) * STRIDE
        low = torch.minimum(boxes[..., :2].clamp(min=0), ends[:2] - 2)
        return torch.cat([low, torch.maximum(torch.minimum(boxes[..., 2:], ends[2:]), low + 2)], dim=-1)

    @staticmethod
    def loss(outputs: tuple[Tensor, ...], boxes: list[Tensor]) -> Tensor:
        """Cross-entropy and smooth L1 of both stages (equation 1 of the paper)."""
        objectness, away, around, proposals, score, move = outputs
        total = objectness.new_zeros(())
        for index, each in enumerate(boxes):
            overlap, which = match(around, each, LEAST)
            chosen = _drawn(which >= 0, overlap < NOT_ONE)
            total = total + _stage(objectness[index], away[index], around, each, which, chosen)
            _, which = match(proposals[index], each, LEAST, always=False)
            total = total + _stage(score[index], move[index], proposals[index], each, which, torch.arange(len(which)))
        return total / len(boxes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        _, _, _, proposals, score, move = self.logits(image)
        return decode(move, proposals), torch.sigmoid(score)[..., None]


def pooled(features: Tensor, boxes: Tensor) -> Tensor:
    """Sample the features in `POOLED` × `POOLED` places of each box: ``[batch, k, channel * place]``."""
    batch, width, rows, columns = features.shape
    number = int(boxes.shape[1])
    steps = torch.from_numpy((np.arange(POOLED, dtype=np.float32) + 0.5) / POOLED)
    low, size = boxes[..., :2, None], (boxes[..., 2:] - boxes[..., :2])[..., None]
    ends = torch.tensor([rows, columns], dtype=torch.float32)[:, None] * STRIDE
    # grid_sample counts from -1 to 1 between the outer edges, columns first.
    places = 2 * (low + size * steps) / ends - 1
    down = places[:, :, 0, :, None].expand(-1, -1, -1, POOLED)
    across = places[:, :, 1, None, :].expand(-1, -1, POOLED, -1)
    grid = torch.stack([across, down], dim=-1).reshape(batch, number * POOLED, POOLED, 2)
    sampled = nn.functional.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
    sampled = sampled.reshape(batch, width, number, POOLED * POOLED).permute(0, 2, 1, 3)
    return sampled.reshape(batch, number, width * POOLED * POOLED)


def _drawn(positive: Tensor, negative: Tensor) -> Tensor:
    """Draw the anchors that are learnt from: half of them of objects, if there are so many."""
    of_objects, others = (each.nonzero()[:, 0] for each in (positive, negative & ~positive))
    of_objects = of_objects[torch.randperm(len(of_objects))[: DRAWN // 2]]
    return torch.cat([of_objects, others[torch.randperm(len(others))[: DRAWN - len(of_objects)]]])


def _stage(score: Tensor, away: Tensor, around: Tensor, boxes: Tensor, which: Tensor, chosen: Tensor) -> Tensor:
    positive = (which >= 0).float()
    loss = nn.functional.binary_cross_entropy_with_logits(score[chosen], positive[chosen])
    learnt = chosen[which[chosen] >= 0]
    if len(learnt):
        codes = encode(boxes[which[learnt]], around[learnt])
        loss = loss + nn.functional.smooth_l1_loss(away[learnt], codes, reduction="sum") / (4 * len(learnt))
    return loss
