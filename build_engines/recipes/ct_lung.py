"""``ct-lung``: left and right lung on a chest CT, with a small 3D U-Net on a 3 mm grid.

Data: five chest CT volumes of LCTSC (The Cancer Imaging Archive, CC BY 3.0) with one mask for both lungs. Four train,
one validates.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes import augmentation, phantom, training
from build_engines.recipes.augmentation import Random, chance
from build_engines.recipes.evaluation import HELD_OUT_CT, LEFT, RIGHT, LabelledCt, judge_cts, read_cts, read_labelled_ct
from build_engines.recipes.networks import Network, UNet3d
from engines.inference.preprocessing import resample_to_grid, window
from engines.serving.engine_set import EngineSet
from engines.types import Volume
from engines.verify import dice

NAME = "ct-lung"
PATCH = (64, 96, 96)
"""Training patch; smaller than the one that serves, so that a step is quick."""

TOML = """\
[identity]
name = "ct-lung"
version = "0.1.2"
uid_root = "1"
licence = "Apache-2.0"
intended_use = "Research use only: outlines the left and the right lung on chest CT. Not for diagnosis."

[input]
tensor = "image"
modality = ["CT"]
body_part = ["CHEST", "THORAX"]
plane = ["axial"]
primary_only = true
minimum_slices = 20
max_gap_mm = 10.0
accepts_partial = true
spacing_mm = [3.0, 3.0, 3.0]
window = [-1000.0, 400.0]
patch = [128, 176, 176]
further_patches = [[112, 112, 112], [128, 144, 144], [160, 176, 176]]
overlap = 0.25

[segmentation]
tensor = "probabilities"
keep_largest = true

[[segmentation.segments]]
label = "Left lung"
category = { value = "123037004", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "39607008", scheme = "SCT", meaning = "Lung" }
laterality = { value = "7771000", scheme = "SCT", meaning = "Left" }
colour = [230, 120, 90]
measurements = ["volume", "mean_intensity", "minimum_intensity", "maximum_intensity", "intensity_deviation"]

[[segmentation.segments]]
label = "Right lung"
category = { value = "123037004", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "39607008", scheme = "SCT", meaning = "Lung" }
laterality = { value = "24028007", scheme = "SCT", meaning = "Right" }
colour = [90, 160, 230]
measurements = ["volume", "mean_intensity", "minimum_intensity", "maximum_intensity", "intensity_deviation"]

[training.ranges]
p5 = { least = -1060.0, largest = -739.0 }
p95 = { least = -53.2, largest = 285.0 }
median = { least = -250.0, largest = 103.0 }
cross_section_cm2 = { least = 341.0, largest = 2450.0 }
extent_mm = { least = 141.0, largest = 1110.0 }
slice_step_mm = { least = 0.0, largest = 6.0 }

[verify]
max_probability_error = 0.02
min_dice = 0.995

[verify.bf16]
max_probability_error = 0.2
min_dice = 0.998

[verify.int8]
max_probability_error = 0.45
min_dice = 0.998
"""
NODULE, GAS, SOFT = (0.4, 0.75), (0.0, 0.1), 0.55
"""Values of what is drawn into training patches, and the least value of soft tissue, in the window 0–1."""

CARD = """\
# ct-lung

**Research use only.** Not a medical device; not for diagnosis.

- **What it does**: outlines the left and the right lung on a chest CT series (two segments). Left is
  the patient's.
- **Network**: a small 3D U-Net (2.4 million weights) on a 3 mm grid, patches of
  128 × 176 × 176 (384 × 528 × 528 mm, so that a chest is one patch), or smaller and larger ones.
- **Training data**: 4 chest CT with a lung mask each from LCTSC (The Cancer Imaging Archive, Lung CT Segmentation
  Challenge 2017, Yang et al., CC BY 3.0), at 256² and with HU in steps of 4; the mask was split into left and right by
  its two components. Strong augmentation: turn, size, dose, kernel, field of view, air in the lungs, nodules, bowel
  gas.
- **Training**: from scratch in four runs, each started with the weights of the one before (200, 320, 260 and 130 steps
  of two patches); air and bowel gas were added to the augmentation on the way.
- **Split**: LCTSC-Test-S1-101, -102, -104 and -201 train; -202 validates. It was looked at during development, so its
  figure is a validation figure, not a test.

## Figures

Measured on the source's own grid through the whole serving path (OpenVINO, FP32).

{figures}

## Precisions

The same figures with other engines on the CPU, and how far each is from FP32 on the golden input:

