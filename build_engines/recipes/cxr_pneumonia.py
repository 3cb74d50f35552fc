"""``cxr-pneumonia``: normal, pneumonia or viral pneumonia on a chest X-ray: MobileNetV2 with shuffle attention.

Data: NIH ChestX-ray14, Shenzhen and Montgomery (NLM), Hannover covid-19-image-repository, COVID-CXNet. The source of an
image says much about its class (``pneumonia`` is NIH's only, ``viral`` never is), so the image is cropped to the lungs,
the sources of a class are drawn equally often, and tone, sharpness and noise are changed strongly.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes import augmentation, cxr_lung, phantom, radiographs, training
from build_engines.recipes.augmentation import Random
from build_engines.recipes.evaluation import accuracies, judge_classes, without_interval
from build_engines.recipes.losses import LOSSES
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.classifier import Classifier
from build_engines.recipes.networks.encoders import MobileNetV2
from build_engines.recipes.package_text import package_texts
from build_engines.recipes.sources import CLASSES, ClassifiedXray, read_picture, rows_of
from engines.inference.preprocessing import Box, bounding_box, crop, fit, percentile_window
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import EngineSet, open_engines
from engines.types import Radiograph
from evaluation.estimate import Estimate

NAME = "cxr-pneumonia"
HELD_OUT_NAME = "cxr-pneumonia-held-out"
"""The same training without two of the sources, for figures on sources that it has never seen; makes no package."""

SOURCES = {
    "normal": {"nih": 0.6, "shen": 0.25, "mont": 0.15},
    "pneumonia": {"nih": 1.0},
    "viral": {"cxnet": 0.5, "hannover": 0.5},
}
"""How often each source of a class is drawn; classes are drawn equally often."""

TOML, CARD = package_texts(NAME)


@dataclass(frozen=True, eq=False)
class Case(ClassifiedXray):
    """One X-ray with the box around its lungs."""

    box: Box


@dataclass(frozen=True, eq=False)
class CxrPneumonia:
    """The recipe; see the module."""

    cases: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 450
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    loss_name: str = "smoothed-cross-entropy"
    images: int = 32

    def network(self) -> Network:
        """Build the untrained network; its encoder can start with the weights of ``cxr-lung``."""
        return Classifier(len(CLASSES), MobileNetV2(cxr_lung.WIDTH))

    def batch(self, random: Random) -> training.Batch:
        """Draw class, then source, then X-ray; change it in geometry, tone and surroundings."""
        drawn = [draw(self.cases, random) for _ in range(self.images)]
        return torch.stack([augment(case, random) for case in drawn]), torch.tensor([case.target for case in drawn])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Judge by ``loss_name``."""
        return LOSSES[self.loss_name](logits, target)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the figures of `accuracies` for the validation and the test rows."""
        figures: dict[str, float] = {}
        for rows, cases in (("validation", self.validation), ("test", self.test)):
            figures |= accuracies(cases, predict(network, cases), rows)
        return figures

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Give the same figures for the test rows from the package as a node runs it."""
        return without_interval(judge_classes(self.test, "test", engines))

    def golden(self) -> NDArray[np.float32]:
        """The synthetic chest, projected, cut to about its lungs."""
        settings = tomllib.loads(self.toml)["input"]
        chest = crop(phantom.radiograph((320, 320)), Box(top=20, left=40, bottom=230, right=280))
        return fit(percentile_window(chest, *settings["percentiles"]), tuple(settings["size"]))[0][None, None]


def load(data: Path) -> CxrPneumonia:
    """Read the X-rays of the column ``split``, and find their lungs with the shipped ``cxr-lung``.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr/manifest.csv``.
    ModelPackageError
        If ``cxr-lung`` has not been trained yet.
    """
    rows = rows_of(data / "cxr" / "manifest.csv")
    cases = read_cases(data / "cxr" / "images", rows)
    split = {name: tuple(c for c, row in zip(cases, rows, strict=True) if row["split"] == name) for name in SPLITS}
    return CxrPneumonia(cases=split["train"], validation=split["val"], test=split["test"])


