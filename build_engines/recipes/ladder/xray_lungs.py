"""The ladder of lung fields on X-rays (Montgomery): encoders of one decoder, other networks.

All rows are trained alike: the same X-rays, changes, loss, steps, batches and seed, on 192 × 192 pixels. Encoders have
half of the channels of their papers, so that each row trains in minutes on a CPU. They are judged on the test rows of
Montgomery, and on Shenzhen, which none of them was trained on.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from build_engines.recipes.cxr_lung import TOML, WIDTH, CxrLung
from build_engines.recipes.ladder.rows import Row
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.deeplab import DeepLabV3Plus
from build_engines.recipes.networks.encoders import Encoder, MobileNet, MobileNetV2, ResNet50, Vgg16
from build_engines.recipes.networks.fcn import Fcn8
from build_engines.recipes.networks.plain_unet import PlainUNet
from build_engines.recipes.networks.unet import UNet
from build_engines.recipes.sources import OutlinedXray, read_masks
from engines.serving.engine_set import EngineSet
from engines.types import Radiograph
from engines.verify import dice
from evaluation.estimate import Estimate, bootstrap

SIZE, STEPS = 192, 300

TRAINED_ON = "Montgomery, 93 X-rays of the training split"
JUDGED_ON = "Montgomery, 21 X-rays of the test split; Shenzhen, 200 X-rays, never trained on"
PUBLISHED = "FWIoU {}, mean pixel accuracy {} (lung region)"
DIFFERS = "other X-rays, half of the channels, 192 × 192, 300 steps from scratch"

CARD = "# {}\n\nA row of the ladder. Research use only.\n\n<!-- figures -->\n<!-- /figures -->\n"


@dataclass(frozen=True, eq=False)
class LadderLung(CxrLung):
    """The recipe of ``cxr-lung`` with another network, judged as the rows are."""

    judged: Mapping[str, Sequence[OutlinedXray]] = field(default_factory=dict)

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Give the metrics of each set, ``SET.METRIC``."""
        figures = {}
        for name, cases in self.judged.items():
            overlaps = []
            for case in cases:
                found = engines.run(self.name, Radiograph(case.image, None, "")).label_map
                overlaps.append(dice(case.mask, found.array > 0) if found else 0.0)
            figures[f"{name}.dice"] = bootstrap(
                partial(_mean, np.array(overlaps)), [str(index) for index in range(len(overlaps))]
            )
        return figures


def _mean(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> float:
    return float(values[drawn].mean())


def load(name: str, build: Callable[[], Network], data: Path) -> LadderLung:
    """Read the X-rays and masks for one row.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr_lung/manifest.csv``.
    """
    return LadderLung(
        cases=read_masks(data, "montgomery", "train"),
        validation={"Montgomery validation": read_masks(data, "montgomery", "val")},
        name=name,
        toml=text_of(name),
        card=CARD.format(name),
        steps=STEPS,
        build=build,
        judged={
            "montgomery_test": read_masks(data, "montgomery", "test"),
            "shenzhen": read_masks(data, "shenzhen", "train", "val", "test"),
        },
    )


def text_of(name: str) -> str:
    """Give the ``model.toml`` of a row: that of ``cxr-lung`` with another name and size."""
    text = TOML.replace('name = "cxr-lung"', f'name = "{name}"')
    rows, columns = tomllib.loads(text)["input"]["size"]
    return text.replace(f"size = [{rows}, {columns}]", f"size = [{SIZE}, {SIZE}]")


def on(encoder: Callable[[], Encoder]) -> Callable[[], Network]:
    """Put the decoder of ``cxr-lung`` on an encoder."""
    return lambda: UNet(2, encoder())


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
}
"""Words, network and published figures of each row that is trained here."""

ROWS: Mapping[str, Row] = {
    name: Row(
        table="xray-lungs",
        words=words,
        load=partial(load, name, build),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=published,
        differs=DIFFERS,
    )
    for name, (words, build, published) in NETWORKS.items()
}
