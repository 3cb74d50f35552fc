"""DeepLab: context by dilated convolutions."""

import torch
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, channels
from build_engines.recipes.networks.encoders import MobileNetV2


class DeepLabV3Plus(Network):
    """DeepLabV3+ (Chen et al., Encoder-Decoder with Atrous Separable Convolution, 2018) on MobileNetV2.

    The encoder's last resolution is kept at 1/16 by dilation. Its features are seen at several rates and on average
    (atrous spatial pyramid pooling), then joined with those at 1/4.

    Parameters
    ----------
    classes
        With background.
    encoder
        It is changed, and belongs to this network from now on.
    width
        Multiplier of the channels of pyramid and decoder.
    rates
        Of dilation. Those of the paper, 6, 12 and 18, are for 513 × 513 pixels; on a smaller image they would mostly
        see what lies outside of it.
    """

    def __init__(
        self, classes: int, encoder: MobileNetV2, width: float = 1.0, rates: tuple[int, ...] = (6, 12, 18)
    ) -> None:
        super().__init__()
        self.encoder = encoder
        for stage in encoder.stages[-2:]:
            keep_resolution(stage)
        deep, outputs, low = encoder.widths[-1], channels(width, 256), channels(width, 48)
        self.pyramid = nn.ModuleList(
            [ConvolutionNorm(deep, outputs), *(_Dilated(deep, outputs, rate) for rate in rates)]
        )
        self.average = ConvolutionNorm(deep, outputs)
        self.join = nn.Sequential(ConvolutionNorm((len(rates) + 2) * outputs, outputs), nn.Dropout(0.1))
        self.low = ConvolutionNorm(encoder.widths[1], low)
        self.last = nn.Sequential(
            ConvolutionNorm(outputs + low, outputs, 3),
            ConvolutionNorm(outputs, outputs, 3),
            nn.Conv2d(outputs, classes, 1),
        )

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class, row, column]``; multiples of 16 only."""
        _, low, _, _, deep = self.encoder(image)
        average = self.average(deep.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *deep.shape[2:])
        joined = self.join(torch.cat([average, *(branch(deep) for branch in self.pyramid)], dim=1))
        enlarged = nn.functional.interpolate(joined, scale_factor=4.0, mode="bilinear")
        scores = self.last(torch.cat([enlarged, self.low(low)], dim=1))
        return nn.functional.interpolate(scores, scale_factor=4.0, mode="bilinear")


class _Dilated(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, rate: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


def keep_resolution(part: nn.Module) -> None:
    """Take the stride from a part of an encoder, and dilate its other convolutions, so that they see as much."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size > (1, 1):
            if layer.stride > (1, 1):
                layer.stride = (1, 1)
            else:
                layer.dilation = layer.padding = (2, 2)
