"""A one-stage detector with anchors: SSD (Liu et al., Single Shot MultiBox Detector, 2016)."""

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.anchors import anchors, decode, encode, flat, match
from build_engines.recipes.networks.pyramid import STRIDES, Detector, Pyramid, start_rare

SIDES = ((4.0, 6.0, 9.0), (13.0, 19.0, 28.0))
"""Of the anchors at each place of the two feature maps, in pixels; nodules are about as high as wide."""

LEAST = 0.5
"""Overlap from which an anchor learns a box."""

NEGATIVES = 3
"""For each anchor with a box, so many without are learnt from: those that are taken for one most."""


class Ssd(Detector):
    """SSD with squares of three sizes on each of two feature maps; all of them are served."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Pyramid()
        self.score = nn.ModuleList([nn.Conv2d(self.features.width, len(sides), 3, padding=1) for sides in SIDES])
        self.away = nn.ModuleList([nn.Conv2d(self.features.width, 4 * len(sides), 3, padding=1) for sides in SIDES])
        for head in self.score:
            start_rare(head)

    def logits(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``[batch, slice, row, column]`` to scores ``[batch, n]``, boxes' codes ``[batch, n, 4]``, anchors."""
        maps = self.features(image)
        scores = [flat(head(each), 1)[..., 0] for head, each in zip(self.score, maps, strict=True)]
        away = [flat(head(each), 4) for head, each in zip(self.away, maps, strict=True)]
        around = [
            anchors((int(each.shape[2]), int(each.shape[3])), stride, sides)
            for each, stride, sides in zip(maps, STRIDES, SIDES, strict=True)
        ]
        return torch.cat(scores, dim=1), torch.cat(away, dim=1), torch.cat(around)

    @staticmethod
    def loss(outputs: tuple[Tensor, ...], boxes: list[Tensor]) -> Tensor:
        """Cross-entropy with hard negatives, and smooth L1 of the boxes' codes, for each anchor that has a box."""
        scores, away, around = outputs
        right = scores.new_zeros(())
        placed = scores.new_zeros(())
        found = 0
        for each_score, each_away, each_boxes in zip(scores, away, boxes, strict=True):
            _, which = match(around, each_boxes, LEAST)
            positive = which >= 0
            count = int(positive.sum())
            negatives = nn.functional.softplus(each_score[~positive])
            right = right + nn.functional.softplus(-each_score[positive]).sum()
            right = right + negatives.topk(min(len(negatives), NEGATIVES * max(count, 2))).values.sum()
            if count:
                codes = encode(each_boxes[which[positive]], around[positive])
                placed = placed + nn.functional.smooth_l1_loss(each_away[positive], codes, reduction="sum")
            found += count
        return (right + placed) / max(found, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        scores, away, around = self.logits(image)
        return decode(away, around), torch.sigmoid(scores)[..., None]
