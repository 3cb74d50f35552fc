"""What the three detectors of nodules on slices share: one encoder, and its features at two resolutions."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, enlarge

STRIDES = (4, 8)
"""Pixels of the image along a side of a place of the two feature maps."""

RARE = -4.6
"""Logit of 1 %: how likely an object is before anything is learnt (Lin et al., Focal Loss, 2017)."""


def start_rare(head: nn.Module) -> None:
    """Let a convolution that gives scores say at first that there is hardly ever an object."""
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    nn.init.constant_(head.bias, RARE)


class Residual(nn.Module):
    """Two convolutions and what was before them (He et al., Deep Residual Learning, 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvolutionNorm(width, width, 3), ConvolutionNorm(width, width, 3, activate=False))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, width, row, column]`` to the same shape."""
        return torch.relu(features + self.layers(features))


class Pyramid(nn.Module):
    """A small residual network with a way back up (Lin et al., Feature Pyramid Networks, 2017).

    Parameters
    ----------
    inputs
        Channels of the image: neighbouring slices.
    width
        Channels of both feature maps.
    """

    def __init__(self, inputs: int = 3, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(ConvolutionNorm(inputs, 24, 3), ConvolutionNorm(24, 32, 3, 2), Residual(32))
        self.fine = nn.Sequential(ConvolutionNorm(32, 64, 3, 2), Residual(64))
        self.middle = nn.Sequential(ConvolutionNorm(64, 96, 3, 2), Residual(96))
        self.coarse = nn.Sequential(ConvolutionNorm(96, 128, 3, 2), Residual(128))
        self.sideways = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in (64, 96, 128)])
        self.smooth = nn.ModuleList([ConvolutionNorm(width, width, 3) for _ in STRIDES])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[batch, slice, row, column]``, multiples of 16, to ``[batch, width, …]`` at strides 4 and 8."""
        fine = self.fine(self.stem(image))
        middle = self.middle(fine)
        coarse = self.sideways[2](self.coarse(middle))
        middle = self.sideways[1](middle) + enlarge(coarse, "nearest")
        fine = self.sideways[0](fine) + enlarge(middle, "nearest")
        return self.smooth[0](fine), self.smooth[1](middle)


class Detector(Network):
    """A detector of one class: trained on what `logits` gives, it serves boxes and scores."""

    @staticmethod
    @abstractmethod
    def loss(outputs: tuple[Tensor, ...], boxes: list[Tensor]) -> Tensor:
        """Judge what `logits` gave.

        Parameters
        ----------
        outputs
            In float32.
        boxes
            Of each image, ``[n, 4]``: low row, low column, high row, high column in pixels, 0 the outer edge.
        """

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Give boxes ``[batch, n, 4]``, as above, and scores ``[batch, n, 1]``."""
