"""A one-stage detector without anchors: CenterNet (Zhou, Wang and Krähenbühl, Objects as Points, 2019)."""

import numpy as np
import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm
from build_engines.recipes.networks.pyramid import STRIDES, Detector, Pyramid, start_rare

STRIDE = STRIDES[0]
TYPICAL = 10.0
"""Side in pixels that a box has before anything is learnt."""


class Centre2d(Detector):
    """A heat map of middles at stride 4; where it is high, the box's middle and sides. All places are served."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Pyramid()
        width = self.features.width
        self.heat = nn.Sequential(ConvolutionNorm(width, width, 3), nn.Conv2d(width, 1, 1))
        self.box = nn.Sequential(ConvolutionNorm(width, width, 3), nn.Conv2d(width, 4, 1))
        start_rare(self.heat[-1])

    def logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[batch, slice, row, column]`` to the heat map ``[batch, row, column]`` and the boxes.

        A box is ``[batch, 4, row, column]``: from the place's middle to its own in pixels, and the logarithm of its
        sides over `TYPICAL`.
        """
        fine, _ = self.features(image)
        return self.heat(fine)[:, 0], self.box(fine)

    @staticmethod
    def loss(outputs: tuple[Tensor, ...], boxes: list[Tensor]) -> Tensor:
        """Focal loss of the heat map, less around a middle, and L1 of the boxes at the middles (equations 1 to 4)."""
        heat, box = outputs
        targets = [heat_of(each, (heat.shape[1], heat.shape[2])) for each in boxes]
        target = torch.stack([each for each, _ in targets])
        middle = (target == 1).float()
        chance = torch.sigmoid(heat)
        found = middle * (1 - chance) ** 2 * nn.functional.softplus(-heat)
        elsewhere = (1 - middle) * (1 - target) ** 4 * chance**2 * nn.functional.softplus(heat)
        number = middle.sum().clamp(min=1)
        placed = heat.new_zeros(())
        for each_box, each_boxes, (_, places) in zip(box, boxes, targets, strict=True):
            if len(each_boxes):
                row, column = places.T
                own = (places + 0.5) * STRIDE
                away = (each_boxes[:, :2] + each_boxes[:, 2:]) / 2 - own
                sides = torch.log((each_boxes[:, 2:] - each_boxes[:, :2]) / TYPICAL)
                wrong = (each_box[:, row, column].T - torch.cat([away, sides], dim=1)).abs()
                placed = placed + 0.2 * wrong[:, :2].sum() + wrong[:, 2:].sum()
        return (found.sum() + elsewhere.sum() + placed) / number

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `Detector`; a place that is no maximum of its 3 × 3 neighbours has score 0."""
        heat, box = self.logits(image)
        scores = torch.sigmoid(heat)[:, None]
        peaks = scores * (nn.functional.max_pool2d(scores, 3, 1, 1) == scores).float()
        own = torch.from_numpy(_middles((int(image.shape[2]) // STRIDE, int(image.shape[3]) // STRIDE)))
        flat = box.permute(0, 2, 3, 1).reshape(box.shape[0], -1, 4)
        middle, half = flat[..., :2] + own, TYPICAL / 2 * torch.exp(flat[..., 2:].clamp(-3, 3))
        return torch.cat([middle - half, middle + half], dim=-1), peaks.reshape(box.shape[0], -1, 1)


def heat_of(boxes: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Give the heat map that is to be answered, 1 at each middle, and the places of the middles ``[n, 2]``."""
    rows, columns = (torch.arange(length, dtype=torch.float32) for length in grid)
    heat = torch.zeros(grid)
    places = ((boxes[:, :2] + boxes[:, 2:]) / 2 / STRIDE).floor().long()
    places = torch.minimum(places.clamp(min=0), torch.tensor(grid) - 1)
    for place, box in zip(places, boxes, strict=True):
        sigma = float((box[2:] - box[:2]).min()) / STRIDE / 6 + 0.5
        square = (rows[:, None] - place[0]) ** 2 + (columns[None, :] - place[1]) ** 2
        heat = torch.maximum(heat, torch.exp(-square / (2 * sigma**2)))
    return heat, places


def _middles(grid: tuple[int, int]) -> np.ndarray:
    axes = np.meshgrid(*((np.arange(length, dtype=np.float32) + 0.5) * STRIDE for length in grid), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)
