"""The 3D networks of the ladder: their shapes, their export, what they learn, and nnU-Net's rules."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")
openvino = pytest.importorskip("openvino")

import onnx  # noqa: E402

from build_engines.recipes.losses import dice_and_cross_entropy  # noqa: E402
from build_engines.recipes.networks.blocks import Network  # noqa: E402
from build_engines.recipes.networks.fcn3d import Fcn3d  # noqa: E402
from build_engines.recipes.networks.plan import (  # noqa: E402
    Fingerprint,
    Plan,
    feature_values,
    plan,
    target_spacing,
    topology,
)
from build_engines.recipes.networks.self_configured import SelfConfigured, deeply_supervised  # noqa: E402
from build_engines.recipes.networks.unet import UNet3d  # noqa: E402
from build_engines.recipes.networks.vnet import VNet  # noqa: E402
from build_engines.recipes.packaging.export import trace  # noqa: E402
from build_engines.recipes.packaging.unfold import unfold  # noqa: E402

CLASSES = 3
SMALL = Plan(
    spacing=(3.0, 1.0, 1.0),
    patch=(16, 32, 32),
    batch=2,
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    features=(8, 16, 32),
)
CT = Fingerprint(shapes=[(130, 512, 512), (150, 512, 512)], spacings=[(2.5, 0.8, 0.8), (2.5, 0.7, 0.7)])

NETWORKS: dict[str, Callable[[], Network]] = {
    "U-Net": lambda: UNet3d(CLASSES, (8, 16, 24, 32, 40)),
    "V-Net": lambda: VNet(CLASSES, width=4),
    "FCN": lambda: Fcn3d(CLASSES, (8, 16, 24, 32, 40)),
    "self-configured": lambda: SelfConfigured(CLASSES, SMALL),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_exported_answers_as_the_network(name: str) -> None:
    network = NETWORKS[name]().eval()
    image = np.random.default_rng(1).random((1, 1, 16, 16, 32), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    assert expected.shape == (1, CLASSES, 16, 16, 32)
    model = trace(network, image, "image", ["probabilities"])
    core = openvino.Core()
    # What OpenVINO takes by itself may be bf16.
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answer = compiled(image)["probabilities"]
    assert np.abs(answer - expected).max() < 1e-3
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    network = NETWORKS[name]().train()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    target = torch.zeros(2, 16, 16, 32, dtype=torch.long)
    target[:, 4:12, 4:12, 4:14], target[:, 4:12, 4:12, 18:28] = 1, 2
    image = target[:, None] / 2 + 0.1 * torch.randn(2, 1, 16, 16, 32)
    losses = []
    for _ in range(8):
        loss = deeply_supervised(dice_and_cross_entropy, network.logits(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_vnet_has_the_stages_of_the_paper() -> None:
    network = VNet(2)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert [layer.out_channels for layer in convolutions if layer.kernel_size == (2, 2, 2)] == [32, 64, 128, 256]
    wide = [layer.out_channels for layer in convolutions if layer.kernel_size == (5, 5, 5)]
    down, up = [16, 32, 32, *[64] * 3, *[128] * 3, *[256] * 3], [*[256] * 3, *[128] * 3, 64, 64, 32]
    assert wide == down + up


def test_the_rules_give_nnunets_own_network_for_its_own_memory() -> None:
    chosen = plan(CT, CLASSES)
    assert chosen.features == (32, 64, 128, 256, 320, 320)
    assert chosen.batch == 2
    network = SelfConfigured(CLASSES, chosen, deep_supervision=False)
    # The library counts what nnU-Net's planner compares with its budget.
    assert feature_values(chosen, CLASSES) == network.layers.compute_conv_feature_map_size(chosen.patch)
    assert 0.7 < feature_values(chosen, CLASSES) / 560e6 <= 1
    for length, divisor in zip(chosen.patch, np.prod(chosen.strides, axis=0), strict=True):
        assert length % divisor == 0


def test_less_memory_makes_a_smaller_patch_on_a_coarser_grid() -> None:
    full, small = plan(CT, CLASSES), plan(CT, CLASSES, memory_gb=1.0)
    assert np.prod(small.patch) < np.prod(full.patch) / 4
    assert small.spacing > full.spacing
    extent = np.multiply(small.patch, small.spacing)
    assert np.prod(extent) > 0.24 * np.prod([140 * 2.5, 512 * 0.75, 512 * 0.75])


def test_memory_for_no_patch_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="more memory"):
        plan(CT, CLASSES, memory_gb=1e-6)


def test_a_far_coarser_axis_keeps_its_detail_and_is_halved_later() -> None:
    spacings = [(10.0, 1.5, 1.5), (10.0, 1.5, 1.5), (5.0, 1.5, 1.5)]
    cine = Fingerprint(shapes=[(10, 256, 216)] * 3, spacings=spacings)
    assert target_spacing(cine) == (6.0, 1.5, 1.5)
    strides, kernels, patch = topology((6.0, 1.5, 1.5), (14, 256, 216))
    assert strides[:3] == ((1, 1, 1), (1, 2, 2), (1, 2, 2))
    assert kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert patch == (14, 256, 224)


def test_2d_images_are_planned_whole_where_they_fit() -> None:
    xrays = Fingerprint(shapes=[(256, 256)] * 93, spacings=[(1.0, 1.0)] * 93)
    chosen = plan(xrays, 2)
    assert chosen.patch == (256, 256)
    assert chosen.features == (32, 64, 128, 256, 512, 512, 512)
    assert chosen.batch == 5


def test_finer_resolutions_weigh_more_and_the_coarsest_nothing() -> None:
    target = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    sizes = (8, 4, 2)

    def loss_of(wrong: int) -> float:
        outputs = []
        for size in sizes:
            logits = torch.zeros(1, 2, size, size, size)
            logits[:, 1 if size == wrong else 0] = 50.0
            outputs.append(logits)
        return float(deeply_supervised(torch.nn.functional.cross_entropy, tuple(outputs), target))

    assert loss_of(8) == pytest.approx(2 * loss_of(4))
    assert loss_of(2) == pytest.approx(0.0, abs=1e-6)


def test_only_the_finest_resolution_is_served() -> None:
    network = SelfConfigured(CLASSES, SMALL)
    image = torch.zeros(1, 1, 16, 32, 32)
    assert [tuple(each.shape[2:]) for each in network.train().logits(image)] == [(16, 32, 32), (16, 16, 16)]
    assert network.eval()(image).shape == (1, CLASSES, 16, 32, 32)


def trained() -> Network:
    """A network with normalisations that do something."""
    network = UNet3d(CLASSES, (8, 16, 24))
    with torch.no_grad():
        for _ in range(3):
            network.train().logits(2 + torch.randn(2, 1, 16, 16, 16))
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def test_weights_from_an_export_answer_as_before_and_can_be_trained_on(tmp_path: Path) -> None:
    network = trained()
    images = [2 + torch.randn(2, 1, 16, 16, 16) for _ in range(4)]
    model = trace(network, images[0][:1].numpy(), "image", ["probabilities"])
    onnx.save(model, tmp_path / "model.onnx")
    again = UNet3d(CLASSES, (8, 16, 24))
    unfold(again, tmp_path / "model.onnx", torch.cat(images))
    with torch.no_grad():
        assert torch.allclose(again.eval()(images[0]), network(images[0]), atol=1e-4)
        # With the statistics of a batch, as in training, it answers nearly the same.
        assert float((again.train()(images[0]) - network(images[0])).abs().mean()) < 0.05


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model = trace(trained(), np.zeros((1, 1, 16, 16, 16), np.float32), "image", ["probabilities"])
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="another one"):
        unfold(UNet3d(CLASSES, (8, 16, 32)), tmp_path / "model.onnx", torch.zeros(1, 1, 16, 16, 16))
