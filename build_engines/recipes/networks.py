"""The networks of the shipped models.

All of them end in a softmax, so that an engine's output is probabilities.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and first stride of each stage (Sandler et al., MobileNetV2, 2018, table 2)."""


def channels(width: float, full: int) -> int:
    """Scale a number of channels by a width multiplier, to a multiple of 8 and never below 8."""
    return max(8, int(width * full + 4) // 8 * 8)


class Network(nn.Module, ABC):
    """A network that is trained on logits and serves probabilities."""

    @abstractmethod
    def logits(self, image: Tensor) -> Tensor:
        """Give the values before the softmax: ``[batch, class]`` or ``[batch, class, ...]``."""

    def forward(self, image: Tensor) -> Tensor:
        """Give the probabilities of the classes, or of background and segments."""
        return torch.softmax(self.logits(image), dim=1)


class ConvolutionNorm(nn.Sequential):
    """Convolution, batch normalisation and, where asked for, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU6()] if activate else []))


class ShuffleAttention(nn.Module):
    """Attend to channels and to places in groups of channels, then shuffle the groups.

    Zhang and Yang, SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, 2021. The channels are split into
    groups. One half of a group is weighted by its global average, scaled, shifted and put through a sigmoid; the other
    half by its group normalisation, scaled, shifted and put through a sigmoid. Both halves are joined and the channels
    shuffled in two groups. Scale and shift are shared by the groups.
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.part = width // (2 * groups)
        shape = (1, self.part, 1, 1)
        self.channel_scale = nn.Parameter(torch.zeros(shape))
        self.channel_shift = nn.Parameter(torch.ones(shape))
        self.spatial_scale = nn.Parameter(torch.zeros(shape))
        self.spatial_shift = nn.Parameter(torch.ones(shape))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, channel, row, column]`` to the same shape."""
        batch, width, rows, columns = features.shape
        channel, spatial = features.reshape(batch * self.groups, 2 * self.part, rows, columns).chunk(2, dim=1)
        average = channel.mean(dim=(2, 3), keepdim=True)
        channel = channel * torch.sigmoid(self.channel_scale * average + self.channel_shift)
        # Written out: the group normalisation of the paper has one channel a group, and exports to plain operators.
        centred = spatial - spatial.mean(dim=(2, 3), keepdim=True)
        normal = centred * torch.rsqrt((centred * centred).mean(dim=(2, 3), keepdim=True) + 1e-5)
        spatial = spatial * torch.sigmoid(self.spatial_scale * normal + self.spatial_shift)
        joined = torch.cat([channel, spatial], dim=1).reshape(batch, 2, width // 2, rows, columns)
        return joined.transpose(1, 2).reshape(batch, width, rows, columns)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel on its own, project (MobileNetV2), with shuffle attention on the projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, attention: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [ConvolutionNorm(inputs, hidden)] if expansion > 1 else []
        layers += [
            ConvolutionNorm(hidden, hidden, 3, stride, groups=hidden),
            ConvolutionNorm(hidden, outputs, activate=False),
        ]
        if attention:
            layers.append(ShuffleAttention(outputs, groups=outputs // 8))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, inputs, row, column]`` to ``[batch, outputs, row / stride, column / stride]``."""
        mapped: Tensor = self.layers(features)
        return features + mapped if self.residual else mapped


class MobileNetV2(nn.Module):
    """The encoder of both X-ray models: MobileNetV2 with shuffle attention in the last block of each stage.

    ``forward`` gives the features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's resolution; ``widths`` are their
    channels.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        inputs = channels(width, 32)
        self.stem = ConvolutionNorm(1, inputs, 3, 2)
        self.stages = nn.ModuleList()
        self.last_of_scale: list[bool] = []
        self.widths: list[int] = []
        strides = [stride for *_, stride in STAGES[1:]] + [2]
        for (expansion, full, repeats, stride), following in zip(STAGES, strides, strict=True):
            outputs = channels(width, full)
            blocks = [
                InvertedResidual(
                    inputs if index == 0 else outputs,
                    outputs,
                    stride if index == 0 else 1,
                    expansion,
                    attention=index == repeats - 1,
                )
                for index in range(repeats)
            ]
            self.stages.append(nn.Sequential(*blocks))
            self.last_of_scale.append(following == 2)
            if following == 2:
                self.widths.append(outputs)
            inputs = outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map ``[batch, 1, row, column]`` to five feature maps, finest first."""
        features = self.stem(image)
        scales = []
        for stage, last in zip(self.stages, self.last_of_scale, strict=True):
            features = stage(features)
            if last:
                scales.append(features)
        return scales


class Classifier(Network):
    """MobileNetV2 with shuffle attention and a linear head on the global average."""

    def __init__(self, classes: int, width: float, head: int = 640, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder = MobileNetV2(width)
        self.head = ConvolutionNorm(self.encoder.widths[-1], head)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(head, classes)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class]``."""
        features = self.head(self.encoder(image)[-1]).mean(dim=(2, 3))
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class UNet(Network):
    """A U-Net decoder (Ronneberger et al., 2015) on the MobileNetV2 encoder, with shuffle attention in the decoder."""

    def __init__(self, classes: int, width: float, decoder: tuple[int, ...] = (64, 48, 32, 24)) -> None:
        super().__init__()
        self.encoder = MobileNetV2(width)
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

    def __init__(self, classes: int, widths: tuple[int, ...] = (12, 24, 48, 96, 128)) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        inputs = 1
        for level, width in enumerate(widths):
            self.encoder.append(_block3d(inputs, width, stride=1 if level == 0 else 2, repeats=1 if level == 0 else 2))
            inputs = width
        self.decoder = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths[:-1]))):
            self.decoder.append(_block3d(inputs + width, width, stride=1, repeats=1 if level == 0 else 2))
            inputs = width
        self.last = nn.Conv3d(inputs, classes, 1)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, slice, row, column]`` to ``[batch, class, slice, row, column]``; multiples of 16 only."""
        scales = []
        features = image
        for block in self.encoder:
            features = block(features)
            scales.append(features)
        for block, skip in zip(self.decoder, reversed(scales[:-1]), strict=True):
            features = block(torch.cat([enlarge(features, "nearest"), skip], dim=1))
        logits: Tensor = self.last(features)
        return logits


def enlarge(features: Tensor, mode: str) -> Tensor:
    """Double the resolution."""
    return nn.functional.interpolate(features, scale_factor=2.0, mode=mode)


def _block3d(inputs: int, outputs: int, stride: int, repeats: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(repeats):
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, stride if index == 0 else 1, 1, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
