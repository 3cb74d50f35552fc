"""A centre-point detector in 3D: a heat map of middles, and at each of its places where the middle is and how large."""

import numpy as np
import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import Network, enlarge

STRIDE = 4
"""Voxels of the image along a side of a place of the heat map."""

RARE = -4.6
"""Logit of 1 %: how likely a middle is before anything is learnt (Lin et al., Focal Loss for Dense Detection, 2017)."""


class Centre3d(Network):
    """A fully convolutional detector of one class (Zhou, Wang and Krähenbühl, Objects as Points, 2019).

    A strided stem, an encoder to stride 16 and back to stride 4 by sums (Lin et al., Feature Pyramid Networks, 2017).
    Boxes are cubes around the middle. All places are served, not only the highest maxima: which maxima are highest
    changes with the rounding of an engine, and then its answer could not be compared place by place.

    Parameters
    ----------
    largest
        Side of the largest box, in voxels.
    widths
        Channels at strides 2, 4, 8 and 16.
    """

    def __init__(self, largest: float, widths: tuple[int, int, int, int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.largest = largest
        stem, fine, middle, coarse = widths
        self.stem = nn.Sequential(convolution(1, stem, stride=2), convolution(stem, stem))
        self.fine = nn.Sequential(convolution(stem, fine, stride=2), Residual(fine))
        self.middle = nn.Sequential(convolution(fine, middle, stride=2), Residual(middle))
        self.coarse = nn.Sequential(convolution(middle, coarse, stride=2), Residual(coarse))
        self.from_coarse, self.from_middle = nn.Conv3d(coarse, middle, 1), nn.Conv3d(middle, fine, 1)
        self.join_middle, self.join_fine = convolution(middle, middle), convolution(fine, fine)
        self.head = nn.Sequential(convolution(fine, fine), nn.Conv3d(fine, 5, 1))
        last = self.head[-1]
        assert isinstance(last, nn.Conv3d)
        assert last.bias is not None
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        nn.init.constant_(last.bias[:1], RARE)

    def logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[batch, 1, slice, row, column]`` (multiples of 16) to the heat map and the boxes.

        Returns
        -------
        heat
            Logits, ``[batch, …]`` at stride 4.
        boxes
            ``[batch, 4, …]``: from the middle of the place to that of the box along each axis, in voxels, and the
            logit of the box's side as a part of ``largest``.
        """
        fine = self.fine(self.stem(image))
        middle = self.middle(fine)
        middle = self.join_middle(middle + enlarge(self.from_coarse(self.coarse(middle)), "nearest"))
        fine = self.join_fine(fine + enlarge(self.from_middle(middle), "nearest"))
        answer = self.head(fine)
        return answer[:, 0], answer[:, 1:]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Give boxes ``[batch, place, 6]``: middle, sides in voxels, 0 the outer edge; scores ``[batch, place, 1]``."""
        heat, boxes = self.logits(image)
        batch, grid = len(image), [length // STRIDE for length in image.shape[2:]]
        places = torch.from_numpy(middles(tuple(int(length) for length in grid)))
        centres = boxes[:, :3].reshape(batch, 3, -1).transpose(1, 2) + places
        sides = self.largest * torch.sigmoid(boxes[:, 3:].reshape(batch, 1, -1).transpose(1, 2))
        scores = torch.sigmoid(heat).reshape(batch, -1, 1)
        return torch.cat([centres, sides, sides, sides], dim=2), scores


class Residual(nn.Module):
    """Two convolutions and what was before them (He et al., Deep Residual Learning, 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(convolution(width, width), convolution(width, width, activate=False))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, width, slice, row, column]`` to the same shape."""
        return torch.relu(features + self.layers(features))


def convolution(inputs: int, outputs: int, stride: int = 1, activate: bool = True) -> nn.Sequential:
    """Convolve with a kernel of 3, normalise the batch and, where asked for, rectify."""
    layers: list[nn.Module] = [
        nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm3d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if activate else []))


def middles(grid: tuple[int, ...]) -> np.ndarray:
    """Give the middle of each place of a heat map in voxels of the image, 0 the outer edge: ``[place, 3]``, float32."""
    axes = np.meshgrid(*((np.arange(length, dtype=np.float32) + 0.5) * STRIDE for length in grid), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)
