"""The ladder of detectors of nodules on 2D slices."""

from collections.abc import Mapping
from functools import partial

from build_engines.recipes.ladder.nodule_detector import JUDGED_ON, TRAINED_ON, train_and_judge
from build_engines.recipes.ladder.rows import Row
from build_engines.recipes.networks.centre2d import Centre2d
from build_engines.recipes.networks.faster_rcnn import FasterRcnn
from build_engines.recipes.networks.pyramid import Detector
from build_engines.recipes.networks.ssd import Ssd

TABLE = "nodule-detection"
STEPS = 1500


def _row(name: str, title: str, network: type[Detector], published: str = "") -> Row:
    return Row(
        table=TABLE,
        title=f"{title}, {STEPS} steps",
        run=partial(train_and_judge, name, network, STEPS),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=published,
        differs="whole scans of 888 patients and a 3D network behind it there, slices of 64 mm here"
        if published
        else "",
    )


ROWS: Mapping[str, Row] = {
    "nodule-ssd": _row("nodule-ssd", "One stage with anchors: SSD", Ssd),
    "nodule-centre2d": _row("nodule-centre2d", "One stage without anchors: CenterNet", Centre2d),
    "nodule-faster-rcnn": _row(
        "nodule-faster-rcnn",
        "Two stages: Faster R-CNN",
        FasterRcnn,
        "mean FROC sensitivity 0.891: Faster R-CNN on slices of LUNA16 (Ding et al., MICCAI 2017)",
    ),
}