| engine | left | right | other source | Dice on the golden input | largest probability error there |
|---|---|---|---|---|---|
| FP32 | 0.9748 | 0.9752 | 0.9666 | 1.0000 | 0.0005 |
| bf16 | 0.9750 | 0.9752 | 0.9672 | 0.9997 | 0.090 |
| INT8 | 0.9749 | 0.9751 | 0.9668 | 0.9995 | 0.130 |

No change is larger than 0.0006, which is less than what shifting the same CT by some voxels within the patch makes
(0.963–0.967 on the other source). Probabilities are off at single voxels of the lungs' border, so `[verify.bf16]`
and `[verify.int8]` allow a larger probability error (half as much again as was seen, or more, for other CPUs round
otherwise) and ask for a higher Dice instead: 0.998. Computed by ONNX Runtime, not on a GPU: FP16 is 0.002 off and keeps
the limits of FP32; INT8 in the signed steps of TensorRT, which are twice as coarse, is 0.296 off, Dice 0.9990.

`model.int8.onnx`: NNCF 3.4.0 after training, 8-bit weights for each channel and activations for each tensor, calibrated
with the 4 training CT (7 patches). With NNCF's bias correction the largest probability error was 0.27, the Dice on the
golden input 0.9991, and the other source differed from FP32 by 0.0024 of Dice rather than 0.0011; ONNX Runtime's own
quantisation gave 0.33, 0.9988 and up to 0.0046.

Patches: the smallest of 112 × 112 × 112, 128 × 144 × 144, 128 × 176 × 176 and 160 × 176 × 176 that holds the chest. On
the NLST series (143 slices, 276 mm wide) the smallest gives the labels of the original patch with a Dice of 0.999, in a
third of the time.

## Limits

- **Five patients support a small model, not strong claims.** One challenge, adults with lung cancer.
- The spacing of the training data was assumed (1.953 × 1.953 × 3.0 mm).
- Large consolidations, effusions, pneumonectomies, children, contrast-filled oesophagus and stomach close to the
  diaphragm were not trained on. Airways outside of the lungs are not part of them; vessels at the hilum partly are.
- The two annotated sets disagree on how much of vessels and hilum belongs to the lung.

## Licence

Weights: Apache-2.0. Data: LCTSC, CC BY 3.0; Chest Imaging Platform test data, BSD-like (tested only).
"""


@dataclass(frozen=True, eq=False)
class Case:
    """One CT on the network's grid: both ``[1, slice, row, column]``; ``image`` is 0 at the low end of the window."""

    image: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class CtLung:
    """The recipe; see the module."""

    cases: tuple[Case, ...]
    validation: tuple[Case, ...]
    sources: Mapping[str, LabelledCt]
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 900
    learning_rate: float = 3e-3
    images: int = 2
    patch: tuple[int, int, int] = PATCH

    def network(self) -> Network:
        """Build the untrained network."""
        return UNet3d(classes=3)

    def batch(self, random: Random) -> training.Batch:
        """Draw patches of random cases, turned, scaled, noisy and cut like the CT of another scanner."""
        drawn = [augment(self.cases[random.integers(len(self.cases))], self.patch, random) for _ in range(self.images)]
        return torch.stack([image for image, _ in drawn]), torch.stack([labels for _, labels in drawn])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy and Dice loss."""
        return training.segmentation_loss(logits, target)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the Dice of both lungs on the held-out case, on the network's grid."""
        figures = {}
        for case in self.validation:
            labels = predict(network, case.image)
            for label, name in ((LEFT, "left"), (RIGHT, "right")):
                truth = case.labels[0].numpy() == label
                figures[f"Dice, {name} lung, held-out case, 3 mm grid"] = dice(truth, labels == label)
        return figures

    def measure(self, engines: EngineSet) -> Mapping[str, float]:
        """Give the Dice on the source's own grid, of CT that were not trained on."""
        return judge_cts(self.sources, engines)

    def golden(self) -> NDArray[np.float32]:
        """A patch of the synthetic chest."""
        settings = tomllib.loads(self.toml)["input"]
        chest = phantom.chest(tuple(settings["patch"]), tuple(settings["spacing_mm"]))
        return window(chest, *settings["window"])[None, None]


def load(data: Path) -> CtLung:
    """Read the five volumes.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_lung/*_ct.nii.gz``.
    """
    files = sorted((data / "ct_lung").glob("*_ct.nii.gz"))
    if not files:
        raise FileNotFoundError(f"no ct_lung/*_ct.nii.gz in {data}: name the folder of the training data with --data")
    training_files = [file for file in files if not file.name.startswith(HELD_OUT_CT)]
    judged = read_cts(data)
    return CtLung(
        cases=tuple(to_grid(read_labelled_ct(file)) for file in training_files),
        validation=tuple(to_grid(ct) for ct in judged.values() if not ct.both),
        sources=judged,
    )


