"""Every recipe learns on a tiny synthetic data set, and what it exports is a model package."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")
onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs the extra 'train' (onnxruntime)")

from build_engines.recipes import ct_lung, cxr_lung, cxr_pneumonia, training  # noqa: E402
from build_engines.recipes.__main__ import RECIPES  # noqa: E402
from build_engines.recipes.data import phantom  # noqa: E402
from build_engines.recipes.data.chest_xrays import ChestXray  # noqa: E402
from build_engines.recipes.data.sources import OutlinedXray  # noqa: E402
from build_engines.recipes.ladder.ct_lungs import Grid, text_of  # noqa: E402
from build_engines.recipes.networks.blocks import Network, ShuffleAttention  # noqa: E402
from build_engines.recipes.networks.unet import UNet3d  # noqa: E402
from build_engines.recipes.packaging.export import export  # noqa: E402
from engines.inference.preprocessing import Box  # noqa: E402
from engines.packages.package import load_package  # noqa: E402

STEPS = 12


def tiny_ct() -> training.Recipe:
    hounsfield = phantom.chest((32, 48, 48), (9.0, 8.0, 8.0))
    lungs = hounsfield < -700
    lungs[:, :4], lungs[:, -4:], lungs[..., :4], lungs[..., -4:] = False, False, False, False
    labels = np.where(lungs, np.where(np.arange(48) > 24, ct_lung.LEFT, ct_lung.RIGHT), 0)
    case = ct_lung.Case(torch.from_numpy((hounsfield + 1000) / 1400)[None], torch.from_numpy(labels)[None])
    small = text_of(ct_lung.NAME, Grid((9.0, 8.0, 8.0), serving=(32, 48, 48), training=(32, 32, 32)))
    build = partial(UNet3d, 3, (8, 16, 24))
    return ct_lung.CtLung(
        (case,), (case,), {}, toml=small, patch=(32, 32, 32), steps=STEPS, learning_rate=1e-2, build=build
    )


def tiny_radiographs() -> training.Recipe:
    image = 255 * phantom.radiograph((96, 96))
    mask = np.zeros((96, 96), bool)
    mask[16:60, 12:40] = mask[16:60, 56:84] = True
    case = OutlinedXray(image, mask)
    small = cxr_lung.TOML.replace("[256, 256]", "[64, 64]")
    return cxr_lung.CxrLung((case,), {"itself": (case,)}, toml=small, images=4, steps=STEPS, learning_rate=1e-2)


def tiny_classes() -> training.Recipe:
    random = np.random.default_rng(1)
    lungs = np.zeros((96, 96), bool)
    lungs[16:80, 12:40] = lungs[16:80, 56:84] = True
    cases = tuple(
        ChestXray(
            name=f"{target}",
            image=np.kron(random.integers(0, 255, (cells, cells)), np.ones((96 // cells, 96 // cells))).astype(
                np.uint8
            ),
            lungs=lungs,
            box=Box(0, 0, 96, 96),
            target=target,
            source=source,
            patient=f"{target}",
            split="train",
            split_by_source="train",
        )
        for target, (cells, source) in enumerate(((2, "nih"), (8, "nih"), (32, "cxnet")))
    )
    small = re.sub(r"(?m)^size = .*", "size = [64, 64]", cxr_pneumonia.TOML)
    small = re.sub(r"(?m)^(\[network\]|files = .*)\n", "", small)
    return cxr_pneumonia.CxrPneumonia(
        cases, cases, cases, toml=small, images=12, steps=STEPS, learning_rate=5e-3, transfer=False
    )


@pytest.mark.parametrize("make", [tiny_ct, tiny_radiographs, tiny_classes])
def test_a_few_steps_lower_the_loss_and_export_a_package(make: Callable[[], training.Recipe], tmp_path: Path) -> None:
    recipe = make()
    losses: list[float] = []
    kept: list[Network] = []
    training.train(recipe, STEPS, 1, None, lambda progress: losses.append(progress.loss), kept.append)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert len(kept) == 1

    export(recipe, kept[0], tmp_path / recipe.name)
    package = load_package(tmp_path / recipe.name)
    session = onnxruntime.InferenceSession(package.networks[0], providers=["CPUExecutionProvider"])
    golden = package.golden()
    (answer,) = session.run(["probabilities"], {package.input.tensor: golden.input})
    assert np.abs(answer - golden.outputs["probabilities"]).max() < 1e-3
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-4)
    assert "Research use only" in (package.folder / "CARD.md").read_text(encoding="utf-8")


def test_the_exported_network_answers_as_the_trained_one(tmp_path: Path) -> None:
    recipe = tiny_radiographs()
    network = recipe.network().eval()
    export(recipe, network, tmp_path / recipe.name)
    golden = load_package(tmp_path / recipe.name).golden()
    with torch.no_grad():
        expected = network(torch.from_numpy(golden.input)).numpy()
    # The difference is the rounding of weights to FP16.
    assert np.abs(expected - golden.outputs["probabilities"]).max() < 0.01


def test_the_same_seed_gives_the_same_weights() -> None:
    recipe = tiny_radiographs()
    first, second = (training.train(recipe, 2, 7, None, lambda _: None, lambda _: None) for _ in range(2))
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def interrupt_third_step(recipe: training.Recipe, state: Path) -> None:
    def interrupt(progress: training.Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, 4, 7, None, interrupt, lambda _: None, every=2, state=state)


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    recipe, state = tiny_radiographs(), tmp_path / "training.state"
    whole = training.train(recipe, 4, 7, None, lambda _: None, lambda _: None)
    interrupt_third_step(recipe, state)
    gone_on = training.train(recipe, 4, 7, None, lambda _: None, lambda _: None, every=2, state=state)
    for one, other in zip(whole.state_dict().values(), gone_on.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not state.exists()


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    recipe, state = tiny_radiographs(), tmp_path / "training.state"
    interrupt_third_step(recipe, state)
    with pytest.raises(ValueError, match="--fresh"):
        training.train(recipe, 4, 8, None, lambda _: None, lambda _: None, every=2, state=state)


def test_a_training_that_diverges_says_so_and_what_to_do() -> None:
    recipe = replace(tiny_radiographs(), learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"cxr-lung: the loss is (nan|inf) at step \d+; lower .*learning_rate"):
        training.train(recipe, 11, 1, None, lambda _: None, lambda _: None)


def test_the_classifier_starts_with_the_encoder_of_the_lung_model(tmp_path: Path) -> None:
    lungs = tiny_radiographs().network()
    torch.save(lungs.state_dict(), tmp_path / "lungs.pt")
    classifier = tiny_classes().network()
    training.take_over(classifier, tmp_path / "lungs.pt")
    ours, theirs = classifier.state_dict(), lungs.state_dict()
    shared = [name for name in ours if name.startswith("encoder.")]
    assert shared
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_shuffle_attention_is_the_one_of_the_paper() -> None:
    groups, width = 2, 16
    attention = ShuffleAttention(width, groups)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(3, width, 5, 7)
    parts = []
    normalise = torch.nn.GroupNorm(width // (2 * groups), width // (2 * groups))
    for group in features.chunk(groups, dim=1):
        channel, spatial = group.chunk(2, dim=1)
        average = torch.nn.functional.adaptive_avg_pool2d(channel, 1)
        parts.append(channel * torch.sigmoid(attention.channel_scale * average + attention.channel_shift))
        parts.append(spatial * torch.sigmoid(attention.spatial_scale * normalise(spatial) + attention.spatial_shift))
    expected = torch.nn.functional.channel_shuffle(torch.cat(parts, dim=1), 2)
    assert torch.allclose(attention(features), expected, atol=1e-5)


def test_a_missing_data_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    for load in RECIPES.values():
        with pytest.raises(FileNotFoundError, match="--data"):
            load(tmp_path)
