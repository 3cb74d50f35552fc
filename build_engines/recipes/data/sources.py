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
from PIL import Image as Picture

from engines.inference.preprocessing import Array
from engines.types import Affine, Radiograph, Volume
from evaluation.cases import Case

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
            image=read_picture(folder / "img" / f"{row['id']}.jpg"),
            mask=read_picture(folder / "mask" / f"{row['id']}.png") > 0,
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


def read_radiograph(file: Path) -> Radiograph:
    """Read a picture file as an X-ray of unknown spacing."""
    return Radiograph(read_picture(file), None, "")


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
