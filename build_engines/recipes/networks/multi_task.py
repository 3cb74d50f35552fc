"""Mask and class of a 2D image from one encoder."""

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, enlarge
from build_engines.recipes.networks.classifier import Classifier
from build_engines.recipes.networks.encoders import Encoder

LATERAL = 32
"""Channels of the decoder."""


class MultiTask(Network):
    """A classifier whose encoder also has a light decoder, a feature pyramid (Lin et al., CVPR 2017), for a mask.

    Caruana, Multitask Learning, 1997: what one task needs of the features keeps the other from learning by heart.
    The mask is made at a quarter of the resolution, and enlarged.
    """

    def __init__(self, classes: int, encoder: Encoder, dropout: float = 0.2, segments: int = 2) -> None:
        super().__init__()
        self.classifier = Classifier(classes, encoder, dropout=dropout)
        self.lateral = nn.ModuleList(ConvolutionNorm(width, LATERAL) for width in encoder.widths[1:])
        self.smooth = ConvolutionNorm(LATERAL, LATERAL, 3, groups=LATERAL)
        self.last = nn.Conv2d(LATERAL, segments, 1)

    def logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[batch, 1, row, column]`` to ``[batch, segment, row, column]`` and ``[batch, class]``.

        Rows and columns are multiples of 32.
        """
        scales = self.classifier.encoder(image)
        coarse = self.lateral[-1](scales[-1])
        for lateral, scale in zip(self.lateral[-2::-1], scales[-2:0:-1], strict=True):
            coarse = enlarge(coarse, "nearest") + lateral(scale)
        mask: Tensor = enlarge(enlarge(self.last(self.smooth(coarse)), "bilinear"), "bilinear")
        return mask, self.classifier.classify(scales)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Give what is served: probabilities of background and segments, and of the classes."""
        mask, classes = self.logits(image)
        return mask.softmax(dim=1), classes.softmax(dim=1)
