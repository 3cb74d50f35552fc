"""A 3D network that is told how far from the middle of the image each voxel is."""

import numpy as np
import torch
from torch import Tensor

from build_engines.recipes.networks.blocks import Network

REACH = 24.0
"""Voxels from the middle that are 1 in the second channel."""


class AboutMiddle(Network):
    """Gives a network the distance from the middle as a second channel.

    What is to be outlined lies there, and convolutions alone do not know where they are (Liu et al., An Intriguing
    Failing of Convolutional Neural Networks and the CoordConv Solution, 2018).

    Parameters
    ----------
    network
        Takes two channels.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, slice, row, column]`` to ``[batch, class, slice, row, column]``."""
        away = torch.from_numpy(distance(tuple(int(length) for length in image.shape[2:]))).to(image.dtype)
        logits = self.network.logits(torch.cat([image, away.expand(image.shape[0], -1, -1, -1, -1)], dim=1))
        assert isinstance(logits, Tensor)
        return logits


def distance(shape: tuple[int, ...]) -> np.ndarray:
    """Give the distance of each voxel from the middle, over `REACH`: ``[1, 1, slice, row, column]``, float32."""
    axes = np.meshgrid(*(np.arange(length) - (length - 1) / 2 for length in shape), indexing="ij", sparse=True)
    return (np.sqrt(sum(axis**2 for axis in axes)) / REACH).astype(np.float32)[None, None]
