"""How good the shipped models are on images that they were not trained on, through the whole path of a node.

Training and benchmarks judge by the same figures. Needs no PyTorch.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from PIL import Image as Picture

from engines.inference.preprocessing import Array
from engines.types import Affine, Findings, Image, Radiograph, Volume
from engines.verify import dice

Figures = dict[str, float]
"""Each with the words that say what it is."""


class Models(Protocol):
    """What is judged: an `engines.serving.engine_set.EngineSet`, or anything that runs a model like one."""

    def run(self, name: str, image: Image, /) -> Findings:
        """Run a model over an image, and before it the model that it is cropped to, if need be."""
        ...


Evaluation = Callable[[Models], Figures]
"""Judges a model by images that are already read."""

LEFT, RIGHT = 1, 2
HELD_OUT_CT = "LCTSC-Test-S1-202"

CLASSES = ("normal", "pneumonia", "viral")
NORMAL, PNEUMONIA, VIRAL = range(3)


@dataclass(frozen=True, eq=False)
class LabelledCt:
    """One CT as it came, with labels on its own grid; ``both`` where they do not tell left from right."""

    volume: Volume
    labels: NDArray[np.uint8]
    both: bool = False


@dataclass(frozen=True, eq=False)
class OutlinedXray:
    """One X-ray ``[row, column]``, 0–255, with its lung mask."""

    image: Array
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClassifiedXray:
    """One X-ray ``[row, column]``, 0–255, with its class's channel and its source."""

    image: Array
    target: int
    source: str


# ---- the data --------------------------------------------------------------------------------------------------------


def read_cts(data: Path) -> dict[str, LabelledCt]:
    """Read the CT that ``ct-lung`` was not trained on, by the words for them.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_lung`` with these CT.
    """
    file, small = data / "ct_lung" / f"{HELD_OUT_CT}_ct.nii.gz", data / "ct_lung" / "cip64"
    _require(file)
    external = LabelledCt(
        volume=read_volume(small / "ct-64.nrrd"),
        labels=sitk.GetArrayFromImage(sitk.ReadImage(small / "wholeLung-64.nrrd") > 0),
        both=True,
    )
    return {
        f"held-out case {HELD_OUT_CT}": read_labelled_ct(file),
        "Chest Imaging Platform case (4.2 mm, other source)": external,
    }


def read_outlined(data: Path) -> dict[str, tuple[OutlinedXray, ...]]:
    """Read the X-rays with lung masks that ``cxr-lung`` was not trained on, by the words for each set.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr_lung/manifest.csv``.
    """
    return {
        "Montgomery validation": read_masks(data, "montgomery", "val"),
        "Montgomery test": read_masks(data, "montgomery", "test"),
        "Shenzhen (never trained on)": read_masks(data, "shenzhen", "train", "val", "test"),
    }


def read_masks(data: Path, source: str, *splits: str) -> tuple[OutlinedXray, ...]:
    """Read the X-rays and lung masks of one source and some splits."""
    folder = data / "cxr_lung"
    return tuple(
        OutlinedXray(
            image=read_picture(folder / "img" / f"{row['id']}.jpg"),
            mask=read_picture(folder / "mask" / f"{row['id']}.png") > 0,
        )
        for row in rows_of(folder / "manifest.csv")
        if row["source"] == source and row["split"] in splits
    )


def read_classified(data: Path, split: str) -> tuple[ClassifiedXray, ...]:
    """Read the X-rays with a class of one split.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr/manifest.csv``.
    """
    return tuple(
        ClassifiedXray(read_picture(data / "cxr" / "images" / row["file"]), CLASSES.index(row["class"]), row["source"])
        for row in rows_of(data / "cxr" / "manifest.csv")
        if row["split"] == split
    )


def read_labelled_ct(file: Path) -> LabelledCt:
    """Read ``NAME_ct.nii.gz`` with its mask ``NAME_lung.nii.gz``, and split the lungs."""
    mask = sitk.ReadImage(file.with_name(file.name.replace("_ct.nii.gz", "_lung.nii.gz")))
    return LabelledCt(read_volume(file), split_lungs(mask))


def read_volume(file: Path) -> Volume:
    """Read a CT that SimpleITK can read, with its geometry."""
    image = sitk.ReadImage(file)
    array = sitk.GetArrayFromImage(image)
    return Volume(array, affine_of(image), tuple(str(index) for index in range(len(array))))


