"""The deep classifier of candidates: a small 3D network on the cube around each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes import training
from build_engines.recipes.augmentation.primitives import Random
from build_engines.recipes.ladder.cad.features import Bytes
from build_engines.recipes.ladder.cad.scans import NODULE, OTHER, Scan, to_learn
from build_engines.recipes.networks.blocks import Network

SIDE = 32
"""Voxels of a cube along each axis; 48 mm."""

WIDTHS = (16, 32, 64, 96)

SHIFT = 1
"""Voxels that a cube is moved by in training: candidates do not lie quite in the middle."""

Classify = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From cubes ``[n, 1, slice, row, column]``, 0–1, to probabilities ``[n, class]``, of which 1 is the nodule's."""


class CubeClassifier(Network):
    """Convolutions and a linear layer, on the average of all places and that of the middle, where the candidate is.

    It is what Setio et al. (IEEE TMI 35, 2016) do in 2D, in 3D.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for level, width in enumerate(widths):
            for stride in (2,) if level == 0 else (1, 2) if level < len(widths) - 1 else (1,):
                layers += [nn.Conv3d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
                inputs = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * inputs, 2)

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, slice, row, column]`` to ``[batch, 2]``: something else, nodule."""
        features = self.features(image)
        middle = features[:, :, 1:-1, 1:-1, 1:-1]
        averages = torch.cat([features.mean(dim=(2, 3, 4)), middle.mean(dim=(2, 3, 4))], dim=1)
        logits: Tensor = self.linear(self.dropout(averages))
        return logits


@dataclass(frozen=True, eq=False)
class CubeTraining:
    """The training of the deep classifier: half of a batch are nodules, half is something else."""

    nodules: Bytes
    others: Bytes
    name: str = "cad-deep"
    images: int = 48
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2

    def network(self) -> Network:
        """Build the untrained network."""
        return CubeClassifier()

    def batch(self, random: Random) -> training.Batch:
        """Draw cubes, moved, mirrored, turned by right angles, of another contrast and noise."""
        target = np.arange(self.images) % 2
        drawn = [
            changed(source[random.integers(len(source))], random)
            for source in ((self.others, self.nodules)[label] for label in target)
        ]
        return torch.from_numpy(np.stack(drawn)[:, None]), torch.from_numpy(target)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, a little smoothed: some of what is called something else are nodules that nobody marked."""
        return nn.functional.cross_entropy(outputs, target, label_smoothing=0.05)


def changed(cube: Bytes, random: Random) -> NDArray[np.float32]:
    """Augment one cube that is larger than `SIDE` by `SHIFT` on each side."""
    start = random.integers(0, 2 * SHIFT + 1, 3)
    moved = cube[tuple(slice(first, first + SIDE) for first in start)]
    turned = np.flip(moved.transpose(random.permutation(3)), tuple(np.flatnonzero(random.random(3) < 0.5).tolist()))
    image = turned.astype(np.float32) / 255
    image = image * random.uniform(0.85, 1.15) + random.uniform(-0.06, 0.06)
    if random.random() < 0.5:
        image = image + random.standard_normal(image.shape, dtype=np.float32) * random.uniform(0, 0.05)
    return np.clip(image, 0, 1).astype(np.float32)


def training_cubes(scans: Sequence[Scan], seed: int) -> CubeTraining:
    """Cut the cubes to learn from, larger than `SIDE` by `SHIFT` on each side."""
    random = np.random.default_rng(seed)
    reach = SIDE // 2 + SHIFT
    cubes: dict[int, list[Bytes]] = {NODULE: [], OTHER: []}
    for scan in scans:
        chosen, targets = to_learn(scan, random), scan.targets
        around = scan.around([scan.candidates[index].centre for index in chosen], reach, reach)
        for index, cube in zip(chosen, around, strict=True):
            cubes[int(targets[index])].append(cube.copy())
    return CubeTraining(np.stack(cubes[NODULE]), np.stack(cubes[OTHER]))


def scores(scan: Scan, classify: Classify) -> NDArray[np.float64]:
    """Give each candidate's probability of being a nodule."""
    cubes = scan.around([candidate.centre for candidate in scan.candidates], SIDE // 2, SIDE // 2)
    images = (cube[None, None].astype(np.float32) / np.float32(255) for cube in cubes)
    return np.array([classify(image)[0, 1] for image in images], np.float64)
