"""How well lungs are outlined on CT: the CT that all methods are judged on, and the figures. No PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from build_engines.recipes.data.hard_cts import HARD
from build_engines.recipes.data.sources import LEFT, RIGHT, LabelledCt, read_chests
from engines.serving.engine_set import EngineSet
from engines.types import Volume
from evaluation.estimate import Estimate
from evaluation.images import read_volume
from evaluation.metrics.segmentation import compare

Segment = Callable[[Volume], NDArray[np.uint8]]
"""Labels the lungs of a CT on its own grid."""

VALIDATION, OTHER = "lctsc202", "cip64"
LEFT_LOBES, RIGHT_LOBES = (9, 10, 11), (12, 13, 14)
"""Thirds of the left and the right lung in the lower byte of the Chest Imaging Platform's labels."""

FIGURES = ("dice", "hausdorff95_mm", "surface_distance_mm", "volume_mae_ml")


def judged(data: Path) -> dict[str, LabelledCt]:
    """Read the CT that no method was trained on: the validation case, one of another source, and `HARD` cases.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_lung`` with these CT.
    """
    (held_out,) = read_chests(data, held_out=True)
    hard = {f"{VALIDATION}_{words}": change(held_out) for words, change in HARD.items()}
    return {VALIDATION: held_out, OTHER: read_other(data), **hard}


def read_other(data: Path) -> LabelledCt:
    """Read the CT of the Chest Imaging Platform; its labels of lung thirds tell left from right."""
    folder = data / "ct_lung" / OTHER
    regions = sitk.GetArrayFromImage(sitk.ReadImage(folder / "lm-64.nrrd")) % 256
    labels = LEFT * np.isin(regions, LEFT_LOBES) + RIGHT * np.isin(regions, RIGHT_LOBES)
    return LabelledCt(read_volume(folder / "ct-64.nrrd"), labels.astype(np.uint8))


def figures(segment: Segment, cts: Mapping[str, LabelledCt], wanted: Sequence[str] = FIGURES) -> dict[str, Estimate]:
    """Judge a method: ``CT.FIGURE_SEGMENT`` for both lungs together, the left and the right one.

    There is one CT of each kind, and so no interval.
    """
    found = dict[str, Estimate]()
    for name, ct in cts.items():
        labels = segment(ct.volume)
        both = compare({"lung": ct.labels > 0}, {"lung": labels > 0}, ct.volume)
        each = compare(_sides(ct.labels), _sides(labels), ct.volume)
        values = {**both.figures, **each.figures}
        for figure in wanted:
            for segment_name in ("lung", "left_lung", "right_lung"):
                value = values[f"{figure}_{segment_name}"]
                found[f"{name}.{figure}_{segment_name}"] = Estimate(value, np.nan, np.nan)
    return found


def by_model(name: str, engines: EngineSet) -> Segment:
    """Segment with a model, as a node runs it; nothing where it finds nothing."""

    def segment(volume: Volume) -> NDArray[np.uint8]:
        found = engines.run(name, volume).label_map
        return found.array if found else np.zeros(volume.array.shape, np.uint8)

    return segment


def _sides(labels: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    return {"left_lung": labels == LEFT, "right_lung": labels == RIGHT}
