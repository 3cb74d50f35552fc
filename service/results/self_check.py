"""The last look at a result before it leaves: what lies on disk against the source series and the findings.

No validator compares a result with its source (all known ones pass a foreign frame of reference, a wrong study, a
dangling reference). This does, from the decoded file and the source headers, and says which of the two is off.
"""

from collections.abc import Sequence

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from engines.types import Findings, Image
from service.errors import Quarantined
from service.results.attributes import COPIED
from service.results.check_report import check_report
from service.results.check_segmentation import check_segmentation
from service.results.mismatch import require
from service.results.predecessors import Predecessor, version_of
from service.results.source import Source, read_source
from service.results.stamp import series_description
from service.results.uids import ResultUIDs
from service.types import ResultObject

SOP_CLASSES = {"SEG": SegmentationStorage, "SR": Comprehensive3DSRStorage}


def self_check(
    objects: Sequence[ResultObject],
    findings: Findings,
    image: Image,
    headers: Sequence[Dataset],
    revision: str = "",
    predecessors: Sequence[Predecessor] = (),
) -> None:
    """Read the written objects again and compare them with what they were made from.

    Parameters
    ----------
    objects
        As from `service.results.encode.encode`.
    findings, image, headers, revision, predecessors
        What they were made from.

    Raises
    ------
    Quarantined
        An object is not what it must be; the message names what differs, never a patient's data.
    """
    source = read_source(headers, image)
    uids = ResultUIDs.about(findings, image, source.first.SeriesInstanceUID, revision)
    has_segments = findings.label_map is not None and bool(findings.label_map.present)
    kinds = ["SEG", "SR"] if has_segments else ["SR"]
    require(sorted(entry.kind for entry in objects) == kinds, "result", f"the objects are not {' and '.join(kinds)}")
    for entry in objects:
        dataset = _read(entry)
        try:
            _check_identity(dataset, entry, source, uids)
            _check_description(dataset, entry.kind, findings, version_of(predecessors))
            if entry.kind == "SEG":
                check_segmentation(dataset, findings, image, source, uids)
            else:
                check_report(dataset, findings, image, source, uids, predecessors)
        # the checks read attributes that a sound object has
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise Quarantined(f"self-check of the {entry.kind}: an attribute is missing or malformed") from error


def _read(entry: ResultObject) -> Dataset:
    try:
        dataset = pydicom.dcmread(entry.path)
        # decodes every element now, so that whatever is wrong with one shows here
        for element in dataset.iterall():
            _ = element.value
    except (InvalidDicomError, OSError, ValueError, EOFError, KeyError) as error:
        raise Quarantined(
            f"self-check of the {entry.kind}: the file cannot be read ({type(error).__name__})"
        ) from error
    return dataset


def _check_identity(dataset: Dataset, entry: ResultObject, source: Source, uids: ResultUIDs) -> None:
    kind = entry.kind
    expected = {
        "SOPClassUID": SOP_CLASSES[kind],
        "SOPInstanceUID": uids.instance(kind),
        "SeriesInstanceUID": uids.series(kind),
        "StudyInstanceUID": source.first.StudyInstanceUID,
        "Modality": kind,
        "SpecificCharacterSet": source.attributes.get("SpecificCharacterSet"),
    }
    for keyword, value in expected.items():
        require(dataset.get(keyword) == value, kind, f"{keyword} is not the expected one")
    for keyword in COPIED:
        same = (dataset.get(keyword) or None) == (source.attributes.get(keyword) or None)
        require(same, kind, f"{keyword} is not that of the source")
    meta = dataset.file_meta
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


def _check_description(dataset: Dataset, kind: str, findings: Findings, version: int) -> None:
    expected = series_description(findings, kind, version)
    require(
        dataset.get("SeriesDescription") == expected,
        kind,
        "SeriesDescription does not say RESEARCH, the model, and which version this is",
    )
