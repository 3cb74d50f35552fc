"""The ladder of nodule or not, on 2D patches of LUNA16, and nodule outlines on 3D patches of LIDC-IDRI."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from build_engines.recipes.data.nodules import read_lidc
from build_engines.recipes.ladder.nodule_outline import NoduleOutline
from build_engines.recipes.ladder.nodule_patch import JUDGED_ON, TRAINED_ON, train_and_judge
from build_engines.recipes.ladder.rows import Result, Row
from build_engines.recipes.networks.about_middle import AboutMiddle
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.encoders import MobileNetV2
from build_engines.recipes.networks.fcn3d import Fcn3d
from build_engines.recipes.networks.patch_classifier import MagnifiedClassifier, SmallCnn
from build_engines.recipes.networks.unet import UNet3d

TABLE = "nodule-patches"
LIDC_TRAINED_ON = "LIDC-IDRI: 80 nodules of as many patients, 51 mm around each"
LIDC_JUDGED_ON = "LIDC-IDRI: 20 nodules of other patients; intervals by patient"


def _outline(name: str, build: Callable[[], Network], edge: int, data: Path) -> NoduleOutline:
    return NoduleOutline(name, build, edge, read_lidc(data, held_out=False), read_lidc(data, held_out=True))


def _small_cnn() -> Network:
    return SmallCnn(2)


def _mobilenet() -> Network:
    return MagnifiedClassifier(2, MobileNetV2(0.5))


def _unet3d() -> Network:
    return AboutMiddle(UNet3d(2, (16, 32, 64, 96), channels=2))


def _fcn3d() -> Network:
    return AboutMiddle(Fcn3d(2, (16, 32, 64, 96, 128), channels=2))


def _outline_row(name: str, title: str, build: Callable[[], Network], edge: int) -> Row:
    return Row(
        table=TABLE,
        title=title,
        load=partial(_outline, name, build, edge),
        trained_on=LIDC_TRAINED_ON,
        judged_on=LIDC_JUDGED_ON,
        published="Dice 0.822: central focused CNN (Wang et al., Medical Image Analysis 40, 2017)",
        differs="893 nodules of LIDC-IDRI there, 80 to train on and 20 to judge by here",
    )


def _patch_row(title: str, run: Callable[[Path, int], Result]) -> Row:
    return Row(
        table=TABLE,
        title=f"{title}; mean of 8 turned and mirrored copies",
        run=run,
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published="AUC 0.931, sensitivity 0.927, specificity 0.762: 2D CNN (Journal of Medical Imaging 7, 2020, "
        "PMC7550796)",
        differs="candidates of 1600 CT of other sources there, ready-made patches of LUNA16 here",
    )


ROWS: Mapping[str, Row] = {
    "nodule-patch-cnn": _patch_row(
        "Nodule or not: small CNN, 1000 steps", partial(train_and_judge, "nodule-patch-cnn", _small_cnn, 1000)
    ),
    "nodule-patch-mobilenet": _patch_row(
        "Nodule or not: MobileNetV2 with shuffle attention at twice the resolution, 400 steps",
        partial(train_and_judge, "nodule-patch-mobilenet", _mobilenet, 400),
    ),
    "nodule-outline-unet": _outline_row(
        "nodule-outline-unet", "Outline: U-Net 3D that knows the distance from the middle, 600 steps", _unet3d, 56
    ),
    "nodule-outline-fcn": _outline_row(
        "nodule-outline-fcn", "Outline: FCN 3D that knows the distance from the middle, 600 steps", _fcn3d, 64
    ),
}
