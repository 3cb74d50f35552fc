"""``ct-lung``: left and right lung on a chest CT, with a small 3D U-Net on a 3 mm grid.

Data: five chest CT volumes of LCTSC (The Cancer Imaging Archive, CC BY 3.0) with one mask for both lungs. Four train,
one validates.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes import training
from build_engines.recipes.augmentation import primitives
from build_engines.recipes.augmentation.cts import (
    GAS,
    NODULE,
    SOFT,
    add_balls,
    aerate,
    consolidate,
    contrast,
    field_of_view,
    thick_slices,
)
from build_engines.recipes.augmentation.primitives import Random, chance
from build_engines.recipes.data import phantom
from build_engines.recipes.data.sources import LEFT, RIGHT, LabelledCt, read_chests
from build_engines.recipes.figures.lungs import VALIDATION, by_model, figures, judged
from build_engines.recipes.losses import LOSSES
from build_engines.recipes.networks.blocks import Network, Outputs
from build_engines.recipes.networks.self_configured import deeply_supervised
from build_engines.recipes.networks.unet import UNet3d
from build_engines.recipes.packaging.texts import package_texts
from engines.inference.preprocessing import resample_to_grid, window
from engines.serving.engine_set import EngineSet
from engines.types import Volume
from engines.verify import dice
from evaluation.estimate import Estimate

NAME = "ct-lung"
PATCH = (64, 96, 96)
"""Training patch; smaller than the one that serves, so that a step is quick."""

TOML, CARD = package_texts(NAME)


@dataclass(frozen=True, eq=False)
class Case:
    """One CT on the network's grid: both ``[1, slice, row, column]``; ``image`` is 0 at the low end of the window."""

    image: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class CtLung:
    """The recipe; see the module.

    Attributes
    ----------
    cases, validation
        On the network's grid.
    sources
        What the package is judged on, as it came.
    build
        Builds the untrained network; another one for each row of the ladder.
    loss_name
        One of `LOSSES`.
    images, patch
        Patches of a batch, and their shape.
    measured
        Figures of the card; all of them for a row of the ladder.
    """

    cases: tuple[Case, ...]
    validation: tuple[Case, ...]
    sources: Mapping[str, LabelledCt]
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 900
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    loss_name: str = "dice+cross-entropy"
    images: int = 2
    patch: tuple[int, int, int] = PATCH
    build: Callable[[], Network] = lambda: UNet3d(classes=3)
    measured: Sequence[str] = ("dice",)

    def network(self) -> Network:
        """Build the untrained network."""
        return self.build()

    def batch(self, random: Random) -> training.Batch:
        """Draw patches of random cases, turned, scaled, noisy and cut like the CT of another scanner."""
        drawn = [augment(self.cases[random.integers(len(self.cases))], self.patch, random) for _ in range(self.images)]
        return torch.stack([image for image, _ in drawn]), torch.stack([labels for _, labels in drawn])

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Judge by ``loss_name``, at every resolution that the network answers in."""
        return deeply_supervised(LOSSES[self.loss_name], outputs, target)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the Dice of both lungs on the held-out case, on the network's grid."""
        figures = {}
        for case in self.validation:
            labels = predict(network, case.image)
            for label, name in ((LEFT, "left"), (RIGHT, "right")):
                truth = case.labels[0].numpy() == label
                figures[f"Dice, {name} lung, held-out case, 3 mm grid"] = dice(truth, labels == label)
        return figures

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Give the figures on each source's own grid, of CT that were not trained on."""
        return figures(by_model(self.name, engines), self.sources, self.measured)

    def golden(self) -> NDArray[np.float32]:
        """A patch of the synthetic chest."""
        settings = tomllib.loads(self.toml)["input"]
        chest = phantom.chest(tuple(settings["patch"]), tuple(settings["spacing_mm"]))
        return window(chest, *settings["window"])[None, None]


def load(data: Path, toml: str = TOML) -> CtLung:
    """Read the five volumes, and bring them to the grid of a ``model.toml``.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_lung/*_ct.nii.gz``.
    """
    sources = judged(data)
    return CtLung(
        cases=tuple(to_grid(chest, toml) for chest in read_chests(data, held_out=False)),
        validation=(to_grid(sources[VALIDATION], toml),),
        sources=sources,
        toml=toml,
    )


def to_grid(source: LabelledCt, toml: str) -> Case:
    """Bring a CT and its labels to the grid of a ``model.toml``."""
    settings = tomllib.loads(toml)["input"]
    spacing = tuple(settings["spacing_mm"])
    volume, labels = source.volume, source.labels
    image, _ = resample_to_grid(volume, spacing)
    low, high = settings["window"]
    planes = [
        resample_to_grid(Volume((labels == label).astype(np.float32), volume.affine, volume.sources), spacing)[0]
        for label in (LEFT, RIGHT)
    ]
    grid = np.where(np.maximum(*planes) >= 0.5, np.where(planes[0] > planes[1], LEFT, RIGHT), 0)
    # Not clipped at the window's upper end yet: the augmentation changes the values first.
    return Case(torch.from_numpy((image - low) / (high - low))[None], torch.from_numpy(grid.astype(np.int64))[None])


def augment(case: Case, shape: tuple[int, int, int], random: Random) -> training.Batch:
    """Make one training patch: another patient, disease, contrast, dose, kernel, slice thickness and field of view."""
    angles = random.normal(0, (0.4 if chance(random, 0.15) else 0.12, 0.08, 0.08))
    linear = primitives.rotation(angles) @ np.diag(random.uniform(0.8, 1.45) * random.uniform(0.92, 1.08, 3))
    full = np.array(case.image.shape[1:])
    matrix = primitives.about_centre(linear, random.uniform((0.2, 0.3, 0.25), (0.8, 0.65, 0.75)) * full, shape)
    image = primitives.sample(case.image, shape, matrix, "bilinear")
    labels = primitives.sample(case.labels.float(), shape, matrix, "nearest")
    lungs = (labels > 0).float()
    if chance(random, 0.8):
        image = aerate(image, lungs, random)
    if chance(random, 0.5):
        image = add_balls(image, lungs, NODULE, random)
    if chance(random, 0.5):
        image = add_balls(image, ((image > SOFT) & (lungs == 0)).float(), GAS, random)
    for lung in (LEFT, RIGHT):
        if chance(random, 0.25):
            image = consolidate(image, (labels == lung).float(), random)
    if chance(random, 0.4):
        image = contrast(image, random)
    image = image * random.uniform(0.94, 1.06) + random.uniform(-0.02, 0.02)
    if chance(random, 0.3):
        image = thick_slices(image, random)
    image = primitives.texture(random, image, noise=0.08)
    if chance(random, 0.4):
        seen = field_of_view(shape, random)
        image, labels = image * seen, labels * seen
    return image.clamp(0, 1), labels[0].long()


def predict(network: Network, image: Tensor) -> NDArray[np.int64]:
    """Label a whole case at once, padded with air to what the network can halve."""
    padding = [part for length in reversed(image.shape[1:]) for part in (0, -length % 16)]
    padded = nn.functional.pad(image.clamp(0, 1), padding)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        labels = network.logits(padded[None])[0].argmax(dim=0)
    found: NDArray[np.int64] = labels[tuple(slice(length) for length in image.shape[1:])].numpy()
    return found
