"""What the node reads of an instance's header, once, while the pixels stay where they are."""

import io
from dataclasses import dataclass

import pydicom
from pydicom import Dataset

from service.errors import Quarantined
from service.received import Received

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "InstanceNumber", "AcquisitionNumber", "ImagesInAcquisition", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip


@dataclass(frozen=True)
class HeaderFacts:
    """Which study, series and instance it is, and what tells whether its series is whole.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, study_uid, series_uid
        Never empty.
    modality
        May be empty.
    instance_number, acquisition_number, images_in_acquisition
        None where absent or not a number.
    position, orientation
        ImagePositionPatient in LPS mm and ImageOrientationPatient; None where absent, malformed, or per frame.
    frames
        1 for a single-frame image.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str
    instance_number: int | None = None
    acquisition_number: int | None = None
    images_in_acquisition: int | None = None
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    frames: int = 1


def read_facts(received: Received) -> HeaderFacts:
    """Read them from a whole DICOM file.

    Raises
    ------
    Quarantined
        The header cannot be read, or a UID is missing or empty.
    """
    try:
        header = pydicom.dcmread(io.BytesIO(received.head), stop_before_pixels=True, specific_tags=_TAGS)
        facts = HeaderFacts(
            sop_class_uid=str(header.get("SOPClassUID") or ""),
            sop_instance_uid=str(header.get("SOPInstanceUID") or ""),
            study_uid=str(header.get("StudyInstanceUID") or ""),
            series_uid=str(header.get("SeriesInstanceUID") or ""),
            modality=str(header.get("Modality") or ""),
            instance_number=_integer(header, "InstanceNumber"),
            acquisition_number=_integer(header, "AcquisitionNumber"),
            images_in_acquisition=_integer(header, "ImagesInAcquisition"),
            position=_numbers(header, "ImagePositionPatient", 3),
            orientation=_numbers(header, "ImageOrientationPatient", 6),
            frames=_integer(header, "NumberOfFrames") or 1,
        )
    except MemoryError:
        raise
    except Exception as error:  # a parser can fail in many ways on hostile bytes; the answer is always the same
        raise Quarantined(
            f"the header cannot be read ({type(error).__name__}); send the instance again from its source"
        ) from error
    named = {
        "SOPInstanceUID": facts.sop_instance_uid,
        "StudyInstanceUID": facts.study_uid,
        "SeriesInstanceUID": facts.series_uid,
    }
    if empty := [name for name, value in named.items() if not value]:
        raise Quarantined(
            f"{', '.join(empty)} missing or empty: a result could not be filed; repair the header and send it again"
        )
    return facts


def _integer(header: Dataset, name: str) -> int | None:
    """A number, or None: what cannot be read here is told where it is needed."""
    try:
        value = header.get(name)
        return None if value in (None, "") else int(value)
    except (TypeError, ValueError):
        return None


def _numbers(header: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(value) for value in header.get(name) or ())
    except (TypeError, ValueError):
        return None
    return values if len(values) == count else None
