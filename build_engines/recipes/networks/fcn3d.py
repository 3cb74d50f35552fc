"""A fully convolutional network in 3D: Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015."""

from torch import Tensor, nn

from build_engines.recipes.networks.blocks import Network


class Fcn3d(Network):
    """FCN on a plain encoder: scores at 1/16, 1/8 and 1/4 are added up and enlarged, with no decoder.

    The encoder is that of `UNet3d`, for VGG-16 has no 3D form. Scores are one halving finer than in FCN-8s, since a
    lung is only some twenty voxels wide at 1/4.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (12, 24, 48, 96, 128), channels: int = 1) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        inputs = channels
        for level, width in enumerate(widths):
            repeats = 1 if level == 0 else 2
            layers: list[nn.Module] = []
            for index in range(repeats):
                stride = 2 if level > 0 and index == 0 else 1
                layers += [nn.Conv3d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
                inputs = width
            self.encoder.append(nn.Sequential(*layers))
        self.scores = nn.ModuleList([nn.Conv3d(width, classes, 1) for width in widths[-3:]])

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, channel, slice, row, column]`` to ``[batch, class, …]``; multiples of 16 only."""
        features, scales = image, []
        for stage in self.encoder:
            features = stage(features)
            scales.append(features)
        summed: Tensor | None = None
        for score, scale in zip(reversed(self.scores), reversed(scales[-3:]), strict=True):
            here = score(scale)
            summed = here if summed is None else here + _enlarge(summed, 2)
        assert summed is not None
        return _enlarge(summed, 4)


def _enlarge(features: Tensor, factor: int) -> Tensor:
    return nn.functional.interpolate(features, scale_factor=float(factor), mode="trilinear")
