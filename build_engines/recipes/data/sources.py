"""The data that the shipped models are trained and judged on, read from ``DIR``: ``ct_lung/``, ``cxr_lung/``, ``cxr/``.

Needs no PyTorch.
"""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from engines.inference.preprocessing import Array
from engines.types import Volume
from evaluation.cases import Case
from evaluation.images import read_picture_mask, read_radiograph, read_volume

LEFT, RIGHT = 1, 2
HELD_OUT_CT = "LCTSC-Test-S1-202"

CLASSES = ("normal", "pneumonia", "viral")


@dataclass(frozen=True, eq=False)
class LabelledCt:
    """One CT as it came, with labels on its own grid."""

    volume: Volume
    labels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class OutlinedXray:
    """One X-ray ``[row, column]``, 0–255, with its lung mask, and the name that tells it from the others."""

    image: Array
    mask: NDArray[np.bool_]
    name: str = ""


def read_masks(data: Path, source: str, *splits: str) -> tuple[OutlinedXray, ...]:
    """Read the X-rays and lung masks of one source and some splits."""
    folder = data / "cxr_lung"
    return tuple(
        OutlinedXray(
            image=read_radiograph(folder / "img" / f"{row['id']}.jpg").array,
            mask=read_picture_mask(folder / "mask" / f"{row['id']}.png") > 0,
            name=row["id"],
        )
        for row in rows_of(folder / "manifest.csv")
        if row["source"] == source and row["split"] in splits
    )


def classified_cases(data: Path, split: str) -> tuple[Case, ...]:
    """Find the X-rays with a class of one split; each image is read when it is asked for.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr/manifest.csv``.
    """
    return tuple(
        Case(
            name=row["file"],
            patient=f"{row['source']}/{row['patient']}",
            image=partial(read_radiograph, data / "cxr" / "images" / row["file"]),
            label=row["class"],
            split=split,
            groups={"source": row["source"]},
        )
        for row in rows_of(data / "cxr" / "manifest.csv")
        if row["split"] == split
    )


def read_chests(data: Path, held_out: bool) -> tuple[LabelledCt, ...]:
    """Read the CT of LCTSC with lungs that are trained on, or the one that is held out.

    Raises
    ------
    FileNotFoundError
        If ``data`` has none of them.
    """
    files = chest_files(data, held_out)
    if not files:
        raise FileNotFoundError(f"no ct_lung/*_ct.nii.gz in {data}: name the folder of the training data with --data")
    return tuple(read_labelled_ct(file) for file in files)


def chest_files(data: Path, held_out: bool) -> list[Path]:
    """List the same, by name."""
    files = sorted((data / "ct_lung").glob("*_ct.nii.gz"))
    return [file for file in files if file.name.startswith(HELD_OUT_CT) == held_out]


def read_labelled_ct(file: Path) -> LabelledCt:
    """Read ``NAME_ct.nii.gz`` with its mask ``NAME_lung.nii.gz``, and split the lungs."""
    mask = sitk.ReadImage(file.with_name(file.name.replace("_ct.nii.gz", "_lung.nii.gz")))
    return LabelledCt(read_volume(file), split_lungs(mask))


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


def rows_of(file: Path) -> list[dict[str, str]]:
    """Read a manifest.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: name the folder of the training data with --data")
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))
