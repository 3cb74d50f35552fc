"""The ladder of detectors of nodules on slices: any 2D detector on the tiles of `nodule_slices`, and its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from build_engines.recipes import training
from build_engines.recipes.augmentation.primitives import Random
from build_engines.recipes.ladder import nodule_slices, unpackaged
from build_engines.recipes.ladder.nodule_slices import SIZE, Scan, Tile, beside, cut, lesions_of, read_scans
from build_engines.recipes.ladder.rows import Result, Row
from build_engines.recipes.ladder.unpackaged import Compiled
from build_engines.recipes.networks.centre2d import Centre2d
from build_engines.recipes.networks.faster_rcnn import FasterRcnn
from build_engines.recipes.networks.pyramid import Detector
from build_engines.recipes.networks.ssd import Ssd
from engines.inference.detection import candidates, extent, non_maximum_suppression
from engines.inference.sliding_window import Window
from engines.packages.description import DetectionSection
from evaluation.estimate import Estimate
from evaluation.metrics.detection import Candidates, detection_figures, match, overlapping_by

PLACES, SCORES = "boxes", "scores"
SECTION = DetectionSection.model_validate(
    {
        "places": PLACES,
        "scores": SCORES,
        "least_score": 0.01,
        "most_overlap": 0.3,
        "most": 20,
        "classes": [{"label": "Nodule", "code": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}}],
    }
)
OVERLAP = 0.3
"""Intersection over union from which a box counts as found in the average precision."""

DRAWS, TEST_DRAWS = 4, 8
"""How often nodules are put into each chest that is trained on, and into the one that judges."""

STEPS = 1500

TRAINED_ON = "80 LIDC-IDRI nodules of as many patients, in their patches and put into 4 LCTSC chests; slices of 64 mm"
JUDGED_ON = (
    "20 other LIDC-IDRI nodules, put 8 times into another LCTSC chest (lctsc202), and in their own patches (lidc; they "
    "lie near the middle); as many slices without; false positives by slice of 64 mm, intervals by nodule"
)


@dataclass(frozen=True, eq=False)
class NoduleDetector:
    """The training of one detector.

    Attributes
    ----------
    name, network_class
        Of the detector.
    patches, chests
        What tiles are drawn from.
    drawn
        Tiles of a batch.
    """

    name: str
    network_class: type[Detector]
    patches: Sequence[Scan]
    chests: Sequence[Scan]
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    drawn: int = 16

    def network(self) -> Detector:
        """Build the untrained network."""
        return self.network_class()

    def batch(self, random: Random) -> training.Batch:
        """Draw tiles and the boxes in each."""
        tiles = [nodule_slices.draw(self.patches, self.chests, random) for _ in range(self.drawn)]
        return torch.stack([tile.image for tile in tiles]), [tile.boxes for tile in tiles]

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """Judge as the network's paper does."""
        return self.network_class.loss(outputs, target)


@dataclass(frozen=True, eq=False)
class Judged:
    """A tile that judges, and the nodule that it was chosen for."""

    tile: Tile
    patient: str


def tiles_to_judge(scans: Sequence[Scan], cuts: int, random: Random) -> list[Judged]:
    """Cut tiles around each nodule, not turned, and as many where there is none."""
    judged = []
    for scan in scans:
        for nodule in scan.nodules:
            for _ in range(cuts):
                judged.append(Judged(cut(scan, beside(scan, nodule, random), np.eye(3)), nodule.patient))
                for _ in range(20 if len(scan.places) else 0):
                    place = scan.places[random.integers(len(scan.places))].astype(np.float64)
                    tile = cut(scan, place, np.eye(3))
                    if not len(tile.boxes):
                        judged.append(Judged(tile, nodule.patient))
                        break
    return judged


def find(engine: Compiled, tile: Tile) -> Candidates:
    """Run a compiled detector over a tile, and keep of boxes that overlap the one with the highest score."""
    answers = engine.infer(tile.image.numpy()[None])
    window = Window((0, 0), {name: answer[0] for name, answer in answers.items()})
    proposed = candidates(SECTION, [window], extent((SIZE, SIZE)))
    kept = proposed[non_maximum_suppression(SECTION, proposed)]
    # There whole numbers are the middles of pixels, here the edges.
    return Candidates(kept.scores, kept.places[:, 0] + 0.5, kept.places[:, 1] + 0.5)


def figures(engine: Compiled, judged: Sequence[Judged]) -> dict[str, Estimate]:
    """Give the figures of FROC, and the average precision by overlap; nodules are drawn anew, each with its tiles."""
    found = [find(engine, each.tile) for each in judged]
    lesions = [lesions_of(each.tile) for each in judged]
    patients = [each.patient for each in judged]
    by_centre = [match(one, there) for one, there in zip(found, lesions, strict=True)]
    by_overlap = [match(one, there, overlapping_by(OVERLAP)) for one, there in zip(found, lesions, strict=True)]
    # What a slice shows of a nodule may be less than its diameter: errors in diameter would say nothing.
    named = {
        name: each for name, each in detection_figures(by_centre, patients).items() if not name.startswith("diameter_")
    }
    named["average_precision_at_iou_0.3"] = detection_figures(by_overlap, patients)["average_precision"]
    return named


def train_and_judge(name: str, network_class: type[Detector], steps: int, data: Path, seed: int) -> Result:
    """Train one detector, and judge it compiled, on nodules and a chest that it was not trained on."""
    recipe = NoduleDetector(name, network_class, *read_scans(data, held_out=False, draws=DRAWS, seed=seed))
    # The same tiles whatever the seed of the training.
    patches, chests = read_scans(data, held_out=True, draws=TEST_DRAWS, seed=1)
    random = np.random.default_rng(1)
    sets: Mapping[str, Sequence[Judged]] = {
        "lctsc202": tiles_to_judge(chests, 1, random),
        "lidc": tiles_to_judge(patches, 3, random),
    }

    def judge(engine: Compiled) -> dict[str, Estimate]:
        return {
            f"{name}.{figure}": each for name, tiles in sets.items() for figure, each in figures(engine, tiles).items()
        }

    return unpackaged.train_and_judge(
        recipe, steps, seed, np.zeros((1, 3, SIZE, SIZE), np.float32), (PLACES, SCORES), judge
    )


def _row(name: str, title: str, network: type[Detector], published: str = "") -> Row:
    return Row(
        table="nodule-detection",
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