def to_grid(source: LabelledCt) -> Case:
    """Bring a CT and its labels to the network's grid."""
    settings = tomllib.loads(TOML)["input"]
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
    """Make one training patch: another size and position of the patient, another dose, kernel and field of view."""
    linear = augmentation.rotation(random.normal(0, (0.12, 0.08, 0.08)))
    linear = linear @ np.diag(random.uniform(0.8, 1.45) * random.uniform(0.92, 1.08, 3))
    full = np.array(case.image.shape[1:])
    matrix = augmentation.about_centre(linear, random.uniform((0.2, 0.3, 0.25), (0.8, 0.65, 0.75)) * full, shape)
    image = augmentation.sample(case.image, shape, matrix, "bilinear")
    labels = augmentation.sample(case.labels.float(), shape, matrix, "nearest")
    lungs = (labels > 0).float()
    if chance(random, 0.8):
        image = aerate(image, lungs, random)
    if chance(random, 0.5):
        image = add_balls(image, lungs, NODULE, random)
    if chance(random, 0.5):
        image = add_balls(image, ((image > SOFT) & (lungs == 0)).float(), GAS, random)
    image = image * random.uniform(0.94, 1.06) + random.uniform(-0.02, 0.02)
    image = augmentation.texture(random, image, noise=0.06)
    if chance(random, 0.4):
        seen = field_of_view(shape, random)
        image, labels = image * seen, labels * seen
    return image.clamp(0, 1), labels[0].long()


def aerate(image: Tensor, lungs: Tensor, random: Random) -> Tensor:
    """Fill the lungs with more or less air, vessels left as they are.

    The training CT breathe shallowly (median -710 to -790 HU); a deep breath is near -880 HU, emphysema below -950 HU.
    """
    parenchyma = lungs * torch.sigmoid(25 * (0.35 - image))
    if chance(random, 0.3):
        return image + random.uniform(0, 0.15) * parenchyma
    uneven = torch.sigmoid(2 * augmentation.smooth_noise(random, tuple(image.shape[1:]), 4))
    return image * (1 - random.uniform(0, 1) * (0.6 + 0.4 * uneven) * parenchyma)


def add_balls(image: Tensor, where: Tensor, values: tuple[float, float], random: Random) -> Tensor:
    """Put balls of one value into places, the parts of them that are in these places.

    Soft tissue in the lungs stays lung: nodules, vessels and consolidations belong to it. Gas outside of the lungs
    stays background: it is in stomach and bowel, often just under the diaphragm.

    Parameters
    ----------
    image
        ``[1, slice, row, column]``.
    where
        1 where balls may be, else 0; of the same shape.
    values
        Lowest and highest value of a ball.
    random
        Decides number, places, radii and values.
    """
    inside = torch.nonzero(where[0])
    if not len(inside):
        return image
    axes = torch.meshgrid(*(torch.arange(length, dtype=torch.float32) for length in image.shape[1:]), indexing="ij")
    for _ in range(int(random.integers(1, 5))):
        centre = inside[random.integers(len(inside))]
        distance = sum((axis - float(place)) ** 2 for axis, place in zip(axes, centre, strict=True))
        ball = torch.sigmoid(2 * (random.uniform(1.0, 6.0) - torch.sqrt(torch.as_tensor(distance)))) * where[0]
        image = image + ball * (random.uniform(*values) - image)
    return image


def field_of_view(shape: tuple[int, int, int], random: Random) -> Tensor:
    """Draw a round reconstruction field, 1 inside and 0 outside, the same on every slice: ``[1, 1, row, column]``."""
    rows, columns = (torch.linspace(-1, 1, length) for length in shape[1:])
    centre = random.uniform(-0.25, 0.25, 2)
    distance = torch.hypot(rows[:, None] - centre[0], columns[None, :] - centre[1])
    return (distance < random.uniform(0.75, 1.2)).float()[None, None]


def predict(network: Network, image: Tensor) -> NDArray[np.int64]:
    """Label a whole case at once, padded with air to what the network can halve."""
    padding = [part for length in reversed(image.shape[1:]) for part in (0, -length % 16)]
    padded = nn.functional.pad(image.clamp(0, 1), padding)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        labels = network.logits(padded[None])[0].argmax(dim=0)
    found: NDArray[np.int64] = labels[tuple(slice(length) for length in image.shape[1:])].numpy()
    return found
