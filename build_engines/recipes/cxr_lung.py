"""``cxr-lung``: the lung fields on a frontal chest X-ray: U-Net decoder on MobileNetV2 with shuffle attention.

Data: the Montgomery County X-ray set (U.S. National Library of Medicine) with the masks that came with it. The Shenzhen
masks of the same folder are under a licence that does not allow training what is shipped; they only test.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes import augmentation, phantom, radiographs, training
from build_engines.recipes.augmentation import Random, chance
from build_engines.recipes.evaluation import OutlinedXray, judge_outlines, read_masks, read_outlined
from build_engines.recipes.networks import Network, UNet
from engines.inference.postprocessing import keep_largest_component, labels_on_radiograph
from engines.inference.preprocessing import Array, fit, percentile_window
from engines.serving.engine_set import EngineSet
from engines.verify import dice

NAME = "cxr-lung"
WIDTH = 0.5
"""Width multiplier of the encoder, shared with ``cxr-pneumonia`` so that its weights can start from here."""

TOML = """\
[identity]
name = "cxr-lung"
version = "0.1.0"
uid_root = "2"
licence = "Apache-2.0"
intended_use = "Research use only: outlines the lung fields on frontal chest X-rays. Not for diagnosis."

[input]
tensor = "image"
modality = ["CR", "DX"]
body_part = ["CHEST", "THORAX"]
view = ["PA", "AP"]
primary_only = true
presentation = ["FOR PRESENTATION"]
size = [256, 256]
percentiles = [1.0, 99.0]

[segmentation]
tensor = "probabilities"
keep_largest = false

[[segmentation.segments]]
label = "Lung"
category = { value = "123037004", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "39607008", scheme = "SCT", meaning = "Lung" }
colour = [90, 160, 230]
measurements = []

[training.ranges]
median = { least = 0.223, largest = 0.902 }
deviation = { least = 0.187, largest = 0.557 }
middle = { least = -0.0241, largest = 0.415 }

[verify]
max_probability_error = 0.02
min_dice = 0.995

[verify.bf16]
max_probability_error = 0.25
min_dice = 0.99
"""

CARD = """\
# cxr-lung

**Research use only.** Not a medical device; not for diagnosis.

- **What it does**: outlines the lung fields (one segment, both lungs) on a frontal chest X-ray.
- **Network**: U-Net decoder on a MobileNetV2 encoder (width 0.5) with shuffle attention (SA-Net), 256 × 256.
- **Training data**: 93 X-rays with masks of the Montgomery County X-ray set, U.S. National Library of Medicine (Jaeger
  et al., Two public chest X-ray datasets for computer-aided screening of pulmonary diseases, 2014). Trained from
  scratch with strong augmentation (geometry, tone, noise, opacities, markers, cables, collimation).
- **Split**: by the manifest of the data set: 93 train, 24 validation, 21 test.
- **Shenzhen** X-rays (NLM) with the masks of Stirenko et al. (CC BY-NC-SA 4.0) were only used to test, never to train.

## Figures

Measured on the source images through the whole serving path (OpenVINO, FP32).

{figures}

## Precisions

| engine | Montgomery validation | Montgomery test | Shenzhen | Dice, golden input | probability error there |
|---|---|---|---|---|---|
| FP32 | 0.9679 | 0.9739 | 0.9515 | 0.9999 | 0.0005 |
| bf16 | 0.9678 | 0.9739 | 0.9516 | 0.9968 | 0.130 |

Mean Dice. bf16 changes none by more than 0.0001, and no worst case by more than 0.0007; pixels of the border move, so
`[verify.bf16]` allows a probability error of 0.25 and a Dice of 0.99. FP16 (computed by ONNX Runtime, not on a GPU) is
0.002 off. There is no INT8 network: calibrated with the 93 training images it had a Dice of 0.93 on
the golden input.

## Limits

- PA images of adults from one programme, many of them with tuberculosis, were the training data. Bedside AP images,
  children, lateral views, large effusions and pneumonectomies are outside of what it was trained on.
- The masks follow the visible lung field: lung behind heart and diaphragm is not part of it.
- It does not know whether an image is a chest at all.

## Licence

Weights: Apache-2.0. Data: Montgomery County X-ray set, NLM; see <https://openi.nlm.nih.gov/faq>.
"""


@dataclass(frozen=True, eq=False)
class CxrLung:
    """The recipe; see the module."""

    cases: tuple[OutlinedXray, ...]
    validation: Mapping[str, tuple[OutlinedXray, ...]]
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 900
    learning_rate: float = 3e-3
    images: int = 8

    def network(self) -> Network:
        """Build the untrained network."""
        return UNet(classes=2, width=WIDTH)

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
        """Cross-entropy and Dice loss."""
        return training.segmentation_loss(logits, target)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the mean Dice of each set on the pixels of the source images."""
        return {
            f"Dice, {name}": float(np.mean([dice(case.mask, segment(network, case.image)) for case in cases]))
            for name, cases in self.validation.items()
        }

    def measure(self, engines: EngineSet) -> Mapping[str, float]:
        """Give the same figures from the package as a node runs it."""
        return judge_outlines(self.validation, engines)

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
    image, mask, inside = augmentation.sample(layers, size, matrix, "bilinear").chunk(3)
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
    cloud = augmentation.smooth_noise(random, tuple(image.shape[1:]), int(random.integers(4, 12)))
    strength = (
        random.uniform(0.1, 0.7) * torch.sigmoid(3 * (cloud - random.uniform(0, 1))) * augmentation.blur(mask, 2.0)
    )
    return image + strength * (random.uniform(0.6, 0.95) - image).clamp(min=0)


def segment(network: Network, image: Array) -> NDArray[np.bool_]:
    """Find the lungs as serving does."""
    settings = tomllib.loads(TOML)
    tensor, placed = fit(percentile_window(image, *settings["input"]["percentiles"]), tuple(settings["input"]["size"]))
    with torch.no_grad():
        probabilities = network(torch.from_numpy(tensor)[None, None])[0].numpy()
    labels = labels_on_radiograph(probabilities, placed)
    return (keep_largest_component(labels) if settings["segmentation"]["keep_largest"] else labels) > 0
