"""CT series made by rule, with a lesion whose every voxel's place in the patient is known without reading a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

AIR, LESION = -1000, 40
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Scan:
    """A stack of slices, and a ball in it that is all of the tissue there is.

    Attributes
    ----------
    orientation
        ImageOrientationPatient.
    places
        Position of each slice along the normal in mm.
    tilt_degrees
        Slices are shifted along their columns by the tangent of it, as with a tilted gantry.
    centre, radius
        Of the ball: centre as a fraction of rows and columns and as a place in mm, radius in mm.
    attributes
        Put into every header.
    """

    places: Sequence[float]
    orientation: Sequence[float] = AXIAL
    shape: tuple[int, int] = (24, 20)
    spacing: tuple[float, float] = (1.5, 1.5)
    tilt_degrees: float = 0.0
    origin: tuple[float, float, float] = (-20.0, 35.0, -410.0)
    centre: tuple[float, float, float] = (0.5, 0.5, 0.5)
    radius: float = 9.0
    attributes: dict[str, object] = field(default_factory=dict)

    def slice_origin(self, index: int) -> NDArray[np.float64]:
        """Centre of the first pixel of a slice, LPS mm, as its header can say it."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        along = self.places[index]
        place = np.array(self.origin) + np.cross(row, column) * along
        place = place + column * along * np.tan(np.radians(self.tilt_degrees))
        return np.array([float(format_number_as_ds(float(value))) for value in place])

    def voxels(self, index: int) -> NDArray[np.float64]:
        """Centres of all pixels of a slice, ``[row, column, 3]``, LPS mm."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        down = rows[..., None] * self.spacing[0] * column
        across = columns[..., None] * self.spacing[1] * row
        voxels: NDArray[np.float64] = self.slice_origin(index) + down + across
        return voxels

    def lesion(self, index: int) -> NDArray[np.bool_]:
        """The pixels of a slice that lie in the ball."""
        middle = int(self.centre[0] * (len(self.places) - 1))
        at = self.voxels(middle)[int(self.centre[1] * self.shape[0]), int(self.centre[2] * self.shape[1])]
        inside: NDArray[np.bool_] = np.linalg.norm(self.voxels(index) - at, axis=-1) <= self.radius
        return inside

    def lesion_points(self) -> NDArray[np.float64]:
        """Centres of all voxels of the ball, ``[voxel, 3]``, LPS mm."""
        return np.concatenate([self.voxels(index)[self.lesion(index)] for index in range(len(self.places))])

    def stored(self, index: int) -> NDArray[np.uint16]:
        """Stored values of a slice (rescale intercept -1024)."""
        return (np.where(self.lesion(index), LESION, AIR) + 1024).astype(np.uint16)

    def header(self, study: str, series: str) -> Dataset:
        """What all images of it have in common."""
        header = Dataset()
        header.SpecificCharacterSet = "ISO_IR 100"
        header.StudyInstanceUID, header.SeriesInstanceUID = study, series
        header.FrameOfReferenceUID = f"{study[:60]}.1"
        header.Modality, header.PatientID, header.PatientName = "CT", "SYNTHETIC", "SYNTHETIC^SCAN"
        header.PatientBirthDate, header.PatientSex = "", ""
        header.StudyDate, header.StudyTime, header.StudyID = "20260101", "120000", "1"
        header.AccessionNumber, header.ReferringPhysicianName, header.PositionReferenceIndicator = "", "", ""
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.Rows, header.Columns = self.shape
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
        for keyword, value in self.attributes.items():
            setattr(header, keyword, value)
        return header


def write_scan(
    scan: Scan, folder: Path, numbers: Sequence[int] | None = None, series: str = "", study: str = ""
) -> list[Path]:
    """Write one file for each slice, numbered in the order of the places or as told."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = series or generate_uid(), study or generate_uid()
    files = []
    for index in range(len(scan.places)):
        header = scan.header(study, series)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
        header.InstanceNumber = index + 1 if numbers is None else numbers[index]
        header.ImagePositionPatient = decimal(scan.slice_origin(index))
        header.ImageOrientationPatient = decimal(scan.orientation)
        header.PixelSpacing = decimal(scan.spacing)
        header.RescaleSlope, header.RescaleIntercept = "1", "-1024"
        header.PixelData = scan.stored(index).tobytes()
        path = folder / f"{header.SOPInstanceUID}.dcm"
        save(header, path)
        files.append(path)
    return files


def write_enhanced(scans: Sequence[Scan], path: Path, order: Sequence[int] | None = None) -> Path:
    """Write one Enhanced CT that holds all scans (of one shape) as stacks, its frames in some order."""
    frames = [(number, scan, index) for number, scan in enumerate(scans, 1) for index in range(len(scan.places))]
    frames = [frames[place] for place in (order if order is not None else range(len(frames)))]
    series = generate_uid()
    header = scans[0].header(generate_uid(), series)
    header.SOPClassUID, header.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    header.InstanceNumber, header.NumberOfFrames = 1, len(frames)
    transform = Dataset()
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = "1", "-1024", "HU"
    shared = Dataset()
    shared.PixelValueTransformationSequence = [transform]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [_groups(number, scan, index) for number, scan, index in frames]
    header.PixelData = b"".join(scan.stored(index).tobytes() for _, scan, index in frames)
    save(header, path)
    return path


def _groups(stack: int, scan: Scan, index: int) -> Dataset:
    groups, content, position, orientation, measures = (Dataset() for _ in range(5))
    content.StackID, content.InStackPositionNumber = str(stack), index + 1
    position.ImagePositionPatient = decimal(scan.slice_origin(index))
    orientation.ImageOrientationPatient = decimal(scan.orientation)
    measures.PixelSpacing, measures.SliceThickness = decimal(scan.spacing), "1"
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [measures]
    return groups


def decimal(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """As decimal strings of at most 16 characters."""
    return [format_number_as_ds(float(value)) for value in values]


def save(header: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Write a data set as a file."""
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, header, enforce_file_format=True)
