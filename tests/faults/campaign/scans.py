"""The series that senders send: the same in each run, so that the same results must come of them."""

import hashlib
from dataclasses import dataclass
from functools import cache

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage

from tests.synthetic_ct import Scan, decimal

SERIES = 6
"""How many differ in what they show; there are as many series as anybody wants."""
SLICES = 16
_ROOT = "1.2.826.0.1.3680043.10.1999.8"
_SCAN = Scan(places=[2.0 * place for place in range(SLICES)], shape=(64, 64), attributes={"BodyPartExamined": "CHEST"})


@dataclass(frozen=True)
class Slice:
    """One image as it is sent: explicit VR little endian."""

    uid: str
    series_uid: str
    data_set: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the data set."""
        return hashlib.sha256(self.data_set).hexdigest()


@cache
def slices(series: int) -> tuple[Slice, ...]:
    """The images of a series, by its number."""
    study_uid, series_uid = f"{_ROOT}.{series}", f"{_ROOT}.{series}.1"
    scan = Scan(**{**vars(_SCAN), "radius": 9.0 + series % SERIES})
    found = []
    for index in range(SLICES):
        header = scan.header(study_uid, series_uid)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"{series_uid}.{index + 1}"
        header.PatientID = f"CAMPAIGN{series}"
        header.InstanceNumber = index + 1
        header.ImagePositionPatient = decimal(scan.slice_origin(index))
        header.ImageOrientationPatient = decimal(scan.orientation)
        header.PixelSpacing = decimal(scan.spacing)
        header.SliceThickness = "2"
        header.RescaleSlope, header.RescaleIntercept = "1", "-1024"
        header.PixelData = scan.stored(index).tobytes()
        header["PixelData"].VR = "OW"
        encoded = DicomBytesIO()
        encoded.is_little_endian, encoded.is_implicit_VR = True, False
        write_dataset(encoded, header)
        found.append(Slice(str(header.SOPInstanceUID), series_uid, encoded.getvalue()))
    return tuple(found)