def affine_of(image: sitk.Image) -> Affine:
    """Give the matrix from array index to LPS millimetres of a SimpleITK image."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return affine


def split_lungs(mask: sitk.Image) -> NDArray[np.uint8]:
    """Split a mask of both lungs into left (1) and right (2) by its two largest components.

    Left is the patient's left, where *x* is larger. Small islands go to the lung whose centre is nearer along *x*.

    Raises
    ------
    ValueError
        If the lungs touch: then the two largest components are not the two lungs.
    """
    components = sitk.RelabelComponent(sitk.ConnectedComponent(mask > 0))
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(components)
    if shapes.GetNumberOfLabels() < 2 or shapes.GetNumberOfPixels(2) < 0.3 * shapes.GetNumberOfPixels(1):
        raise ValueError("the lungs of a training mask touch; they have to be separated first")
    first, second = shapes.GetCentroid(1)[0], shapes.GetCentroid(2)[0]
    lookup = np.zeros(shapes.GetNumberOfLabels() + 1, np.uint8)
    for label in shapes.GetLabels():
        x = shapes.GetCentroid(label)[0]
        to_left = abs(x - max(first, second)) < abs(x - min(first, second))
        lookup[label] = LEFT if to_left else RIGHT
    labels: NDArray[np.uint8] = lookup[sitk.GetArrayFromImage(components)]
    return labels


def read_picture(file: Path) -> Array:
    """Read a picture file as ``[row, column]``, 0–255."""
    with Picture.open(file) as image:
        return np.asarray(image.convert("L"), dtype=np.float32)


def rows_of(file: Path) -> list[dict[str, str]]:
    """Read a manifest.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    _require(file)
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def _require(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: name the folder of the training data with --data")


# ---- the figures -----------------------------------------------------------------------------------------------------


def judge_cts(cts: Mapping[str, LabelledCt], models: Models) -> Figures:
    """Give the Dice of ``ct-lung`` on each CT's own grid."""
    figures = Figures()
    for words, ct in cts.items():
        found = models.run("ct-lung", ct.volume).label_map
        labels = found.array if found else np.zeros_like(ct.labels)
        if ct.both:
            figures[f"Dice, both lungs, {words}"] = dice(ct.labels > 0, labels > 0)
            continue
        for label, name in ((LEFT, "left"), (RIGHT, "right")):
            figures[f"Dice, {name} lung, {words}"] = dice(ct.labels == label, labels == label)
    return figures


def judge_outlines(sets: Mapping[str, Sequence[OutlinedXray]], models: Models) -> Figures:
    """Give the mean and the worst Dice of ``cxr-lung`` in each set, on the pixels of the source images."""
    figures = Figures()
    for name, cases in sets.items():
        overlaps = []
        for case in cases:
            found = models.run("cxr-lung", Radiograph(case.image, None, "")).label_map
            overlaps.append(dice(case.mask, found.array > 0) if found else 0.0)
        figures[f"Dice, mean of {len(cases)}, {name}"] = float(np.mean(overlaps))
        figures[f"Dice, worst of {len(cases)}, {name}"] = min(overlaps)
    return figures


def judge_classes(cases: Sequence[ClassifiedXray], rows: str, models: Models) -> Figures:
    """Classify with ``cxr-pneumonia``, and give the figures of `accuracies`."""
    found = [models.run("cxr-pneumonia", Radiograph(case.image, None, "")).classification for case in cases]
    probabilities = [[entry.probability for entry in answer.classes] for answer in found if answer]
    return accuracies(cases, np.array(probabilities), rows)


def accuracies(cases: Sequence[ClassifiedXray], probabilities: NDArray[np.float64], rows: str) -> Figures:
    """Give accuracy and areas under the curve; each only where both of its classes are there.

    Parameters
    ----------
    cases
        What was classified.
    probabilities
        ``[case, class]``.
    rows
        Words for the rows, which every figure's name ends with.
    """
    targets = np.array([case.target for case in cases])
    nih = np.array([case.source == "nih" for case in cases])
    figures = {f"Accuracy, {rows}": float((probabilities.argmax(axis=1) == targets).mean())}
    for words, positive, where in (
        ("AUC pneumonia against normal, NIH only", PNEUMONIA, nih),
        ("AUC viral against normal, all sources", VIRAL, np.ones_like(nih)),
    ):
        score = probabilities[:, positive] / (probabilities[:, positive] + probabilities[:, NORMAL])
        yes, no = score[where & (targets == positive)], score[where & (targets == NORMAL)]
        if len(yes) and len(no):
            figures[f"{words}, {rows}"] = area_under_curve(yes, no)
    return figures


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Give the area under the ROC curve: how often a positive scores higher than a negative; ties count half."""
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))


EVALUATIONS: Mapping[str, Callable[[Path], Evaluation]] = {
    "ct-lung": lambda data: partial(judge_cts, read_cts(data)),
    "cxr-lung": lambda data: partial(judge_outlines, read_outlined(data)),
    "cxr-pneumonia": lambda data: partial(judge_classes, read_classified(data, "test"), "test"),
}
"""Of each shipped model, from the folder of the data: reads the images, which takes a while."""
