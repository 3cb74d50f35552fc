"""The U-Net as it was published."""

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, channels

LEVELS = (64, 128, 256, 512, 1024)
"""Channels of each resolution (Ronneberger et al., 2015, figure 1)."""


class PlainUNet(Network):
    """The U-Net of Ronneberger et al. (2015), with batch normalisation, and padded so that no border is lost.

    Parameters
    ----------
    classes
        With background.
    width
        Multiplier of all channels.
    """

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        widths = [channels(width, full) for full in LEVELS]
        self.encoder = nn.ModuleList(
            _twice(inputs, outputs) for inputs, outputs in zip([1, *widths], widths, strict=False)
        )
        self.enlarge, self.decoder = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.enlarge.append(nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
            self.decoder.append(_twice(2 * outputs, outputs))
        self.last = nn.Conv2d(widths[0], classes, 1)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class, row, column]``; multiples of 16 only."""
        features, skips = self.encoder[0](image), []
        for block in self.encoder[1:]:
            skips.append(features)
            features = block(nn.functional.max_pool2d(features, 2))
        for enlarge, block, skip in zip(self.enlarge, self.decoder, reversed(skips), strict=True):
            features = block(torch.cat([skip, enlarge(features)], dim=1))
        logits: Tensor = self.last(features)
        return logits


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvolutionNorm(inputs, outputs, 3), ConvolutionNorm(outputs, outputs, 3))
