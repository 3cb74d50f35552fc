"""Images and findings to encode: real ones from the shared data, and small ones made up on the spot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ComputedRadiographyImageStorage, CTImageStorage

from engines.types import (
    Classification,
    ClassProbability,
    Code,
    EngineIdentity,
    Findings,
    Image,
    LabelMap,
    Measurement,
    ModelIdentity,
    Radiograph,
    Segment,
    Volume,
)
from service.results.analysis import Analysis
from service.results.profile import ResultProfile

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
LUNG = Code("39607008", "SCT", "Lung")
LEFT_LUNG = Segment(1, "Left lung", ANATOMY, LUNG, (230, 120, 90), Code("7771000", "SCT", "Left"))
RIGHT_LUNG = Segment(2, "Right lung", ANATOMY, LUNG, (90, 160, 230), Code("24028007", "SCT", "Right"))
NODULE = Segment(
    3,
    "Nodule",
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    Code("27925004", "SCT", "Nodule"),
    (250, 220, 60),
)
VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
MILLILITRE = Code("mL", "UCUM", "mL")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")


SEG_AND_SR = ResultProfile(objects=("SEG", "SR"))


def analysis_of(findings: Findings, image: Image, headers: Sequence[Dataset], **more: object) -> Analysis:
    """What is encoded, as SEG and SR unless a profile says otherwise."""
    return Analysis(findings, image, headers, **{"profile": SEG_AND_SR, **more})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Example:
    """An image, the headers it came from, and something found in it."""

    image: Image
    headers: list[Dataset]
    findings: Findings


def findings(**found: object) -> Findings:
    """Findings of a made-up model."""
    model = ModelIdentity("ct-lung", "0.1.0", "ab" * 32, "1", "Apache-2.0", "Research use only: outlines the lungs.")
    engine = EngineIdentity("openvino 2026.4.1", "fp32", "CPU")
    return Findings(model, engine, datetime(2026, 3, 4, 5, 6, 7, 890123), **found)  # type: ignore[arg-type]


def lung_findings(labels: NDArray[np.uint8], image: Image, **more: object) -> Findings:
    """A label map of left and right lung, with their volumes and mean values in a volume."""
    measurements = []
    for segment in (LEFT_LUNG, RIGHT_LUNG):
        inside = labels == segment.number
        if isinstance(image, Volume) and inside.any():
            millilitres = float(inside.sum() * np.prod(image.spacing) / 1000)
            measurements.append(Measurement(segment.number, VOLUME, millilitres, MILLILITRE))
            hounsfield = float(image.array[inside].mean())
            measurements.append(Measurement(segment.number, ATTENUATION, hounsfield, HOUNSFIELD, MEAN))
    label_map = LabelMap(labels, (LEFT_LUNG, RIGHT_LUNG))
    return findings(label_map=label_map, measurements=tuple(measurements), **more)


def pneumonia_findings() -> Findings:
    """Three classes of an X-ray."""
    classes = (
        ClassProbability("Normal", Code("17621005", "SCT", "Normal"), 0.0625),
        ClassProbability("Pneumonia", Code("233604007", "SCT", "Pneumonia"), 0.8125),
        ClassProbability("Viral pneumonia", Code("75570004", "SCT", "Viral pneumonia"), 0.125),
    )
    return findings(classification=Classification(classes))


def read_ct(folder: Path) -> tuple[Volume, list[Dataset]]:
    """A CT series, ordered along its normal (which must not be oblique)."""
    slices = sorted(map(pydicom.dcmread, folder.glob("*.dcm")), key=lambda header: header.ImagePositionPatient[2])
    array = np.stack([apply_modality_lut(header.pixel_array, header) for header in slices]).astype(np.int16)
    for header in slices:
        del header.PixelData
    return volume_of(array, slices), slices


def volume_of(array: NDArray[np.int16], slices: Sequence[Dataset]) -> Volume:
    """The volume whose slices have these headers."""
    first, last = slices[0], slices[-1]
    start, end = np.array(first.ImagePositionPatient, float), np.array(last.ImagePositionPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = (end - start) / max(len(slices) - 1, 1)
    affine[:3, 1] = np.array(first.ImageOrientationPatient[3:], float) * float(first.PixelSpacing[0])
    affine[:3, 2] = np.array(first.ImageOrientationPatient[:3], float) * float(first.PixelSpacing[1])
    affine[:3, 3] = start
    return Volume(array, affine, tuple(header.SOPInstanceUID for header in slices))


def air_in_body(volume: Volume) -> NDArray[np.uint8]:
    """A crude label map: air in the middle of the body, left and right by the middle column (LPS axes assumed)."""
    _, rows, columns = volume.array.shape
    row, column = np.ogrid[:rows, :columns]
    inside = ((row - rows / 2) / (rows * 0.3)) ** 2 + ((column - columns / 2) / (columns * 0.38)) ** 2 < 1
    sides = np.where(column > columns / 2, LEFT_LUNG.number, RIGHT_LUNG.number)
    return np.where((volume.array < -500) & inside, sides, 0).astype(np.uint8)


def nodule_in(volume: Volume, boxes: Dataset) -> NDArray[np.bool_]:
    """The voxels of a nodule: the largest piece of soft tissue in the boxes that a report draws on its slices.

    Of each box the ellipse in it: the corners reach into the mediastinum.
    """
    rows, columns = (np.arange(size)[:, None] for size in volume.array.shape[1:])
    columns = columns.T
    inside = np.zeros(volume.array.shape, bool)
    for group in boxes.ContentSequence[-1].ContentSequence:
        for region in (item for item in group.ContentSequence if item.ValueType == "SCOORD"):
            corners = np.array(region.GraphicData).reshape(-1, 2)
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            away = ((2 * rows - top - bottom) / (bottom - top)) ** 2 + (
                (2 * columns - left - right) / (right - left)
            ) ** 2
            source = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            inside[volume.sources.index(source)] |= away <= 1
    tissue = SimpleITK.GetImageFromArray((inside & (volume.array > -400)).astype(np.uint8))
    by_size = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(tissue))
    return np.asarray(SimpleITK.GetArrayFromImage(by_size) == 1)


def small_ct(shape: tuple[int, int, int] = (5, 13, 11), oblique: bool = False) -> tuple[Volume, list[Dataset]]:
    """A made-up series; ``oblique`` tilts it about two axes."""
    orientation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    if oblique:
        orientation = [0.96, 0.28, 0.0, -0.168, 0.576, 0.8]
    normal = np.cross(orientation[:3], orientation[3:])
    slices = []
    for number in range(shape[0]):
        header = Dataset()
        header.SOPClassUID = CTImageStorage
        header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
        header.SOPInstanceUID, header.FrameOfReferenceUID = f"1.2.3.4.5.{number + 1}", "1.2.3.4.6"
        header.Modality, header.PatientID, header.PatientName = "CT", "P1", "Doe^Jane"
        header.PatientBirthDate, header.PatientSex, header.StudyDate, header.StudyTime = (
            "19700101",
            "F",
            "20260101",
            "1200",
        )
        header.AccessionNumber, header.StudyID, header.ReferringPhysicianName = "A1", "S1", ""
        header.Rows, header.Columns, header.PixelSpacing = shape[1], shape[2], [0.8, 0.7]
        header.ImageOrientationPatient = orientation
        header.ImagePositionPatient = [round(float(value), 6) for value in normal * number * 2.5 + (-30, 12.5, 7)]
        slices.append(header)
    values = np.random.default_rng(0).integers(-1000, 500, shape).astype(np.int16)
    return volume_of(values, slices), slices


def small_labels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Left and right lung at random, with the first slice free of both and the second free of the right one."""
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    labels[0] = 0
    labels[1] %= 2
    return labels


