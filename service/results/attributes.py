"""Attributes of patient and study: what a result takes over from its source, unchanged or not at all."""

import struct
from typing import cast

import pydicom.config
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import DSfloat, validate_value

IDENTIFYING = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID")
"""What an archive files by. Copied even where too long or otherwise against its value representation."""

TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
)
"""Always present in a result, empty where the source has nothing to copy."""

OPTIONAL = (
    *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthTime"),
    *("OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyDescription", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence"),
    *("PatientAge", "PatientSize", "PatientWeight", "AdditionalPatientHistory", "PatientSexNeutered"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialTimePointID", "TimezoneOffsetFromUTC"),
)

COPIED = TYPE_2 + OPTIONAL
"""Attributes of the patient and study entities that a result takes from its source (PS3.3 C.7.1, C.7.2)."""


def copied_attributes(header: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """Take what can be copied of patient and study.

    Returns
    -------
    tuple[Dataset, tuple[str, ...]]
        The attributes byte for byte, with the character set that they are encoded in, and the keywords of those that
        were left out because they are unreadable, cannot be encoded, or are against their value representation.
    """
    copied, dropped = Dataset(), []
    if character_set := header.get("SpecificCharacterSet"):
        copied.SpecificCharacterSet = character_set
    for keyword in COPIED:
        if keyword in header:
            element = valid_element(header, keyword)
            if element is None:
                dropped.append(keyword)
            else:
                copied[element.tag] = element
    for keyword in TYPE_2:
        if keyword not in copied:
            setattr(copied, keyword, "")
    return copied, tuple(dropped)


def valid_element(header: Dataset, keyword: str) -> DataElement | RawDataElement | None:
    """An element as it was written, where that is known: encoding a text anew may give other bytes; None if invalid."""
    written = cast(DataElement | RawDataElement, header.get_item(keyword))
    alone = Dataset()
    try:
        if character_set := header.get("SpecificCharacterSet"):
            alone.SpecificCharacterSet = character_set
        alone[written.tag] = written
        element = alone[keyword]
        if keyword not in IDENTIFYING:
            _require_valid(element)
        if keyword == "PatientSex" and element.value not in ("M", "F", "O", ""):
            return None
        target = DicomBytesIO()
        target.is_little_endian, target.is_implicit_VR = True, False
        write_dataset(target, alone)
    # the header is foreign input: whatever its decoding or encoding raises, the attribute is unusable, and is named
    except (ValueError, TypeError, KeyError, OverflowError, NotImplementedError, struct.error):
        return None
    if element.VR == "SQ" or not isinstance(written, RawDataElement) or not written.value:
        return element
    value = written.value + b" " * (len(written.value) % 2)
    return RawDataElement(element.tag, element.VR, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)


def _require_valid(element: DataElement) -> None:
    """Raise ValueError unless the element, and all within it, is of the standard and of its value representation."""
    if not element.keyword:
        raise ValueError("not an element of the standard")
    if element.VR == "SQ":
        for item in element.value:
            if not len(item):
                raise ValueError("an item is empty")
            for nested in item:
                _require_valid(nested)
        return
    if element.is_empty:
        return
    for value in element.value if element.VM > 1 else [element.value]:
        original = value.original_string if isinstance(value, DSfloat) else value
        validate_value(element.VR, str(original), pydicom.config.RAISE)
