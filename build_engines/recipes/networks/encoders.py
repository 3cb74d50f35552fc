"""Encoders of 2D networks: feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, InvertedResidual, channels

MOBILENET = ((1, 64), (2, 128), (2, 256), (6, 512), (2, 1024))
"""Separable convolutions and channels of each resolution (Howard et al., MobileNets, 2017, table 1)."""

VGG_16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels of each resolution (Simonyan and Zisserman, 2014, table 1, column D)."""

RESNET_50 = ((3, 64), (4, 128), (6, 256), (3, 512))
"""Blocks and inner channels of each resolution from 1/4 on (He et al., Deep Residual Learning, 2015, table 1)."""

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and first stride of each stage (Sandler et al., MobileNetV2, 2018, table 2)."""


class Encoder(nn.Module, ABC):
    """Makes five feature maps of an image.

    Attributes
    ----------
    widths
        Channels of the feature maps, finest first.
    """

    widths: list[int]

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """Map ``[batch, 1, row, column]`` to the features at 1/2, 1/4, 1/8, 1/16 and 1/32 of its resolution."""


class MobileNetV2(Encoder):
    """MobileNetV2 (Sandler et al., 2018), with shuffle attention in the last block of each stage where asked for.

    Parameters
    ----------
    width
        Multiplier of all channels.
    attention
        Whether with shuffle attention.
    """

    def __init__(self, width: float, attention: bool = True) -> None:
        super().__init__()
        inputs = channels(width, 32)
        self.stem = ConvolutionNorm(1, inputs, 3, 2)
        self.stages = nn.ModuleList()
        self.last_of_scale: list[bool] = []
        self.widths = []
        strides = [stride for *_, stride in STAGES[1:]] + [2]
        for (expansion, full, repeats, stride), following in zip(STAGES, strides, strict=True):
            outputs = channels(width, full)
            blocks = [
                InvertedResidual(
                    inputs if index == 0 else outputs,
                    outputs,
                    stride if index == 0 else 1,
                    expansion,
                    attention=attention and index == repeats - 1,
                )
                for index in range(repeats)
            ]
            self.stages.append(nn.Sequential(*blocks))
            self.last_of_scale.append(following == 2)
            if following == 2:
                self.widths.append(outputs)
            inputs = outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        features = self.stem(image)
        scales = []
        for stage, last in zip(self.stages, self.last_of_scale, strict=True):
            features = stage(features)
            if last:
                scales.append(features)
        return scales


class Resolutions(Encoder):
    """An encoder of five parts, each of which halves the resolution."""

    parts: nn.ModuleList

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        features, scales = image, []
        for part in self.parts:
            features = part(features)
            scales.append(features)
        return scales


class MobileNet(Resolutions):
    """MobileNet (Howard et al., 2017): each convolution is split into one of each channel and one across channels.

    Parameters
    ----------
    width
        Multiplier of all channels.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        inputs = channels(width, 32)
        self.parts, self.widths = nn.ModuleList(), []
        for repeats, full in MOBILENET:
            outputs = channels(width, full)
            layers: list[nn.Module] = [] if self.widths else [ConvolutionNorm(1, inputs, 3, 2)]
            for index in range(repeats):
                stride = 2 if index == 0 and self.widths else 1
                layers += [ConvolutionNorm(inputs, inputs, 3, stride, groups=inputs), ConvolutionNorm(inputs, outputs)]
                inputs = outputs
            self.parts.append(nn.Sequential(*layers))
            self.widths.append(outputs)


class Vgg16(Resolutions):
    """The convolutions of VGG-16 (Simonyan and Zisserman, 2014), with batch normalisation; a map after each pooling.

    Parameters
    ----------
    width
        Multiplier of all channels.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.parts, self.widths, inputs = nn.ModuleList(), [], 1
        for repeats, full in VGG_16:
            outputs = channels(width, full)
            layers = [ConvolutionNorm(inputs if index == 0 else outputs, outputs, 3) for index in range(repeats)]
            self.parts.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            self.widths.append(outputs)
            inputs = outputs


class Bottleneck(nn.Module):
    """Narrow, convolve, widen, and add what came in (He et al., 2015); the stride is in the middle convolution."""

    def __init__(self, inputs: int, hidden: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * hidden
        self.layers = nn.Sequential(
            ConvolutionNorm(inputs, hidden),
            ConvolutionNorm(hidden, hidden, 3, stride),
            ConvolutionNorm(hidden, outputs, activate=False),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else ConvolutionNorm(inputs, outputs, 1, stride, 1, False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, inputs, row, column]`` to ``[batch, 4 hidden, row / stride, column / stride]``."""
        return torch.relu(self.shortcut(features) + self.layers(features))


class ResNet50(Resolutions):
    """ResNet-50 (He et al., 2015).

    Parameters
    ----------
    width
        Multiplier of all channels.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        inputs = channels(width, 64)
        self.parts, self.widths = nn.ModuleList([ConvolutionNorm(1, inputs, 7, 2)]), [inputs]
        for level, (repeats, full) in enumerate(RESNET_50):
            layers: list[nn.Module] = [nn.MaxPool2d(3, 2, 1)] if level == 0 else []
            for index in range(repeats):
                layers.append(Bottleneck(inputs, channels(width, full), 2 if index == 0 and level > 0 else 1))
                inputs = 4 * channels(width, full)
            self.parts.append(nn.Sequential(*layers))
            self.widths.append(inputs)
