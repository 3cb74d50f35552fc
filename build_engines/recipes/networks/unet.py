"""U-Nets in 2D and 3D."""

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, ShuffleAttention, enlarge
from build_engines.recipes.networks.encoders import Encoder


class UNet(Network):
    """A U-Net decoder (Ronneberger et al., 2015), with shuffle attention, on any encoder."""

    def __init__(self, classes: int, encoder: Encoder, decoder: tuple[int, ...] = (64, 48, 32, 24)) -> None:
        super().__init__()
        self.encoder = encoder
        inputs = self.encoder.widths[-1]
        self.decoder = nn.ModuleList()
        for skip, outputs in zip(self.encoder.widths[-2::-1], decoder, strict=True):
            self.decoder.append(
                nn.Sequential(
                    ConvolutionNorm(inputs + skip, outputs, 3),
                    ConvolutionNorm(outputs, outputs, 3),
                    ShuffleAttention(outputs, groups=outputs // 8),
                )
            )
            inputs = outputs
        self.last = nn.Conv2d(inputs, classes, 3, padding=1)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class, row, column]``."""
        *skips, features = self.encoder(image)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = block(torch.cat([enlarge(features, "bilinear"), skip], dim=1))
        return enlarge(self.last(features), "bilinear")


class UNet3d(Network):
    """A small 3D U-Net (Çiçek et al., 2016): one or two convolutions a scale, batch normalisation, ReLU.

    The finest scale has one convolution on each side, since that is where the time goes.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (12, 24, 48, 96, 128), channels: int = 1) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        inputs = channels
        for level, width in enumerate(widths):
            self.encoder.append(_block3d(inputs, width, stride=1 if level == 0 else 2, repeats=1 if level == 0 else 2))
            inputs = width
        self.decoder = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths[:-1]))):
            self.decoder.append(_block3d(inputs + width, width, stride=1, repeats=1 if level == 0 else 2))
            inputs = width
        self.last = nn.Conv3d(inputs, classes, 1)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, channel, slice, row, column]`` to ``[batch, class, …]``; multiples of 16 only."""
        scales = []
        features = image
        for block in self.encoder:
            features = block(features)
            scales.append(features)
        for block, skip in zip(self.decoder, reversed(scales[:-1]), strict=True):
            features = block(torch.cat([enlarge(features, "nearest"), skip], dim=1))
        logits: Tensor = self.last(features)
        return logits


def _block3d(inputs: int, outputs: int, stride: int, repeats: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(repeats):
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, stride if index == 0 else 1, 1, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
