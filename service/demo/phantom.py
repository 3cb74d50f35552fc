"""The phantom's images: a CT series and a chest X-ray of the same painted body, written as DICOM files.

Both are synthetic. They exist so that the node can be tried with no patient data, and carry the name
``PHANTOM^CHEST``.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from service.demo.body import Body, paint_body
from service.demo.canvas import Array, Grid

CT_SHAPE, CT_SPACING = (120, 256, 256), (2.5, 1.5, 1.5)
XRAY_SIZE, XRAY_FIELD_MM = 1024, 340.0
WATER_ATTENUATION = 0.0192
"""Linear attenuation of water in 1/mm at 70 keV, about the effective energy of a 120 kV beam (NIST XCOM)."""


def write_chest_ct(folder: Path, *, study_uid: str | None = None, seed: int = 1) -> Path:
    """Write a chest CT of 120 axial slices of 256 × 256 pixels, 2.5 × 1.5 × 1.5 mm.

    Parameters
    ----------
    folder
        Where the files go; made if it does not exist.
    study_uid
        Study Instance UID to join; a fresh one by default. Series and instance UIDs are always fresh, so a second
        call makes another series.
    seed
        Chooses the branching of the vessels and the noise; the same seed gives the same pixels.

    Returns
    -------
    Path
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body = paint_body(Grid.centred(CT_SHAPE, CT_SPACING), seed)
    stored = np.round(_scan(body, np.random.default_rng(seed))).astype(np.int16)
    common = _common("CT", CTImageStorage, study_uid)
    frame_of_reference = generate_uid()
    for plane, z in enumerate(body.grid.z):
        instance = _ct_slice(common, stored[plane], body.grid, float(z))
        instance.InstanceNumber = plane + 1
        instance.FrameOfReferenceUID = frame_of_reference
        _save(instance, folder / f"ct{plane + 1:04d}.dcm")
    return folder


