"""Fully convolutional networks."""

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, enlarge
from build_engines.recipes.networks.encoders import Encoder


class Fcn8(Network):
    """FCN-8s (Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015) on any encoder.

    The classes are scored at 1/32, 1/16 and 1/8 of the resolution, and the scores added. Enlarging is bilinear
    throughout, which is what the paper's learned enlarging begins with.

    Parameters
    ----------
    classes
        With background.
    encoder
        VGG-16 in the paper.
    hidden
        Channels of the two layers that were VGG's fully connected ones; 4096 in the paper.
    """

    def __init__(self, classes: int, encoder: Encoder, hidden: int = 4096) -> None:
        super().__init__()
        self.encoder = encoder
        eighth, sixteenth, last = encoder.widths[2:]
        self.scores = nn.ModuleList(
            [
                nn.Conv2d(eighth, classes, 1),
                nn.Conv2d(sixteenth, classes, 1),
                nn.Sequential(
                    ConvolutionNorm(last, hidden, 7),
                    nn.Dropout2d(0.5),
                    ConvolutionNorm(hidden, hidden),
                    nn.Dropout2d(0.5),
                    nn.Conv2d(hidden, classes, 1),
                ),
            ]
        )

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class, row, column]``; multiples of 32 only, from 128 on.

        On less, the outer weights of the 7 × 7 convolution meet no feature, and PyTorch leaves their gradients in bf16
        undefined (seen in 2.13 on a CPU).
        """
        eighth, sixteenth, last = (
            score(features) for score, features in zip(self.scores, self.encoder(image)[2:], strict=True)
        )
        scores = enlarge(enlarge(last, "bilinear") + sixteenth, "bilinear") + eighth
        return nn.functional.interpolate(scores, scale_factor=8.0, mode="bilinear")
