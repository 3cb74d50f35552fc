"""Encoders of 2D networks: feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, InvertedResidual, channels

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
