"""Classifiers of 2D images."""

from collections.abc import Sequence

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network
from build_engines.recipes.networks.encoders import Encoder


class Classifier(Network):
    """An encoder and a linear head on the global average, so that it has class activation maps.

    Parameters
    ----------
    head
        Channels of the last feature map.
    dropout
        Part of them that is left out in training.
    """

    def __init__(self, classes: int, encoder: Encoder, head: int = 640, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ConvolutionNorm(self.encoder.widths[-1], head)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(head, classes)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class]``."""
        return self.classify(self.encoder(image))

    def classify(self, scales: Sequence[Tensor]) -> Tensor:
        """Map the feature maps of the encoder to ``[batch, class]``."""
        features = self.head(scales[-1]).mean(dim=(2, 3))
        logits: Tensor = self.linear(self.dropout(features))
        return logits
