"""The ladder of outlines of a nodule in the middle of a 3D patch of LIDC-IDRI."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes import training
from build_engines.recipes.augmentation import primitives
from build_engines.recipes.augmentation.primitives import Random, chance
from build_engines.recipes.data.nodules import LIDC_MIDDLE, LIDC_WINDOW, NodulePatch, read_lidc
from build_engines.recipes.ladder.rows import Row
from build_engines.recipes.networks.about_middle import AboutMiddle
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.half_resolution import HalfResolution
from build_engines.recipes.networks.unet import UNet3d
from engines.serving.engine_set import EngineSet
from engines.verify import dice
from evaluation.estimate import Estimate
from evaluation.metrics.detection import SMALL_MM
from evaluation.metrics.segmentation import Agreement, compare, segmentation_figures

NAME = "nodule-outline-unet"

EDGE, PATCHES = 48, 12
"""Of a training patch in voxels of 1 mm, which is also the served one, and how many are drawn for a step."""

CUT_OFF_MM = 15.0
"""Diameter that parts small nodules from large ones, of which as many are drawn."""

SEGMENT = "nodule"
WIDTHS, FEATURES = (24, 48, 96), 8
"""Of the scales, and the network on half the resolution, for the last convolution."""

FIGURES = ("dice", "iou", "hausdorff95_mm", "surface_distance_mm", "volume_mae_ml", "volume_mse_ml2")

TRAINED_ON = "LIDC-IDRI: 80 nodules of as many patients, 51 mm around each"
JUDGED_ON = "LIDC-IDRI: 20 nodules of other patients; intervals by patient"

TOML = """[identity]
name = "NAME"
version = "0.1.0"
uid_root = "77"
licence = "Apache-2.0"
intended_use = "Research use only: a row of the ladder, outlines a nodule in the middle of a patch of CT."

[input]
tensor = "image"
modality = ["CT"]
spacing_mm = [1.0, 1.0, 1.0]
window = [-1160.0, 380.0]
patch = [EDGE, EDGE, EDGE]
flips = [0, 1, 2]

[segmentation]
tensor = "probabilities"
keep_largest = true

[[segmentation.segments]]
label = "Nodule"
category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }
type = { value = "27925004", scheme = "SCT", meaning = "Nodule" }
colour = [240, 200, 60]
measurements = ["volume"]

[verify]
max_probability_error = 0.02
min_dice = 0.99
"""

CARD = """# NAME

A row of the ladder: outlines of lung nodules, trained on LIDC-IDRI (CC BY 3.0). Research use only.

