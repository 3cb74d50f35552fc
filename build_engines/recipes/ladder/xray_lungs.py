"""The ladder of lung fields on X-rays (Montgomery): encoders of one decoder, other networks.

All rows are trained alike: the same X-rays, changes, loss, steps, batches and seed, on 128 × 128 pixels. Encoders have
half of the channels of their papers, so that each row trains in minutes on a CPU. They are judged on the test rows of
Montgomery, and on Shenzhen, which none of them was trained on.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from build_engines.recipes.cxr_lung import NAME, TOML, WIDTH, CxrLung
from build_engines.recipes.data.sources import read_masks
from build_engines.recipes.figures.judged import Sets, figures, xray_lungs
from build_engines.recipes.ladder.measure import measure_package
from build_engines.recipes.ladder.rows import CARD, Result, Row
from build_engines.recipes.losses import LOSSES
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.deeplab import DeepLabV3Plus
from build_engines.recipes.networks.encoders import Encoder, MobileNet, MobileNetV2, ResNet50, Vgg16
from build_engines.recipes.networks.fcn import Fcn8
from build_engines.recipes.networks.plain_unet import PlainUNet
from build_engines.recipes.networks.plan import Fingerprint, plan
from build_engines.recipes.networks.self_configured import SelfConfigured, deeply_supervised
from build_engines.recipes.networks.unet import UNet
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.serving.engine_set import EngineSet
from evaluation.estimate import Estimate

SIZE, STEPS = 128, 300

TRAINED_ON = "Montgomery, 93 X-rays of the training split"
JUDGED_ON = "Montgomery, 21 X-rays of the test split; Shenzhen, 200 X-rays, never trained on"
PUBLISHED = "FWIoU {}, mean pixel accuracy {} (lung region)"
DIFFERS = "other X-rays, half of the channels, 128 × 128, 300 steps from scratch"


@dataclass(frozen=True, eq=False)
class LadderLung(CxrLung):
    """The recipe of ``cxr-lung`` with another network, judged as the rows are."""

    judged: Sets = field(default_factory=dict)

    def loss(self, logits: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
        """Judge by ``loss_name``, at every resolution where the network gives several."""
        return deeply_supervised(LOSSES[self.loss_name], logits, target)

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Give the metrics of each set, ``SET.METRIC``. Distances are in pixels, of which a picture has 384 × 384."""
        return figures(engines.models[self.name].package, engines, self.judged)


def judged(data: Path) -> Sets:
    """Read what all rows are judged on."""
    sets = xray_lungs(data)
    return {name: sets[name] for name in ("montgomery_test", "shenzhen")}


def load(name: str, build: Callable[[], Network], loss_name: str, data: Path) -> LadderLung:
    """Read the X-rays and masks for one row.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr_lung/manifest.csv``.
    """
    return LadderLung(
        cases=read_masks(data, "montgomery", "train"),
        validation={"montgomery_val": read_masks(data, "montgomery", "val")},
        name=name,
        toml=text_of(name),
        card=CARD.format(name),
        steps=STEPS,
        build=build,
        loss_name=loss_name,
        judged=judged(data),
    )


def text_of(name: str) -> str:
    """Give the ``model.toml`` of a row: that of ``cxr-lung`` with another name and size."""
    text = TOML.replace('name = "cxr-lung"', f'name = "{name}"')
    rows, columns = tomllib.loads(text)["input"]["size"]
    return text.replace(f"size = [{rows}, {columns}]", f"size = [{SIZE}, {SIZE}]")


def on(encoder: Callable[[], Encoder]) -> Callable[[], Network]:
    """Put the decoder of ``cxr-lung`` on an encoder."""
    return lambda: UNet(2, encoder())


def self_configured() -> Network:
    """Build the U-Net of nnU-Net's rules for images of this size.

    Grid and batch are those of all rows; depth, kernels and the doubling of channels are by the rules, from 8 channels
    in place of 32.
    """
    images = Fingerprint(shapes=[(SIZE, SIZE)], spacings=[(1.0, 1.0)])
    return SelfConfigured(2, plan(images, 2, features=8))


NETWORKS: Mapping[str, tuple[str, Callable[[], Network], str]] = {
    "xray-lungs-mobilenetv2-sa": (
        "U-Net decoder on MobileNetV2 with shuffle attention",
        on(partial(MobileNetV2, WIDTH)),
        PUBLISHED.format(0.904, 0.881),
    ),
    "xray-lungs-resnet50": (
        "U-Net decoder on ResNet-50",
        on(partial(ResNet50, WIDTH)),
        PUBLISHED.format(0.898, 0.868),
    ),
    "xray-lungs-mobilenet": (
        "U-Net decoder on MobileNet",
        on(partial(MobileNet, WIDTH)),
        PUBLISHED.format(0.834, 0.783),
    ),
    "xray-lungs-vgg16": (
        "U-Net decoder on VGG-16",
        on(partial(Vgg16, WIDTH)),
        PUBLISHED.format(0.856, 0.838),
    ),
    "xray-lungs-mobilenetv2": (
        "U-Net decoder on MobileNetV2 without shuffle attention in the encoder",
        on(partial(MobileNetV2, WIDTH, attention=False)),
        "",
    ),
    "xray-lungs-unet": (
        "U-Net (Ronneberger), a quarter of the channels, batch normalisation",
        lambda: PlainUNet(2, 0.25),
        "",
    ),
    "xray-lungs-fcn": (
        "FCN-8s on VGG-16, 512 channels in place of 4096",
        lambda: Fcn8(2, Vgg16(WIDTH), hidden=512),
        "",
    ),
    "xray-lungs-deeplab": (
        "DeepLabV3+ on MobileNetV2, rates 2, 4 and 6",
        lambda: DeepLabV3Plus(2, MobileNetV2(WIDTH, attention=False), WIDTH, rates=(2, 4, 6)),
        "",
    ),
    "xray-lungs-self-configured": (
        "U-Net configured by nnU-Net's rules, deep supervision, from 8 channels",
        self_configured,
        "",
    ),
}
"""Title, network and published figures of each row that is trained here."""


def measure_shipped(data: Path, seed: int) -> Result:
    """Measure ``cxr-lung`` as it is shipped; nothing is trained, and nothing drawn but the intervals."""
    package = load_package(SHIPPED_MODELS / NAME)
    return measure_package(package, lambda engines: figures(package, engines, judged(data)))


ROWS: Mapping[str, Row] = (
    {
        "xray-lungs-shipped": Row(
            table="xray-lungs",
            title="cxr-lung as shipped: U-Net decoder on MobileNetV2 with shuffle attention, 256 × 256, 900 steps",
            run=measure_shipped,
            trained_on=TRAINED_ON,
            judged_on=JUDGED_ON,
            differs="more pixels and three times the steps of the other rows",
        )
    }
    | {
        name: Row(
            table="xray-lungs",
            title=title,
            load=partial(load, name, build, CxrLung.loss_name),
            trained_on=TRAINED_ON,
            judged_on=JUDGED_ON,
            published=published,
            differs=DIFFERS,
        )
        for name, (title, build, published) in NETWORKS.items()
    }
    | {
        f"xray-loss-{loss}": Row(
            table="xray-losses",
            title=f"the same network with {words} alone",
            load=partial(load, f"xray-loss-{loss}", NETWORKS["xray-lungs-mobilenetv2-sa"][1], loss),
            trained_on=TRAINED_ON,
            judged_on=JUDGED_ON,
        )
        for loss, words in (("dice", "the Dice loss"), ("cross-entropy", "cross-entropy"), ("focal", "the focal loss"))
    }
)
