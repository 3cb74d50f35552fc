"""``cxr-lung``: the lung fields on a frontal chest X-ray: U-Net decoder on MobileNetV2 with shuffle attention.

Data: the Montgomery County X-ray set (U.S. National Library of Medicine) with the masks that came with it. The Shenzhen
masks of the same folder are under a licence that does not allow training what is shipped; they only test.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes import training
from build_engines.recipes.augmentation import primitives, radiographs
from build_engines.recipes.augmentation.primitives import Random, chance
from build_engines.recipes.data import phantom
from build_engines.recipes.data.sources import OutlinedXray, read_masks
from build_engines.recipes.figures.judged import figures, outlined_cases, read_outlined
from build_engines.recipes.losses import LOSSES
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.encoders import MobileNetV2
from build_engines.recipes.networks.unet import UNet
from build_engines.recipes.packaging.texts import package_texts
from engines.inference.postprocessing import keep_largest_component, labels_on_radiograph
from engines.inference.preprocessing import Array, fit, percentile_window
from engines.serving.engine_set import EngineSet
from engines.verify import dice
from evaluation.estimate import Estimate

NAME = "cxr-lung"
WIDTH = 0.5
"""Width multiplier of the encoder, shared with ``cxr-pneumonia`` so that its weights can start from here."""

TOML, CARD = package_texts(NAME)


def shipped_network() -> Network:
    """Build the network that is shipped."""
    return UNet(2, MobileNetV2(WIDTH))


@dataclass(frozen=True, eq=False)
class CxrLung:
    """The recipe; see the module.

    Attributes
    ----------
    cases
        To train on.
    validation
        To judge by, by the words for each set.
    loss_name
        Of `build_engines.recipes.losses.LOSSES`.
    images
        In a batch.
    build
        Makes the untrained network.
    """

    cases: tuple[OutlinedXray, ...]
    validation: Mapping[str, tuple[OutlinedXray, ...]]
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 900
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    loss_name: str = "dice+cross-entropy"
    images: int = 8
    build: Callable[[], Network] = shipped_network

    def network(self) -> Network:
        """Build the untrained network."""
        return self.build()

    def batch(self, random: Random) -> training.Batch:
        """Draw random X-rays, changed in geometry, tone and surroundings."""
        settings = tomllib.loads(self.toml)["input"]
        drawn = [
            augment(
                self.cases[random.integers(len(self.cases))], tuple(settings["size"]), settings["percentiles"], random
            )
            for _ in range(self.images)
        ]
        return torch.stack([image for image, _ in drawn]), torch.stack([mask for _, mask in drawn])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Judge by ``loss_name``."""
        return LOSSES[self.loss_name](logits, target)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the mean Dice of each set on the pixels of the source images."""
        return {
            f"Dice, {name}": float(
                np.mean([dice(case.mask, segment(network, case.image, self.toml)) for case in cases])
            )
            for name, cases in self.validation.items()
        }

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Judge the package as a node runs it on each set: ``SET.METRIC``."""
        sets = {name: outlined_cases(cases) for name, cases in self.validation.items()}
        return figures(engines.models[self.name].package, engines, sets)

    def golden(self) -> NDArray[np.float32]:
        """The synthetic chest, projected."""
        settings = tomllib.loads(self.toml)["input"]
        image = percentile_window(phantom.radiograph(tuple(settings["size"])), *settings["percentiles"])
        return image[None, None]


def load(data: Path) -> CxrLung:
    """Read the X-rays and masks.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr_lung/manifest.csv``.
    """
    return CxrLung(cases=read_masks(data, "montgomery", "train"), validation=read_outlined(data))


def augment(
    case: OutlinedXray, size: tuple[int, int], percentiles: tuple[float, float], random: Random
) -> training.Batch:
    """Make one training image and its mask."""
    image = torch.from_numpy(case.image / 255)[None]
    mask = torch.from_numpy(case.mask.astype(np.float32))[None]
    matrix = radiographs.placement(case.image.shape, size, random)
    layers = torch.cat([image, mask, torch.ones_like(image)])
    image, mask, inside = primitives.sample(layers, size, matrix, "bilinear").chunk(3)
    if chance(random, 0.5):
        image = opacify(image, mask, random)
    image = radiographs.develop(image, random, noise=0.05)
    image = radiographs.surround(image, random)
    if chance(random, 0.4):
        image, opening = radiographs.collimate(image, random)
        mask = mask * opening
    image = radiographs.window_again(image, inside > 0.5, percentiles)
    return image, (mask[0] > 0.5).long()


def opacify(image: Tensor, mask: Tensor, random: Random) -> Tensor:
    """Whiten parts of the lungs as disease does: an opaque lung field is still a lung field."""
    cloud = primitives.smooth_noise(random, tuple(image.shape[1:]), int(random.integers(4, 12)))
    strength = random.uniform(0.1, 0.7) * torch.sigmoid(3 * (cloud - random.uniform(0, 1))) * primitives.blur(mask, 2.0)
    return image + strength * (random.uniform(0.6, 0.95) - image).clamp(min=0)


def segment(network: Network, image: Array, toml: str = TOML) -> NDArray[np.bool_]:
    """Find the lungs as serving does."""
    settings = tomllib.loads(toml)
    tensor, placed = fit(percentile_window(image, *settings["input"]["percentiles"]), tuple(settings["input"]["size"]))
    with torch.no_grad():
        probabilities = network(torch.from_numpy(tensor)[None, None])[0].numpy()
    labels = labels_on_radiograph(probabilities, placed)
    return (keep_largest_component(labels) if settings["segmentation"]["keep_largest"] else labels) > 0