<!-- figures -->
<!-- /figures -->
"""

# Dice of each patch on its own: a nodule of 6 mm counts as much as one of 30 mm, as it does in the figures.
_loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, smooth_nr=1.0, smooth_dr=1.0)


@dataclass(frozen=True, eq=False)
class NoduleOutline:
    """The recipe of one network; see the module.

    Attributes
    ----------
    name, build
        Of the network.
    cases, held_out
        Patches that it is trained on, and those that judge it: `centred`.
    """

    name: str
    build: Callable[[], Network]
    cases: tuple[NodulePatch, ...]
    held_out: tuple[NodulePatch, ...]
    steps: int = 900
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2

    @property
    def toml(self) -> str:
        """See `training.Recipe`."""
        return TOML.replace("NAME", self.name).replace("EDGE", str(EDGE))

    @property
    def card(self) -> str:
        """See `training.Recipe`."""
        return CARD.replace("NAME", self.name)

    def network(self) -> Network:
        """Build the untrained network."""
        return self.build()

    def batch(self, random: Random) -> training.Batch:
        """Draw patches, turned, mirrored, scaled, shifted, of another kernel, dose and contrast.

        As many are of small as of large nodules.
        """
        groups = [
            [patch for patch in self.cases if (patch.diameter_mm < CUT_OFF_MM) == small] for small in (True, False)
        ]
        groups = [group for group in groups if group]
        drawn = [
            augment(each[random.integers(len(each))], EDGE, random) for _, each in zip(range(PATCHES), cycle(groups))
        ]
        return torch.stack([image for image, _ in drawn]), torch.stack([mask for _, mask in drawn])

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """Cross-entropy and the soft Dice loss of each patch."""
        loss: Tensor = _loss(outputs, target[:, None])
        return loss

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the mean Dice of the held-out patches, by size, from the network without test-time mirroring."""
        overlaps = np.array([dice(patch.mask, outline(network, patch)) for patch in self.held_out])
        small = np.array([patch.diameter_mm < SMALL_MM for patch in self.held_out])
        return {
            f"Dice, {words}": float(overlaps[which].mean())
            for words, which in (("all", slice(None)), ("below 8 mm", small), ("8 mm and more", ~small))
        }

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Give the figures of the held-out patches from the package as a node runs it."""
        return figures([judge(engines, self.name, patch) for patch in self.held_out], self.held_out)

    def golden(self) -> NDArray[np.float32]:
        """A soft ball in noise."""
        settings = tomllib.loads(self.toml)["input"]
        offsets = np.indices(settings["patch"]) - (EDGE - 1) / 2
        ball = 1 / (1 + np.exp(np.sqrt((offsets**2).sum(axis=0)) - 7))
        noise = np.random.default_rng(1).normal(0, 0.02, ball.shape)
        return (0.15 + 0.55 * ball + noise).clip(0, 1).astype(np.float32)[None, None]


def centred(patch: NodulePatch) -> NodulePatch:
    """Cut a patch of LIDC to the 48 voxels that have its nodule in their middle, as one who points at it would."""
    first = round(2 * LIDC_MIDDLE) - len(patch.image) + 1
    inner = (slice(first, None),) * 3
    return replace(patch, image=patch.image[inner], mask=patch.mask[inner])


def scaled(image: NDArray[np.float32]) -> Tensor:
    """Bring HU to 0–1: ``[1, slice, row, column]``."""
    low, high = LIDC_WINDOW
    return torch.from_numpy(((image - low) / (high - low)).clip(0, 1).astype(np.float32))[None]


def augment(patch: NodulePatch, edge: int, random: Random) -> training.Batch:
    """Make one training patch of this edge, and its mask."""
    linear = primitives.rotation(np.array([random.uniform(-np.pi, np.pi), *random.normal(0, 0.25, 2)]))
    linear = linear @ np.diag(random.choice([-1.0, 1.0], 3) * random.uniform(0.75, 1.3) * random.uniform(0.92, 1.08, 3))
    shape = (edge, edge, edge)
    centre = (np.array(patch.image.shape) - 1) / 2 + random.uniform(-1, 1, 3)
    matrix = primitives.about_centre(linear, centre, shape)
    layers = torch.cat([scaled(patch.image), torch.from_numpy(patch.mask.astype(np.float32))[None]])
    image, mask = primitives.sample(layers, shape, matrix, "bilinear").chunk(2)
    image = image * random.uniform(0.9, 1.1) + random.uniform(-0.05, 0.05)
    if chance(random, 0.5):
        image = primitives.texture(random, image, noise=0.05)
    return image.clamp(0, 1), (mask[0] > 0.5).long()


def outline(network: Network, patch: NodulePatch) -> NDArray[np.bool_]:
    """Outline one patch with a network in PyTorch, padded with air as serving does."""
    image = scaled(patch.image)
    before = (EDGE - image.shape[1]) // 2
    padding = [before, EDGE - image.shape[1] - before] * 3
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        labels = network.logits(torch.nn.functional.pad(image, padding)[None])[0].argmax(dim=0)
    inner = (slice(before, before + image.shape[1]),) * 3
    found: NDArray[np.bool_] = labels[inner].numpy() > 0
    return found


def judge(engines: EngineSet, name: str, patch: NodulePatch) -> Agreement:
    """Outline one patch as a node does, and compare."""
    found = engines.run(name, patch.volume).label_map
    masks = {SEGMENT: found.array > 0} if found else {}
    return compare({SEGMENT: patch.mask}, masks, patch.volume)


def figures(agreements: Sequence[Agreement], patches: Sequence[NodulePatch]) -> dict[str, Estimate]:
    """Give the means over the patches, each another patient's: of all, and by size (names end in the size)."""
    sizes = np.array([patch.diameter_mm for patch in patches])
    groups = {"": sizes > 0, "_below_8_mm": sizes < SMALL_MM, "_from_8_mm": sizes >= SMALL_MM}
    named: dict[str, Estimate] = {}
    for ending, which in groups.items():
        chosen = np.flatnonzero(which).tolist()
        found = segmentation_figures([agreements[index] for index in chosen], [patches[index].name for index in chosen])
        named |= {f"{figure}{ending}": found[figure] for figure in FIGURES}
    return named


def load(data: Path) -> NoduleOutline:
    """Read the patches, centred.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_nodule/lidc_patches.npz``.
    """
    cases, held_out = (tuple(map(centred, read_lidc(data, which))) for which in (False, True))
    return NoduleOutline(NAME, unet, cases, held_out)


def unet() -> Network:
    """Build the U-Net, on half the resolution and told how far the middle is."""
    width = WIDTHS[0]
    network = UNet3d(FEATURES, WIDTHS, channels=width)
    return AboutMiddle(HalfResolution(network, classes=2, channels=2, width=width, features=FEATURES))


ROWS: Mapping[str, Row] = {
    NAME: Row(
        table="nodule-outlines",
        title="Outline: U-Net 3D on half the resolution, knows the distance from the middle, 900 steps",
        load=load,
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published="Dice 0.822: central focused CNN (Wang et al., Medical Image Analysis 40, 2017)",
        differs="893 nodules of LIDC-IDRI there, 80 to train on and 20 to judge by here",
    )
}
