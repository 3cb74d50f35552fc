"""``cxr-pneumonia``: normal, pneumonia or viral pneumonia on a chest X-ray: MobileNetV2 with shuffle attention.

Data: NIH ChestX-ray14, Shenzhen and Montgomery (NLM), Hannover covid-19-image-repository, COVID-CXNet. The source of an
image says much about its class (``pneumonia`` is NIH's only, ``viral`` never is), so the image is cropped to the lungs,
half of each batch is NIH's, and tone, sharpness, noise and all around the lungs are changed strongly.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes import training
from build_engines.recipes.augmentation.primitives import Random
from build_engines.recipes.augmentation.xrays import ALL, Changes, Shown, change, plain, show
from build_engines.recipes.data import phantom
from build_engines.recipes.data.chest_xrays import LUNGS, VIEWS, ChestXray, read_chest_xrays
from build_engines.recipes.data.sources import CLASSES
from build_engines.recipes.figures.xrays import answered, figures
from build_engines.recipes.losses import LOSSES
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.classifier import Classifier
from build_engines.recipes.networks.encoders import MobileNetV2
from build_engines.recipes.networks.multi_task import MultiTask
from build_engines.recipes.packaging.ensemble import Ensemble
from build_engines.recipes.packaging.temperature import cool, even, temperature
from build_engines.recipes.packaging.texts import package_texts
from build_engines.recipes.packaging.unfold import unfold
from engines.inference.preprocessing import Box, crop, fit, percentile_window
from engines.packages.package import SHIPPED_MODELS
from engines.serving.engine_set import EngineSet
from engines.types import Radiograph
from evaluation.estimate import Estimate

NAME = "cxr-pneumonia"
WIDTH = 0.5
"""Width multiplier of the encoder: that of ``cxr-lung``, whose weights it starts with."""

SEEDS = (1, 2, 3)
"""Of the networks of the package: as many as ``network.files`` in its ``model.toml`` names."""

SHARES = {
    "normal": {"nih": 0.25, "shen": 0.10, "mont": 0.06},
    "pneumonia": {"nih": 0.25},
    "viral": {"cxnet": 0.20, "hannover": 0.14},
}
"""Of a batch, by class and source; where a source is not there, the others of its class have its share."""

TOML, CARD = package_texts(NAME)


@dataclass(frozen=True, eq=False)
class CxrPneumonia:
    """The recipe; see the module. What follows ``steps`` are switches, which the ablation compares.

    Attributes
    ----------
    view
        What of an X-ray the network is shown; see `VIEWS`.
    changes
        Which augmentation.
    balanced
        Whether classes and sources are drawn by `SHARES`; otherwise every X-ray equally often.
    attention
        Whether with shuffle attention.
    transfer
        Whether the encoder starts with the weights of ``cxr-lung``.
    outlines
        Whether the network learns to outline the lungs too (`MultiTask`), and answers with both.
    """

    cases: tuple[ChestXray, ...]
    validation: tuple[ChestXray, ...]
    test: tuple[ChestXray, ...]
    name: str = NAME
    toml: str = TOML
    card: str = CARD
    steps: int = 700
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    images: int = 32
    loss_name: str = "smoothed-cross-entropy"
    view: str = "lung crop"
    changes: Changes = ALL
    balanced: bool = True
    attention: bool = True
    transfer: bool = True
    outlines: bool = False
    dropout: float = 0.2

    @cached_property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the tensor."""
        rows, columns = tomllib.loads(self.toml)["input"]["size"]
        return rows, columns

    @cached_property
    def percentiles(self) -> tuple[float, float]:
        """Of the windowed image."""
        low, high = tomllib.loads(self.toml)["input"]["percentiles"]
        return low, high

    @cached_property
    def chances(self) -> NDArray[np.float64]:
        """How often each X-ray is drawn."""
        if not self.balanced:
            return np.full(len(self.cases), 1 / len(self.cases))
        classes = np.array([case.target for case in self.cases])
        sources = np.array([case.source for case in self.cases])
        chances = np.zeros(len(self.cases))
        for target, shares in enumerate(SHARES.values()):
            there = {name: share for name, share in shares.items() if ((classes == target) & (sources == name)).any()}
            for name, share in there.items():
                group = (classes == target) & (sources == name)
                chances[group] = share / sum(there.values()) * sum(shares.values()) / group.sum()
        return chances / chances.sum()

    def network(self) -> Network:
        """Build the network; the encoder starts with the weights of ``cxr-lung``, the rest is untrained."""
        encoder = MobileNetV2(WIDTH, self.attention)
        if self.transfer:
            few = np.random.default_rng(1).choice(len(self.cases), 32)
            images = torch.stack([torch.from_numpy(self.tensor(self.cases[index])) for index in few])
            unfold(encoder, SHIPPED_MODELS / LUNGS / "model.onnx", images, "encoder.")
        kind = MultiTask if self.outlines else Classifier
        return kind(len(CLASSES), encoder, dropout=self.dropout)

    def batch(self, random: Random) -> training.Batch:
        """Draw X-rays and change them; the target is the classes, or lung masks and classes."""
        drawn = [self.cases[index] for index in random.choice(len(self.cases), self.images, p=self.chances)]
        shown = [self.training_image(case, random) for case in drawn]
        images, classes = torch.stack([image for image, _ in shown]), torch.tensor([case.target for case in drawn])
        return images, (torch.stack([mask for _, mask in shown]), classes) if self.outlines else classes

    def training_image(self, case: ChestXray, random: Random) -> tuple[Tensor, Tensor]:
        """Make one training image ``[1, row, column]`` and its lung mask ``[row, column]``."""

        def shown(xray: ChestXray) -> Shown:
            return show(xray, VIEWS[self.view], self.size, random if self.changes.geometry else None)

        other = self.cases[random.integers(len(self.cases))]
        return change(shown(case), lambda: shown(other), self.changes, self.percentiles, random)

    def tensor(self, case: ChestXray) -> NDArray[np.float32]:
        """Make the tensor that serving makes: ``[1, row, column]``."""
        return plain(VIEWS[self.view](case, case.box), self.size, self.percentiles)

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """Judge the classes by ``loss_name``; outlines by Dice and cross-entropy, which count half."""
        if not self.outlines:
            return LOSSES[self.loss_name](outputs, target)
        (outlines, classes), (masks, labels) = outputs, target
        return LOSSES[self.loss_name](classes, labels) + 0.5 * LOSSES["dice+cross-entropy"](outlines, masks)

    def validate(self, network: Network) -> Mapping[str, float]:
        """Give the figures to choose by, for the validation rows."""
        everything = np.arange(len(self.validation))
        answers = answered(self.validation, self.predict(network, self.validation))
        figures = {name: answers.figures(everything)[name] for name in ("accuracy", "auc", "ece")}
        nih = np.flatnonzero([case.source == "nih" for case in self.validation])
        return {**figures, "nih.auc_pneumonia_vs_normal": answers.figures(nih)["auc_pneumonia_vs_normal"]}

    def predict(self, network: Network, cases: Sequence[ChestXray]) -> NDArray[np.float64]:
        """Classify X-rays as serving does: ``[case, class]``."""
        return self.logits(network, cases).softmax(dim=2).mean(dim=0).double().numpy()

    def logits(self, network: Network, cases: Sequence[ChestXray]) -> Tensor:
        """Give ``[view, case, class]`` of the X-rays and, where serving takes them too, their mirror images."""
        mirrored = [False, True] if tomllib.loads(self.toml)["input"].get("flips") else [False]
        answers: list[list[Tensor]] = [[] for _ in mirrored]
        with torch.no_grad():
            for case in cases:
                image = torch.from_numpy(self.tensor(case))[None]
                for mirror, found in zip(mirrored, answers, strict=True):
                    outputs = network.logits(image.flip(3) if mirror else image)
                    found.append(outputs[1] if isinstance(outputs, tuple) else outputs)
        return torch.stack([torch.cat(found) for found in answers])

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Judge the package as a node runs it on the test rows, or those of the sources that are held out.

        A node hides nothing of an image, so a network that is shown the inside or the outside of the lungs alone is
        given images in which the rest is black already.
        """
        cropped = "crop_to" in tomllib.loads(self.toml)["input"]
        found = []
        for case in self.test:
            image = VIEWS["whole" if cropped else self.view](case, case.box)
            answer = engines.run(self.name, Radiograph(image, None, case.name)).classification
            assert answer is not None
            found.append([entry.probability for entry in answer.classes])
        return figures(self.test, np.array(found))

    def golden(self) -> NDArray[np.float32]:
        """The synthetic chest, projected, cut to about its lungs."""
        chest = crop(phantom.radiograph((320, 320)), Box(top=20, left=40, bottom=230, right=280))
        return fit(percentile_window(chest, *self.percentiles), self.size)[0][None, None]


def load(data: Path) -> CxrPneumonia:
    """Read the X-rays of the column ``split``.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr/manifest.csv``.
    ModelPackageError
        If ``cxr-lung`` has not been trained yet.
    """
    xrays = read_chest_xrays(data)
    train, validation, test = (tuple(x for x in xrays if x.split == name) for name in ("train", "val", "test"))
    return CxrPneumonia(cases=train, validation=validation, test=test)


def load_held_out(data: Path) -> CxrPneumonia:
    """Read the X-rays of the column ``split_by_source``: Hannover and Montgomery are only tested on."""
    xrays, names = read_chest_xrays(data), ("train", "val", "external_test")
    train, validation, test = (tuple(x for x in xrays if x.split_by_source == name) for name in names)
    return CxrPneumonia(cases=train, validation=validation, test=test)


def load_ensemble(data: Path) -> Ensemble:
    """Read the same for the networks of the package, which differ by the seed alone; see `load`."""
    recipe = load(data)

    def calibrate(networks: Sequence[Network]) -> None:
        classifiers = [network for network in networks if isinstance(network, Classifier)]
        even(classifiers, [sum(shares.values()) for shares in SHARES.values()])
        answers = torch.cat([recipe.logits(network, recipe.validation) for network in networks])
        targets = np.array([case.target for case in recipe.validation])
        cool(classifiers, temperature(answers, targets))

    members = {seed: replace(recipe, name=f"{NAME}-{seed}") for seed in SEEDS}
    return Ensemble(recipe, members, calibrate)