def small_ct_example(**options: object) -> Example:
    """A made-up series with random labels."""
    volume, headers = small_ct(**options)  # type: ignore[arg-type]
    return Example(volume, headers, lung_findings(small_labels(volume.array.shape), volume))


def read_radiograph(path: Path) -> tuple[Radiograph, list[Dataset]]:
    """A stored X-ray, black: what is encoded does not depend on its values."""
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    spacing = header.get("ImagerPixelSpacing") or header.get("PixelSpacing") or [0, 0]
    known = (float(spacing[0]), float(spacing[1])) if all(float(value) > 0.01 for value in spacing) else None
    return Radiograph(np.zeros((header.Rows, header.Columns), np.float32), known, header.SOPInstanceUID), [header]


def small_radiograph(
    shape: tuple[int, int] = (9, 7), spacing: tuple[float, float] | None = (0.2, 0.1)
) -> tuple[Radiograph, list[Dataset]]:
    """A made-up X-ray."""
    _, [header, *_] = small_ct((1, *shape))
    header.SOPClassUID, header.Modality = ComputedRadiographyImageStorage, "CR"
    for keyword in ("FrameOfReferenceUID", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        del header[keyword]
    if spacing:
        header.ImagerPixelSpacing = list(spacing)
    values = np.random.default_rng(2).random(shape, np.float32)
    return Radiograph(values, spacing, header.SOPInstanceUID), [header]


def two_fields(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A label map of two ellipses, about where the lung fields of an X-ray are."""
    rows, columns = shape
    row, column = np.ogrid[:rows, :columns]
    labels = np.zeros(shape, np.uint8)
    for number, centre in ((RIGHT_LUNG.number, 0.3), (LEFT_LUNG.number, 0.7)):
        inside = ((row / rows - 0.45) / 0.3) ** 2 + ((column / columns - centre) / 0.15) ** 2 < 1
        labels[inside] = number
    return labels
