"""``ct-nodule``: candidates for lung nodules on a chest CT, with a small 3D centre-point detector on a 1.25 mm grid.

Data: 80 nodules of LIDC-IDRI with their surroundings (CC BY 3.0), and four chest CT of LCTSC (CC BY 3.0) into whose
lungs such nodules are put. 20 other nodules and the fifth CT validate.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes import training
from build_engines.recipes.augmentation import primitives
from build_engines.recipes.augmentation.primitives import Random, chance
from build_engines.recipes.data import phantom
from build_engines.recipes.data.implant import implant
from build_engines.recipes.data.nodules import NodulePatch, read_lidc
from build_engines.recipes.data.sources import LabelledCt, read_chests
from build_engines.recipes.figures.nodules import NAME as NAME
from build_engines.recipes.figures.nodules import measure_nodules, validate_nodules
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.centre3d import Centre3d
from build_engines.recipes.networks.centre_targets import Ball, Targets, centre_loss, targets
from build_engines.recipes.packaging.texts import package_texts
from engines.inference.preprocessing import window
from engines.serving.engine_set import EngineSet
from engines.types import Volume
from evaluation.estimate import Estimate

TOML, CARD = package_texts(NAME)
SETTINGS = tomllib.loads(TOML)
INPUT = SETTINGS["input"]
LOW, HIGH = INPUT["window"]
STEP: float = INPUT["spacing_mm"][0]
"""Of the grid in mm, the same along all axes."""

LARGEST = 32.0
"""Side of the largest box in voxels: 40 mm, more than what a nodule is."""

SIDE = 80
"""Voxels along a side of a training patch: 100 mm."""

CUBE = SIDE // 2
"""Voxels along a side of one LIDC patch in a training patch of eight: 50 mm, all that there is."""

SEAM = 3
"""Voxels on each side of a seam between two LIDC patches where nothing counts."""


@dataclass(frozen=True, eq=False)
class CtNodule:
    """The recipe; see the module."""

    chests: tuple[LabelledCt, ...]
    nodules: tuple[NodulePatch, ...]
    held_out_chest: LabelledCt
    held_out: tuple[NodulePatch, ...]
    data: Path
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 2400
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    chest_patches: int = 2
    lidc_patches: int = 2

    def network(self) -> Network:
        """Build the untrained network."""
        return Centre3d(LARGEST)

    def batch(self, random: Random) -> training.Batch:
        """Draw patches of chests with nodules put in, and patches that are made of eight of LIDC each."""
        drawn = [self._chest(random) for _ in range(self.chest_patches)]
        drawn += [self._eight(random) for _ in range(self.lidc_patches)]
        return torch.stack([image for image, _ in drawn]), Targets.stack([target for _, target in drawn])

    def loss(self, outputs: tuple[Tensor, Tensor], target: Targets) -> Tensor:
        """Judge heat map and boxes."""
        return centre_loss(*outputs, target, LARGEST)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give sensitivities on the held-out nodules."""
        return validate_nodules(network, self.held_out, self.held_out_chest, SETTINGS)

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Judge the package on the held-out nodules and CT, as a node runs it."""
        return measure_nodules(engines, self.data, self.held_out, self.held_out_chest)

    def golden(self) -> NDArray[np.float32]:
        """A patch of the synthetic chest, with balls in its lungs."""
        shape = tuple(tomllib.loads(self.toml)["input"]["patch"])
        chest = phantom.chest(shape, tuple(INPUT["spacing_mm"]))
        axes = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * STEP for n in shape), indexing="ij", sparse=True)
        for centre, diameter in (((-20, 20, 60), 9), ((30, -10, -58), 14), ((5, 45, -50), 22)):
            away = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(axes, centre, strict=True)))
            share = np.clip((diameter / 2 - away) / STEP + 0.5, 0, 1)
            chest = chest + share * (phantom.TISSUE - chest)
        return window(chest.astype(np.float32), LOW, HIGH)[None, None]

    def _chest(self, random: Random) -> tuple[Tensor, Targets]:
        """One patch of a chest, with up to four nodules put in; turned, scaled, noisy."""
        chest = self.chests[random.integers(len(self.chests))]
        lungs = np.argwhere(chest.labels[::4, ::4, ::4]) * 4
        part = around(chest, lungs[random.integers(len(lungs))], 1.3 * SIDE * STEP)
        chosen = random.choice(len(self.nodules), size=random.integers(0, 6), replace=False)
        volume, lesions = implant(part, [self.nodules[index] for index in chosen], random)
        scale = random.uniform(0.8, 1.25)
        linear = primitives.rotation(random.normal(0, 0.15, 3)) @ np.diag(mirror(random) * scale)
        linear = np.diag(STEP / np.array(volume.spacing)) @ linear
        middle = (np.array(volume.array.shape) - 1) / 2 + random.uniform(-6, 6, 3) / np.array(volume.spacing)
        matrix = primitives.about_centre(linear, middle, (SIDE, SIDE, SIDE))
        air = (torch.from_numpy(volume.array)[None] - LOW) / (HIGH - LOW)
        image = primitives.sample(air, (SIDE, SIDE, SIDE), matrix, "bilinear")
        to_patch = np.linalg.inv(matrix) @ np.linalg.inv(volume.affine)
        balls = [
            Ball(to_patch[:3, :3] @ np.array(each.centre) + to_patch[:3, 3], (each.diameter_mm or 0) / STEP / scale)
            for each in lesions
        ]
        return varied(image, random), targets(balls, (SIDE, SIDE, SIDE))

    def _eight(self, random: Random) -> tuple[Tensor, Targets]:
        """One patch of eight LIDC patches, each turned, scaled and as coarse as the slices of some scanner."""
        image, counts = torch.zeros(1, SIDE, SIDE, SIDE), np.ones((SIDE, SIDE, SIDE), np.bool_)
        balls = []
        for number, index in enumerate(random.choice(len(self.nodules), size=8, replace=False)):
            corner = np.array([number >> 2 & 1, number >> 1 & 1, number & 1]) * CUBE
            cube, ball = self._one(self.nodules[index], random)
            z, y, x = corner.tolist()
            image[:, z : z + CUBE, y : y + CUBE, x : x + CUBE] = cube
            balls.append(Ball(ball.centre + corner, ball.diameter))
        for axis in range(3):
            for seam in (0, CUBE, SIDE):
                near = np.abs(np.arange(SIDE) + 0.5 - seam) < SEAM
                counts &= ~near.reshape([-1 if each == axis else 1 for each in range(3)])
        # Nodules are always in the middle of their patch, and are not to be learnt from that.
        shift = random.integers(0, SIDE, 3)
        image = torch.roll(image, shift.tolist(), (1, 2, 3))
        counts = np.roll(counts, shift, (0, 1, 2))
        balls = [Ball((ball.centre + 0.5 + shift) % SIDE - 0.5, ball.diameter) for ball in balls]
        return varied(image, random), targets(balls, (SIDE, SIDE, SIDE), counts)

    def _one(self, nodule: NodulePatch, random: Random) -> tuple[Tensor, Ball]:
        axes = random.permutation(3)
        linear = np.eye(3)[axes] * mirror(random) * random.uniform(0.72, 1.0) * STEP
        middle = np.array([25.0, 25.0, 25.0]) + random.uniform(-1.5, 1.5, 3)
        matrix = primitives.about_centre(linear, middle, (CUBE, CUBE, CUBE))
        air = (torch.from_numpy(nodule.image)[None] - LOW) / (HIGH - LOW)
        if chance(random, 0.5):
            air = thickened(air, random.uniform(1.0, 3.0))
        image = primitives.sample(air, (CUBE, CUBE, CUBE), matrix, "bilinear")
        to_cube = np.linalg.inv(matrix)
        where = np.argwhere(nodule.mask).mean(axis=0)
        scale = float(np.abs(np.linalg.det(linear))) ** (1 / 3)
        return image, Ball(to_cube[:3, :3] @ where + to_cube[:3, 3], nodule.diameter_mm / scale)


def load(data: Path) -> CtNodule:
    """Read nodules and chests.

    Raises
    ------
    FileNotFoundError
        If ``data`` lacks ``ct_nodule`` or ``ct_lung``.
    """
    (held_out_chest,) = read_chests(data, held_out=True)
    return CtNodule(
        chests=read_chests(data, held_out=False),
        nodules=read_lidc(data, held_out=False),
        held_out_chest=held_out_chest,
        held_out=read_lidc(data, held_out=True),
        data=data,
    )


def around(ct: LabelledCt, index: NDArray[np.int64], side_mm: float) -> LabelledCt:
    """Cut a cube out of a CT, less what lies beyond its edges."""
    half = np.ceil(side_mm / 2 / np.array(ct.volume.spacing)).astype(int)
    start = np.maximum(0, index - half)
    box = tuple(slice(int(first), int(last)) for first, last in zip(start, index + half + 1, strict=True))
    affine = ct.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    array = ct.volume.array[box]
    return LabelledCt(Volume(array, affine, ct.volume.sources[box[0]]), ct.labels[box])


def mirror(random: Random) -> NDArray[np.float64]:
    """Mirror each axis or not: 1 or -1, ``[3]``."""
    return np.where(random.random(3) < 0.5, -1.0, 1.0)


def thickened(image: Tensor, thickness: float) -> Tensor:
    """Make an image of 1 mm as coarse along its slices as those of ``thickness`` mm."""
    sigma = thickness / 2.355
    reach = int(np.ceil(2.5 * sigma))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float32) ** 2) / (2 * sigma**2))
    padded = torch.nn.functional.pad(image[None], (0, 0, 0, 0, reach, reach), mode="replicate")
    return torch.nn.functional.conv3d(padded, (kernel / kernel.sum()).reshape(1, 1, -1, 1, 1))[0]


def varied(image: Tensor, random: Random) -> Tensor:
    """Change dose, kernel and contrast, and how much air the lungs hold."""
    image = image.clamp(0, 1)
    if chance(random, 0.5):
        image = image - random.uniform(0, 0.12) * torch.sigmoid(25 * (0.3 - image))
    image = image * random.uniform(0.92, 1.08) + random.uniform(-0.03, 0.03)
    return primitives.texture(random, image, noise=0.05).clamp(0, 1)
