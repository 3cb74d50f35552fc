"""What several networks are built of."""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn


def channels(width: float, full: int) -> int:
    """Scale a number of channels by a width multiplier, to a multiple of 8 and never below 8."""
    return max(8, int(width * full + 4) // 8 * 8)


Outputs: TypeAlias = Tensor | tuple[Tensor, ...]
"""Of a network with one head, or with several."""


class Network(nn.Module, ABC):
    """A network that is trained on logits and serves probabilities."""

    @abstractmethod
    def logits(self, image: Tensor) -> Outputs:
        """Give what the loss is taken of: ``[batch, class]``, ``[batch, class, ...]``, or several of such."""

    def forward(self, image: Tensor) -> Outputs:
        """Give what is served: the probabilities of the classes, or of background and segments.

        A network of several heads gives them in the order of the tables of ``model.toml``: segmentation,
        classification, detection (places, then scores).
        """
        logits = self.logits(image)
        if isinstance(logits, tuple):
            raise NotImplementedError("a network of several heads says itself what it serves")
        return torch.softmax(logits, dim=1)


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


def enlarge(features: Tensor, mode: str) -> Tensor:
    """Double the resolution."""
    return nn.functional.interpolate(features, scale_factor=2.0, mode=mode)
