"""A 3D network that works on half the resolution, which is an eighth of the voxels, and answers on all of it."""

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import Network, enlarge


class HalfResolution(Network):
    """Puts a network between a convolution of stride 2 and one on its enlarged answer.

    Unlike an image of larger voxels, the first convolution keeps what tells the place of an edge within one of them.

    Parameters
    ----------
    network
        Takes ``width`` channels, and answers with ``features``.
    """

    def __init__(self, network: Network, classes: int, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU())
        self.network = network
        self.last = nn.Conv3d(features, classes, 3, padding=1)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, channel, slice, row, column]`` to ``[batch, class, …]``."""
        features = self.network.logits(self.first(image))
        assert isinstance(features, Tensor)
        logits: Tensor = self.last(enlarge(features, "trilinear"))
        return logits
