"""The CT of the National Lung Screening Trial (CC BY 4.0) with one real nodule, which nothing is trained or tuned on.

A report of a third party (TID 1500) marks the nodule, at the apex of the left lung, by a box on each of eight slices.
Needs no PyTorch.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset, dcmread

from engines.types import Volume
from evaluation.cases import Lesion
from evaluation.images import affine_of

SERIES = "dicom/ct_nlst101287_*/CT_*"
REPORT = "dicom/ct_nlst101287_*/SR_*/*.dcm"


def read_nlst(data: Path) -> tuple[Volume, Lesion]:
    """Read the CT in HU, and the one lesion that its report marks: what lies around all of its boxes.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``dicom/ct_nlst101287_…`` with a CT and a report.
    """
    folders, reports = sorted(data.glob(SERIES)), sorted(data.glob(REPORT))
    if not folders or not reports:
        raise FileNotFoundError(f"{data / SERIES} or its report is missing: name the folder of the data with --data")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folders[0]))
    image = sitk.ReadImage(files, sitk.sitkInt16)
    names = [dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID for file in files]
    affine = affine_of(image)
    corners = []
    for box in _boxes(dcmread(reports[0])):
        place = names.index(box.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        # PS3.3 C.18.6.1.1: column, row; the edge of the first pixel is at 0.
        points = np.reshape([float(value) for value in box.GraphicData], (-1, 2))
        for slice_ in (place - 0.5, place + 0.5):
            corners += [affine @ (slice_, row - 0.5, column - 0.5, 1) for column, row in points]
    low, high = np.min(corners, axis=0)[:3], np.max(corners, axis=0)[:3]
    lesion = Lesion(tuple(low.tolist()), tuple(high.tolist()))
    return Volume(sitk.GetArrayFromImage(image), affine, tuple(names)), lesion


def _boxes(item: Dataset) -> Iterator[Dataset]:
    """Give the image regions of a report (PS3.16 TID 1410)."""
    for content in item.get("ContentSequence", ()):
        if content.ValueType == "SCOORD":
            yield content
        else:
            yield from _boxes(content)
