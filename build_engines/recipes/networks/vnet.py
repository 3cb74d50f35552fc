"""V-Net (Milletari et al., 2016)."""

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import Network

REPEATS = (1, 2, 3, 3, 3)
"""Convolutions of each stage, finest first."""


class VNet(Network):
    """Residual stages of 5×5×5 convolutions, halved and doubled by strided ones, with PReLU.

    As in the paper, but for batch normalisation, which came into use in the same year, and for its width.

    Parameters
    ----------
    width
        Channels of the finest stage; they double with each (16 in the paper, which gives 65 million weights).
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(len(REPEATS))]
        self.encoder = nn.ModuleList([_Stage(1, width, REPEATS[0])])
        self.down = nn.ModuleList()
        for stage in range(1, len(widths)):
            self.down.append(_normed(nn.Conv3d(widths[stage - 1], widths[stage], 2, 2, bias=False), widths[stage]))
            self.encoder.append(_Stage(widths[stage], widths[stage], REPEATS[stage]))
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for stage in reversed(range(len(widths) - 1)):
            self.up.append(_normed(nn.ConvTranspose3d(below, widths[stage], 2, 2, bias=False), widths[stage]))
            below = 2 * widths[stage]
            self.decoder.append(_Stage(below, below, REPEATS[stage]))
        self.last = nn.Conv3d(below, classes, 1)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, slice, row, column]`` to ``[batch, class, slice, row, column]``; multiples of 16 only."""
        features = self.encoder[0](image)
        scales = [features]
        for down, stage in zip(self.down, self.encoder[1:], strict=True):
            features = stage(down(features))
            scales.append(features)
        for up, stage, skip in zip(self.up, self.decoder, reversed(scales[:-1]), strict=True):
            features = stage(torch.cat([up(features), skip], dim=1))
        logits: Tensor = self.last(features)
        return logits


class _Stage(nn.Module):
    """Convolutions whose result is added to what went in; one channel goes into all of them."""

    def __init__(self, inputs: int, outputs: int, repeats: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(repeats):
            layers.append(nn.Conv3d(inputs if index == 0 else outputs, outputs, 5, padding=2, bias=False))
            layers.append(nn.BatchNorm3d(outputs))
            if index < repeats - 1:
                layers.append(nn.PReLU(outputs))
        self.layers, self.activation = nn.Sequential(*layers), nn.PReLU(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, inputs, ...]`` to ``[batch, outputs, ...]``."""
        return self.activation(self.layers(features) + features)


def _normed(convolution: nn.Module, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.PReLU(outputs))
