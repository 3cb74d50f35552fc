"""The networks of the lung fields on X-rays: their shapes and sizes, what they become as ONNX, and that they learn."""

import tomllib
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")
openvino = pytest.importorskip("openvino", reason="engines on a CPU need openvino")

from build_engines.recipes.data import phantom  # noqa: E402
from build_engines.recipes.data.sources import OutlinedXray  # noqa: E402
from build_engines.recipes.ladder.rows import Row  # noqa: E402
from build_engines.recipes.ladder.xray_lungs import (  # noqa: E402
    NETWORKS,
    ROWS,
    LadderLung,
    self_configured,
    text_of,
)
from build_engines.recipes.networks.blocks import Network  # noqa: E402
from build_engines.recipes.networks.deeplab import DeepLabV3Plus  # noqa: E402
from build_engines.recipes.networks.encoders import Encoder, MobileNet, MobileNetV2, ResNet50, Vgg16  # noqa: E402
from build_engines.recipes.networks.fcn import Fcn8  # noqa: E402
from build_engines.recipes.networks.plain_unet import PlainUNet  # noqa: E402
from build_engines.recipes.networks.unet import UNet  # noqa: E402
from build_engines.recipes.packaging.export import trace  # noqa: E402
from build_engines.recipes.training import Batch, train  # noqa: E402
from engines.packages.description import Description  # noqa: E402
from engines.packages.package import SHIPPED_MODELS, load_package  # noqa: E402

ENCODERS: tuple[Callable[[float], Encoder], ...] = (MobileNet, MobileNetV2, ResNet50, Vgg16)


def small() -> dict[str, Callable[[], Network]]:
    decoders: dict[str, Callable[[], Network]] = {
        f"UNet on {encoder.__name__}": lambda encoder=encoder: UNet(2, encoder(0.25), (32, 24, 16, 16))
        for encoder in ENCODERS
    }
    return decoders | {
        "PlainUNet": lambda: PlainUNet(2, 0.125),
        "Fcn8": lambda: Fcn8(2, Vgg16(0.25), hidden=32),
        "DeepLabV3Plus": lambda: DeepLabV3Plus(2, MobileNetV2(0.25), 0.25, rates=(1, 2, 3)),
        "SelfConfigured": self_configured,
    }


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_gives_five_maps_each_of_half_the_resolution(encoder: Callable[[float], Encoder]) -> None:
    network = encoder(0.25).eval()
    maps = network(torch.zeros(2, 1, 96, 64))
    assert [tuple(each.shape) for each in maps] == [
        (2, width, 96 // step, 64 // step) for width, step in zip(network.widths, (2, 4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        # Without the last layers that only classify, and with one channel of input.
        (lambda: MobileNet(1.0), 4.2 - 1.0),
        (lambda: MobileNetV2(1.0, attention=False), 3.5 - 1.3 - 0.4),
        (lambda: ResNet50(1.0), 25.6 - 2.0),
        (lambda: Vgg16(1.0), 14.7),
        (lambda: PlainUNet(2, 1.0), 31.0),
        (lambda: Fcn8(21, Vgg16(1.0)), 134.5),
        (lambda: DeepLabV3Plus(21, MobileNetV2(1.0, attention=False)), 5.8),
    ],
)
def test_at_full_width_a_network_has_as_many_weights_as_published(
    network: Callable[[], torch.nn.Module], millions: float
) -> None:
    with torch.device("meta"):
        weights = sum(each.numel() for each in network().parameters())
    assert weights / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("name", small())
def test_an_exported_network_answers_in_openvino_as_in_pytorch(name: str) -> None:
    network = small()[name]()
    for layer in network.modules():
        # As after training: batch normalisation that changes something.
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
    image = phantom.radiograph((128, 128))[None, None].astype(np.float32)
    model = trace(network.eval(), image, "image", ["probabilities"])
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = compiled(image)[0]
    assert found.shape == (1, 2, 128, 128)
    assert np.abs(found - expected).max() < 1e-3
    assert np.ptp(found[0, 1]) > 1e-3


@pytest.mark.parametrize("name", small())
def test_a_few_steps_on_one_batch_lower_its_loss(name: str) -> None:
    losses: list[float] = []
    train(
        OneBatch(small()[name], 128 if name == "Fcn8" else 64),
        12,
        1,
        None,
        lambda progress: losses.append(progress.loss),
        lambda _: None,
    )
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


class OneBatch(LadderLung):
    """Trains on the same changes of one synthetic X-ray again and again."""

    def __init__(self, build: Callable[[], Network], size: int) -> None:
        image, mask = 255 * phantom.radiograph((96, 96)), np.zeros((96, 96), bool)
        mask[16:60, 12:40] = mask[16:60, 56:84] = True
        super().__init__(
            (OutlinedXray(image, mask),), {}, "tiny", text_of("tiny"), images=2, learning_rate=1e-2, build=build
        )

    def batch(self, random: np.random.Generator) -> Batch:
        return super().batch(np.random.default_rng(1))


def test_deeplab_keeps_its_last_features_at_a_sixteenth_and_sees_as_far() -> None:
    encoder = MobileNetV2(0.25, attention=False)
    image = torch.rand(1, 1, 768, 32, requires_grad=True)
    before = _seen(encoder, image)
    DeepLabV3Plus(2, encoder, 0.25)
    assert encoder(image)[-1].shape[2:] == (48, 2)
    assert _seen(encoder, image) >= 0.9 * before


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rows_differ_by_nothing_but_name_size_and_network(name: str) -> None:
    described = Description.model_validate(tomllib.loads(text_of(name)))
    shipped = load_package(SHIPPED_MODELS / "cxr-lung").description
    assert described.identity.name == name
    assert described.input.model_copy(update={"size": shipped.input.size}) == shipped.input
    assert described.segmentation == shipped.segmentation
    row: Row = ROWS[name]
    assert row.load is not None
    assert row.table == "xray-lungs"


def _seen(encoder: Encoder, image: torch.Tensor) -> int:
    """Count the rows that the last features in the middle depend on."""
    encoder.eval()
    last = encoder(image)[-1]
    middle = last.shape[2] // 2
    (gradient,) = torch.autograd.grad(last[0, :, middle].sum(), image)
    return int((gradient[0, 0].abs().sum(dim=1) > 0).sum())
