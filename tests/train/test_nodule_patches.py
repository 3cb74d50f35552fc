"""Nodule patches: that what is drawn is what was labelled, and that figures are those of a node."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")

from torch import Tensor  # noqa: E402

from build_engines.recipes import training  # noqa: E402
from build_engines.recipes.data.nodules import NodulePatch  # noqa: E402
from build_engines.recipes.ladder import nodule_outlines, nodule_patches  # noqa: E402
from build_engines.recipes.ladder.nodule_outlines import NoduleOutline, centred  # noqa: E402
from build_engines.recipes.ladder.nodule_patches import (  # noqa: E402
    ROWS,
    SIZE,
    NodulePatches,
)
from build_engines.recipes.ladder.unpackaged import compiled  # noqa: E402
from build_engines.recipes.networks.blocks import Network  # noqa: E402
from build_engines.recipes.networks.patch_classifier import SmallCnn  # noqa: E402
from build_engines.recipes.packaging.export import export  # noqa: E402
from engines.packages.package import load_package  # noqa: E402
from engines.runtimes.base import RuntimeSettings  # noqa: E402
from engines.serving.engine_set import open_engines  # noqa: E402

OUTPUT = (nodule_patches.OUTPUT,)


def discs(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Noise, and in every other patch a bright disc in the middle."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rows, columns = np.ogrid[:50, :50]
    disc = np.hypot(rows - 24.5, columns - 24.5) < 6
    return (random.uniform(0, 0.3, (count, 50, 50)) + 0.5 * disc * labels[:, None, None]).astype(np.float32), labels


def ball(name: str, centre: tuple[float, float, float], radius: float) -> NodulePatch:
    """A ball of soft tissue in air, out of the middle, so that a wrong side shows."""
    mask = (
        np.sqrt(sum((axis - place) ** 2 for axis, place in zip(np.ogrid[:51, :51, :51], centre, strict=True))) < radius
    )
    return NodulePatch(name, np.where(mask, 40, -850).astype(np.float32), mask)


class Threshold(Network):
    """Says nodule where the window is above its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            self.layer.weight[:] = torch.tensor([-40.0, 40.0]).reshape(2, 1, 1, 1, 1)
            self.layer.bias[:] = torch.tensor([20.0, -20.0])

    def logits(self, image: Tensor) -> Tensor:
        """Map ``[batch, 1, slice, row, column]`` to ``[batch, 2, slice, row, column]``."""
        logits: Tensor = self.layer(image)
        return logits


def test_a_classifier_of_patches_learns_to_tell_discs_from_noise() -> None:
    recipe = NodulePatches("discs", lambda: SmallCnn(2, (8, 16, 16, 16)), *discs(60, 1), drawn=16)
    network = training.train(recipe, 40, 1, None, lambda _: None, lambda _: None)
    images, labels = discs(40, 2)
    engine = compiled(network, np.zeros((1, 1, SIZE, SIZE), np.float32), OUTPUT)
    figures = nodule_patches.figures(nodule_patches.predict(nodule_patches.by_engine(engine), images), labels)
    assert figures["auc_nodule"].value > 0.95
    assert figures["auc_nodule"].low <= figures["auc_nodule"].value <= figures["auc_nodule"].high


def test_a_batch_has_as_many_nodules_as_others() -> None:
    images, labels = discs(30, 1)
    few = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:2]])
    recipe = NodulePatches("few", lambda: SmallCnn(2), images[few], labels[few], drawn=16)
    drawn, target = recipe.batch(np.random.default_rng(1))
    assert drawn.shape == (16, 1, SIZE, SIZE)
    assert target.sum() == 8
    bright = drawn[:, 0, 20:28, 20:28].mean(dim=(1, 2)) > 0.4
    assert torch.equal(bright, target == 1)


def test_a_prediction_does_not_depend_on_how_the_patch_lies() -> None:
    random = np.random.default_rng(1)
    weights = random.uniform(0, 1, (SIZE, SIZE)).astype(np.float32)

    def classify(images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Looks at each place in its own way, as no trained network does so strongly."""
        found = (images[:, 0] * weights).mean(axis=(1, 2))
        return np.stack([1 - found, found], axis=1)

    images = random.uniform(0, 1, (2, 50, 50)).astype(np.float32)
    turned = np.ascontiguousarray(np.rot90(images, axes=(1, 2))[:, :, ::-1])
    assert np.allclose(nodule_patches.predict(classify, images), nodule_patches.predict(classify, turned), atol=1e-6)
    assert not np.allclose(classify(images[:, None, 1:-1, 1:-1]), classify(turned[:, None, 1:-1, 1:-1]), atol=1e-4)


def test_a_compiled_network_answers_as_the_trained_one_and_its_size_is_counted() -> None:
    network = SmallCnn(2, (8, 16, 16, 16)).eval()
    image = np.random.default_rng(1).uniform(0, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    engine = compiled(network, image, OUTPUT)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    assert np.abs(engine.infer(image)[nodule_patches.OUTPUT] - expected).max() < 0.005
    convolutions = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))
    assert convolutions < engine.parameters <= sum(each.numel() for each in network.parameters())
    assert engine.operations > convolutions


def test_image_and_mask_are_changed_alike() -> None:
    patch, random = ball("1_1", (25, 25, 25), 8), np.random.default_rng(1)
    for _ in range(10):
        image, mask = nodule_outlines.augment(patch, 48, random)
        inside = mask > 0
        assert inside.sum() > 200
        assert image[0][inside].mean() > image[0][~inside].mean() + 0.4


def test_an_outline_is_measured_through_its_package_on_the_side_where_it_is(tmp_path: Path) -> None:
    patches = (ball("1_1", (14, 20, 33), 7), ball("2_1", (25, 30, 12), 3))
    recipe = NoduleOutline("threshold", Threshold, tuple(map(centred, patches)), tuple(map(centred, patches)))
    export(recipe, recipe.network(), tmp_path / recipe.name)
    package = load_package(tmp_path / recipe.name)
    with open_engines({recipe.name: package}, RuntimeSettings(threads=1)) as engines:
        figures = recipe.measure(engines)
    assert figures["dice"].value == pytest.approx(1.0)
    assert figures["volume_mae_ml"].value == pytest.approx(0.0)
    assert figures["dice_below_8_mm"].value == pytest.approx(1.0)
    assert recipe.validate(recipe.network())["Dice, all"] == pytest.approx(1.0)


def test_small_and_large_nodules_are_judged_apart(tmp_path: Path) -> None:
    small = ball("1_1", (25, 25, 25), 3)
    dim = NodulePatch(small.name, np.where(small.mask, -600, -850).astype(np.float32), small.mask)
    patches = (dim, ball("2_1", (25, 25, 25), 8))
    recipe = NoduleOutline("threshold", Threshold, tuple(map(centred, patches)), tuple(map(centred, patches)))
    export(recipe, recipe.network(), tmp_path / recipe.name)
    with open_engines({recipe.name: load_package(tmp_path / recipe.name)}, RuntimeSettings(threads=1)) as engines:
        figures = recipe.measure(engines)
    assert figures["dice_below_8_mm"].value == 0
    assert figures["dice_from_8_mm"].value == pytest.approx(1.0)
    assert figures["dice"].value == pytest.approx(0.5)


def test_every_row_without_its_data_names_what_to_do(tmp_path: Path) -> None:
    for row in ROWS.values():
        with pytest.raises(FileNotFoundError, match="--data"):
            row.load(tmp_path) if row.load else row.run and row.run(tmp_path, 1)
