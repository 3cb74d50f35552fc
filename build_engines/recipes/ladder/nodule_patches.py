"""The ladder of nodule or not, on 2D patches of LUNA16: any classifier, and how it is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes import training
from build_engines.recipes.augmentation.primitives import Random
from build_engines.recipes.data.nodules import LUNA_WINDOW, read_luna
from build_engines.recipes.ladder import unpackaged
from build_engines.recipes.ladder.rows import Result, Row
from build_engines.recipes.ladder.unpackaged import Compiled
from build_engines.recipes.losses import LOSSES
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.encoders import MobileNetV2
from build_engines.recipes.networks.patch_classifier import MagnifiedClassifier, SmallCnn
from evaluation.estimate import Estimate
from evaluation.metrics.classification import Answers, classification_figures

SIZE = 48
"""Of the network's input, in pixels; the patches have 50."""

NODULE = 1
"""The class's channel; 0 is no nodule."""

OUTPUT = "classes"

TRAINED_ON = "LUNA16: 2645 patches, 845 of them nodules"
JUDGED_ON = "LUNA16: 1297 other patches, 224 of them nodules; patients unknown, so intervals are by patch"

Classify = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From patches ``[patch, 1, 48, 48]`` to probabilities ``[patch, 2]``."""


@dataclass(frozen=True, eq=False)
class NodulePatches:
    """The training of one classifier.

    Attributes
    ----------
    name, build
        Of the network.
    images, labels
        ``[patch, 50, 50]`` in 0–1, and 1 for a nodule.
    drawn
        Patches of a batch, half of them nodules.
    """

    name: str
    build: Callable[[], Network]
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    learning_rate: float = 3e-3
    weight_decay: float = 2e-2
    loss_name: str = "smoothed-cross-entropy"
    drawn: int = 64

    def network(self) -> Network:
        """Build the untrained network."""
        return self.build()

    def batch(self, random: Random) -> training.Batch:
        """Draw as many nodules as others, turned, mirrored, scaled, shifted, noisy and of another contrast."""
        half = self.drawn // 2
        chosen = np.concatenate([random.choice(np.flatnonzero(self.labels == each), half) for each in (0, NODULE)])
        return augment(torch.from_numpy(self.images[chosen])[:, None], random), torch.from_numpy(self.labels[chosen])

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """Judge by ``loss_name``."""
        return LOSSES[self.loss_name](outputs, target)


def scaled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring HU to 0–1."""
    low, high = LUNA_WINDOW
    return (np.clip(images, low, high) - low) / np.float32(high - low)


def augment(images: Tensor, random: Random) -> Tensor:
    """Change a batch ``[patch, 1, row, column]``, each patch in its own way, and crop it to `SIZE`."""
    count, _, rows, _ = images.shape
    angle = random.uniform(0, 2 * np.pi, count)
    scale = random.uniform(0.8, 1.25, (2, count)) * SIZE / rows
    mirror = random.choice([-1.0, 1.0], count)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * scale[0] * np.cos(angle), -scale[1] * np.sin(angle)
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale[0] * np.sin(angle), scale[1] * np.cos(angle)
    theta[:, :, 2] = random.uniform(-0.1, 0.1, (count, 2))
    grid = nn.functional.affine_grid(torch.from_numpy(theta), [count, 1, SIZE, SIZE], False)
    images = nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    gain, offset = (
        torch.from_numpy(random.uniform(low, high, (count, 1, 1, 1)).astype(np.float32))
        for low, high in ((0.9, 1.1), (-0.05, 0.05))
    )
    noise = torch.from_numpy(random.standard_normal(tuple(images.shape), dtype=np.float32))
    level = torch.from_numpy(random.uniform(0, 0.04, (count, 1, 1, 1)).astype(np.float32))
    return (images * gain + offset + level * noise).clamp(0, 1)


def predict(classify: Classify, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the probability of a nodule for each patch: the mean of its eight turned and mirrored copies."""
    margin = (images.shape[1] - SIZE) // 2
    inner = images[:, margin : margin + SIZE, margin : margin + SIZE]
    copies = []
    for quarter, mirrored in product(range(4), (False, True)):
        turned = np.rot90(inner, quarter, axes=(1, 2))
        turned = turned[:, :, ::-1] if mirrored else turned
        copies.append(classify(np.ascontiguousarray(turned[:, None]))[:, NODULE])
    return np.mean(copies, axis=0, dtype=np.float64)


def by_engine(engine: Compiled) -> Classify:
    """Classify with a compiled network, one patch after the other."""
    return lambda images: np.concatenate([engine.infer(image[None])[OUTPUT] for image in images])


def figures(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Estimate]:
    """Give the figures of a classifier from its `predict`; patients are not known, so patches are drawn anew."""
    answers = Answers(("no_nodule", "nodule"), labels, np.stack([1 - scores, scores], axis=1))
    return classification_figures(answers, [str(index) for index in range(len(labels))])


def train_and_judge(name: str, build: Callable[[], Network], steps: int, data: Path, seed: int) -> Result:
    """Train one classifier on the training patches, and judge it on the validation patches, compiled."""
    images, labels = read_luna(data, "train")
    recipe = NodulePatches(name, build, scaled(images), labels)
    judged, truth = read_luna(data, "val")
    return unpackaged.train_and_judge(
        recipe,
        steps,
        seed,
        np.zeros((1, 1, SIZE, SIZE), np.float32),
        (OUTPUT,),
        lambda engine: figures(predict(by_engine(engine), scaled(judged)), truth),
    )


def _small_cnn() -> Network:
    return SmallCnn(2)


def _mobilenet() -> Network:
    return MagnifiedClassifier(2, MobileNetV2(0.5))


def _row(title: str, run: Callable[[Path, int], Result]) -> Row:
    return Row(
        table="nodule-patches",
        title=f"{title}; mean of 8 turned and mirrored copies",
        run=run,
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published="AUC 0.931, sensitivity 0.927, specificity 0.762: 2D CNN (Journal of Medical Imaging 7, 2020, "
        "PMC7550796)",
        differs="candidates of 1600 CT of other sources there, ready-made patches of LUNA16 here",
    )


ROWS: Mapping[str, Row] = {
    "nodule-patch-cnn": _row(
        "Nodule or not: small CNN, 1000 steps", partial(train_and_judge, "nodule-patch-cnn", _small_cnn, 1000)
    ),
    "nodule-patch-mobilenet": _row(
        "Nodule or not: MobileNetV2 with shuffle attention at twice the resolution, 400 steps",
        partial(train_and_judge, "nodule-patch-mobilenet", _mobilenet, 400),
    ),
}