def write_chest_xray(folder: Path, *, study_uid: str | None = None, seed: int = 1) -> Path:
    """Write a frontal chest X-ray (PA, DX for presentation, MONOCHROME2, 12 bits) of 1024 × 1024 pixels.

    The image is the Beer–Lambert projection of the body that `write_chest_ct` scans, with quantum noise, after
    logarithm and compression of the dynamic range. The patient's left is on the right of the image.
    Parameters and return value are those of `write_chest_ct`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grid = Grid.centred((256, 86, 256), (XRAY_FIELD_MM / 256, 3.0, XRAY_FIELD_MM / 256), bottom=-22.0)
    pixels = _project(paint_body(grid, seed), np.random.default_rng(seed))
    instance = _xray(_common("DX", DigitalXRayImageStorageForPresentation, study_uid), pixels)
    _save(instance, folder / "dx0001.dcm")
    return folder


def _scan(body: Body, rng: np.random.Generator) -> Array:
    """The body on its table as a scanner sees it, with noise that is correlated within a slice."""
    hu = body.hu
    y, x = body.grid.y[:, None], body.grid.x[None, :]
    depth = y - (119 - x * x / 1100)
    shell = np.clip(2 - np.minimum(np.abs(depth - 1), np.abs(depth - 25)), 0, 1) * (np.abs(x) < 185)
    foam = np.clip(np.minimum(depth, 26 - depth), 0, 1) * (np.abs(x) < 185)
    hu = np.where(hu < -950, -1000 + 60 * foam + 700 * shell, hu)
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = white + 0.6 * (np.roll(white, 1, axis=1) + np.roll(white, 1, axis=2)) - 0.3 * np.roll(white, 2, axis=2)
    inside = np.clip(1 - (x / 190) ** 2 - (y / 140) ** 2, 0, 1)
    hu = hu + noise * (6 + 10 * inside).astype(np.float32)
    return np.asarray(np.clip(hu, -1024, 3071), dtype=np.float32)


def _project(body: Body, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Radiograph ``[row, column]`` of the body, 12 bits, bone white, rows from head to foot."""
    # Bone absorbs more than its Hounsfield units say, because the photoelectric effect rises with calcium.
    relative = 1 + body.hu / 1000 + np.maximum(body.hu - 100, 0) * 0.0002
    integral = (WATER_ATTENUATION * body.grid.spacing[1]) * relative.sum(axis=1, dtype=np.float32)
    path = _resize(np.ascontiguousarray(integral[::-1]), XRAY_SIZE)
    photons = rng.poisson(6e4 * np.exp(-np.maximum(path, 0))).astype(np.float32)
    path = np.log(np.float32(6e4)) - np.log(np.maximum(photons, 1))
    # Dynamic range compression: half of what varies slowly is taken away, detail stays.
    path = path - 0.5 * _resize(_resize(path, XRAY_SIZE // 100), XRAY_SIZE)
    low, high = np.percentile(path[path > 0.2], (0.5, 99.7))
    return np.asarray(np.round(np.clip((path - low) / (high - low), 0, 1) * 4095), dtype=np.uint16)


def _resize(image: Array, size: int) -> Array:
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _common(modality: str, sop_class: str, study_uid: str | None) -> Dataset:
    """Patient, study, series and equipment attributes that both images carry (PS3.3 C.7)."""
    now = datetime.now().astimezone()
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.Modality = modality
    dataset.PatientName = "PHANTOM^CHEST"
    dataset.PatientID = "WETREAD-PHANTOM"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = study_uid or generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    for level in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{level}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{level}Time", now.strftime("%H%M%S"))
    dataset.StudyDescription = "Synthetic chest phantom"
    dataset.Manufacturer = "Wetread phantom"
    dataset.ManufacturerModelName = "Chest phantom"
    dataset.BodyPartExamined = "CHEST"
    dataset.AcquisitionNumber = 1
    dataset.PositionReferenceIndicator = ""
    return dataset


def _ct_slice(common: Dataset, stored: NDArray[np.int16], grid: Grid, z: float) -> Dataset:
    """One CT Image (PS3.3 A.3)."""
    dataset = Dataset()
    dataset.update(common)
    _, row_spacing, column_spacing = grid.spacing
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesDescription = "Chest 2.5 mm"
    dataset.PatientPosition = "HFS"
    dataset.KVP = "120"
    dataset.SliceThickness = str(grid.spacing[0])
    dataset.ImagePositionPatient = [float(grid.x[0]), float(grid.y[0]), z]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [row_spacing, column_spacing]
    dataset.SliceLocation = z
    dataset.RescaleIntercept = "-1024"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter = "-500"
    dataset.WindowWidth = "1500"
    _set_pixels(dataset, (stored + 1024).astype(np.uint16), bits=12)
    return dataset


def _xray(common: Dataset, pixels: NDArray[np.uint16]) -> Dataset:
    """One DX image for presentation (PS3.3 A.26)."""
    dataset = Dataset()
    dataset.update(common)
    spacing = XRAY_FIELD_MM / XRAY_SIZE
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.SOPInstanceUID = generate_uid()
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Chest PA"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ViewPosition = "PA"
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.ImageLaterality = "U"
    dataset.PositionerType = ""
    dataset.PatientOrientation = ["L", "F"]
    dataset.PatientPosition = ""
    dataset.AnatomicRegionSequence = [_code("43799004", "SCT", "Thorax")]
    dataset.ViewCodeSequence = [_code("399348003", "SCT", "postero-anterior")]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.KVP = "120"
    dataset.DetectorType = "DIRECT"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.PixelSpacing = [spacing, spacing]
    dataset.PixelSpacingCalibrationType = "GEOMETRY"
    dataset.PixelSpacingCalibrationDescription = "Parallel projection, no magnification"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter = "2048"
    dataset.WindowWidth = "4096"
    _set_pixels(dataset, pixels, bits=12)
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _set_pixels(dataset: Dataset, pixels: NDArray[np.uint16], bits: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()


def _save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