def load_held_out(data: Path) -> CxrPneumonia:
    """Read the X-rays of the column ``split_by_source``: Hannover and Montgomery are only tested on."""
    rows = rows_of(data / "cxr" / "manifest.csv")
    cases = read_cases(data / "cxr" / "images", rows)
    names = ("train", "val", "external_test")
    split = {n: tuple(c for c, row in zip(cases, rows, strict=True) if row["split_by_source"] == n) for n in names}
    held_out = CxrPneumonia(cases=split["train"], validation=split["val"], test=split["external_test"])
    return replace(held_out, name=HELD_OUT_NAME, card="", steps=300)


SPLITS = ("train", "val", "test")


def read_cases(folder: Path, rows: Sequence[Mapping[str, str]]) -> list[Case]:
    """Read X-rays and find their lungs as serving does; an X-ray in which none are found is kept whole."""
    lungs = {cxr_lung.NAME: load_package(SHIPPED_MODELS / cxr_lung.NAME)}
    margin = tomllib.loads(TOML)["input"]["crop_margin"]
    cases = []
    with open_engines(lungs, RuntimeSettings(threads=2)) as engines:
        for row in rows:
            image = read_picture(folder / row["file"])
            found = engines.run(cxr_lung.NAME, Radiograph(image, None, row["file"])).label_map
            box = bounding_box(found.array, margin) if found else None
            target = CLASSES.index(row["class"])
            cases.append(Case(image, target, row["source"], box or Box(0, 0, *image.shape)))
    return cases


def draw(cases: Sequence[Case], random: Random) -> Case:
    """Draw a class, one of its sources, and one of that source's X-rays; a source that is not there is passed over."""
    target = int(random.integers(len(CLASSES)))
    there = {case.source for case in cases if case.target == target}
    weights = {source: weight for source, weight in SOURCES[CLASSES[target]].items() if source in there}
    chances = np.array(list(weights.values())) / sum(weights.values())
    source = str(random.choice(list(weights), p=chances))
    chosen = [case for case in cases if case.target == target and case.source == source]
    return chosen[random.integers(len(chosen))]


def augment(case: Case, random: Random) -> Tensor:
    """Make one training image: another crop, another detector."""
    settings = tomllib.loads(TOML)["input"]
    image = torch.from_numpy(crop(case.image, move(case.box, case.image.shape, random)) / 255)[None]
    size = tuple(settings["size"])
    matrix = radiographs.placement(image.shape[1:], size, random)
    image, inside = augmentation.sample(torch.cat([image, torch.ones_like(image)]), size, matrix, "bilinear").chunk(2)
    image = radiographs.develop(image, random, noise=0.04)
    image = radiographs.surround(image, random)
    return radiographs.window_again(image, inside > 0.5, settings["percentiles"])


def move(box: Box, shape: tuple[int, ...], random: Random) -> Box:
    """Move each side of a box by a few percent of its size, as another lung outline would."""
    down, across = (random.uniform(-0.06, 0.06, 2) * length for length in (box.bottom - box.top, box.right - box.left))
    return Box(
        top=max(0, round(box.top + down[0])),
        left=max(0, round(box.left + across[0])),
        bottom=min(shape[0], round(box.bottom + down[1])),
        right=min(shape[1], round(box.right + across[1])),
    )


def predict(network: Network, cases: Sequence[Case]) -> NDArray[np.float64]:
    """Classify X-rays as serving does: ``[case, class]``."""
    settings = tomllib.loads(TOML)["input"]
    answers = []
    for case in cases:
        tensor, _ = fit(
            percentile_window(crop(case.image, case.box), *settings["percentiles"]), tuple(settings["size"])
        )
        with torch.no_grad():
            answers.append(network(torch.from_numpy(tensor)[None, None])[0].double().numpy())
    return np.stack(answers)
