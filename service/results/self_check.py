"""The last look at results before they leave: what lies on disk against the source series and the findings.

No validator compares a result with its source (all known ones pass a foreign frame of reference, a wrong study, a
dangling reference). This does, from the decoded files and the source headers, and says which of the two is off.
"""

from collections.abc import Iterator, Mapping, Sequence

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.valuerep import TM

from service.errors import Quarantined, WetreadError, told_by_place
from service.results.analysis import Analysis
from service.results.attributes import COPIED
from service.results.checks.mismatch import require
from service.results.kinds import KINDS, wanted
from service.results.profile import Kind
from service.results.stamp import moment_of, series_description, series_number, software_versions
from service.results.storage import storage
from service.results.uids import MANUFACTURER
from service.types import ResultObject

BULK = {Tag("PerFrameFunctionalGroupsSequence"), Tag("PixelData")}
"""What is large, and is decoded bit by bit in the check of its kind."""
MODALITIES: Mapping[Kind, str] = {
    **{"SEG": "SEG", "HEATMAP-SEG": "SEG", "SC": "OT", "HEATMAP": "OT", "PDF": "DOC"},
    **{"RTSTRUCT": "RTSTRUCT", "GSPS": "PR", "KO": "KO", "SR": "SR"},
}
"""Modality (0008,0060) of each kind (PS3.3 C.7.3.1.1.1)."""
CONTENT_MADE: Mapping[Kind, str] = {"RTSTRUCT": "StructureSet", "GSPS": "PresentationCreation"}
"""What the date and time of the content are called in IODs that have their own words for them."""
DEFERRED = 1 << 20
"""Elements of so many bytes stay in the file until someone asks for them."""


def self_check(objects: Sequence[ResultObject], analysis: Analysis) -> None:
    """Read the written objects again and compare them with what they were made from.

    Parameters
    ----------
    objects
        As from `service.results.encode.encode`.

    Raises
    ------
    Quarantined
        An object is not what it must be; the message names what differs, never a patient's data.
    """
    kinds = wanted(analysis)
    found = list(dict.fromkeys(entry.kind for entry in objects))
    require(found == list(kinds), "result", f"the objects are not {', '.join(kinds)}")
    uids = [entry.sop_instance_uid for entry in objects]
    require(len(set(uids)) == len(uids), "result", "two objects have one SOP Instance UID")
    for number, kind in enumerate(kinds):
        before = [entry for entry in objects if entry.kind in kinds[:number]]
        own = [entry for entry in objects if entry.kind == kind]
        try:
            KINDS[kind].check(_identified(own, kind, analysis), analysis, before)
        except (WetreadError, OSError, MemoryError):
            raise
        # the checks read attributes that a sound object has, and calculate with sound values
        except Exception as error:
            raise Quarantined(
                f"self-check of the {kind}: an attribute is missing or malformed ({told_by_place(error)}); "
                "nothing is sent, run the series again or report it"
            ) from error


def _identified(own: Sequence[ResultObject], kind: Kind, analysis: Analysis) -> Iterator[Dataset]:
    """The objects of a kind, each read and known to be what it must be."""
    for number, entry in enumerate(own, start=1):
        dataset = _read(entry)
        _check_identity(dataset, entry, kind, number, analysis)
        yield dataset


def _read(entry: ResultObject) -> Dataset:
    try:
        dataset = pydicom.dcmread(entry.path, defer_size=DEFERRED)
        # decodes every element now, so that whatever is wrong with one shows here
        for tag in dataset.keys() - BULK:
            element = dataset[tag]
            for item in element.value if element.VR == "SQ" else ():
                for nested in item.iterall():
                    _ = nested.value
    except (InvalidDicomError, OSError, ValueError, EOFError, KeyError) as error:
        raise Quarantined(
            f"self-check of the {entry.kind}: the file cannot be read ({type(error).__name__})"
        ) from error
    return dataset


def _check_identity(dataset: Dataset, entry: ResultObject, kind: Kind, number: int, analysis: Analysis) -> None:
    """It is filed in the study and under the patient of its source, and says what it is. The rest is the kind's own.

    Parameters
    ----------
    number
        Which of its kind it is.
    """
    source, model, moment, uids = analysis.source, analysis.findings.model, moment_of(analysis), analysis.uids
    own_series = kind == "SEG"  # of each SEG
    sop_class, transfer_syntax = storage(kind, analysis.profile)
    expected = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uids.instance(kind, number),
        "SeriesInstanceUID": uids.series(kind, number if own_series else 1),
        "InstanceNumber": 1 if own_series else number,
        "Modality": MODALITIES[kind],
        "StudyInstanceUID": source.first.StudyInstanceUID,
        "SpecificCharacterSet": source.attributes.get("SpecificCharacterSet"),
        "SeriesDescription": series_description(analysis, kind),
        "SeriesNumber": series_number(analysis.findings, kind),
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": model.name,
        "DeviceSerialNumber": model.digest[:64],
        "SoftwareVersions": software_versions(analysis.findings),
    }
    for prefix in ("InstanceCreation", "Series", CONTENT_MADE.get(kind, "Content")):
        expected |= {f"{prefix}Date": f"{moment:%Y%m%d}", f"{prefix}Time": str(TM(moment.time()))}
    for keyword, value in expected.items():
        require(dataset.get(keyword) == value, kind, f"{keyword} is not the expected one")
    for keyword in COPIED:
        same = (dataset.get(keyword) or None) == (source.attributes.get(keyword) or None)
        require(same, kind, f"{keyword} is not that of the source")
    meta = dataset.file_meta
    require(meta.TransferSyntaxUID == transfer_syntax, kind, "the transfer syntax is not the expected one")
    require(
        meta.MediaStorageSOPInstanceUID == entry.sop_instance_uid == dataset.SOPInstanceUID,
        kind,
        "the file and its data set differ in the SOP instance",
    )
    require(
        meta.MediaStorageSOPClassUID == entry.sop_class_uid == dataset.SOPClassUID,
        kind,
        "the file and its data set differ in the SOP class",
    )
    require(dataset.SeriesInstanceUID == entry.series_uid, kind, "SeriesInstanceUID is not the expected one")
