"""Classifiers of small patches, such as what lies around one candidate for a nodule."""

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import ConvolutionNorm, Network, enlarge
from build_engines.recipes.networks.classifier import Classifier
from build_engines.recipes.networks.encoders import Encoder


class SmallCnn(Network):
    """Pairs of 3 × 3 convolutions, halved in between, then a global average and a linear layer.

    Parameters
    ----------
    classes
        How many.
    widths
        Channels of each scale, finest first.
    dropout
        Part of the averaged features that is left out in training.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (16, 32, 64, 128), dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for level, width in enumerate(widths):
            layers += [ConvolutionNorm(inputs, width, 3, 1 if level == 0 else 2), ConvolutionNorm(width, width, 3)]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, classes)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class]``."""
        logits: Tensor = self.linear(self.dropout(self.features(image).mean(dim=(2, 3))))
        return logits


class MagnifiedClassifier(Network):
    """A classifier of whole images that sees a patch at twice its resolution.

    Encoders for whole images end at 1/32 of the resolution, which leaves nothing to look at in a patch of 48 pixels.
    """

    def __init__(self, classes: int, encoder: Encoder, head: int = 320, dropout: float = 0.3) -> None:
        super().__init__()
        self.classifier = Classifier(classes, encoder, head, dropout)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, row, column]`` to ``[batch, class]``."""
        return self.classifier.logits(enlarge(image, "bilinear"))
