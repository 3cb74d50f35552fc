"""The few facts of an instance that are needed to store it."""

import io
from dataclasses import dataclass

import pydicom

from service.errors import Quarantined

_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"]


@dataclass(frozen=True)
class HeaderFacts:
    """Which study, series and instance it is. The UIDs are never empty; ``modality`` may be."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str


def read_facts(content: bytes) -> HeaderFacts:
    """Read them from a whole DICOM file.

    Raises
    ------
    Quarantined
        The header cannot be read, or a UID is missing or empty.
    """
    try:
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
        facts = HeaderFacts(
            sop_class_uid=str(header.get("SOPClassUID") or ""),
            sop_instance_uid=str(header.get("SOPInstanceUID") or ""),
            study_uid=str(header.get("StudyInstanceUID") or ""),
            series_uid=str(header.get("SeriesInstanceUID") or ""),
            modality=str(header.get("Modality") or ""),
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
