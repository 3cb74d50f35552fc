"""Does this SR say what was found, about the images it was found in?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from engines.types import Code, Findings
from service.results.analysis import Analysis
from service.results.checks.mismatch import require
from service.results.groups import CERTAINTY_OF_FINDING, PERCENT, measured, percent, reported_value
from service.results.predecessors import Predecessor
from service.results.report import remarks
from service.results.source import Source
from service.results.uids import ResultUIDs
from service.types import ResultObject

FINDING, TRACKING_UID = "121071", "112040"
MEASUREMENT_GROUP, COMMENT = "125007", "121106"

Value = tuple[str, float, str, str]
"""Concept, number, unit and the unit's coding scheme of one measurement."""


@dataclass(frozen=True)
class ExpectedGroup:
    """What one measurement group must say; ``segment_number`` is None where it refers to no segment."""

    name: str
    tracking_uid: str
    finding: Code
    values: tuple[Value, ...]
    segment_number: int | None


def check_report(datasets: Sequence[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare a decoded TID 1500 report with findings and source (`service.results.kinds.Check`)."""
    _require(len(datasets) == 1, "there is not one report")
    [dataset] = datasets
    findings, source, uids = analysis.findings, analysis.source, analysis.uids
    _require(dataset.SOPClassUID == Comprehensive3DSRStorage, "SOPClassUID is not the expected one")
    _require(dataset.SOPInstanceUID == uids.instance("SR"), "SOPInstanceUID is not the expected one")
    _require(dataset.SeriesInstanceUID == uids.series("SR"), "SeriesInstanceUID is not the expected one")
    _require(dataset.Modality == "SR", "Modality is not SR")
    _require(dataset.get("ValueType") == "CONTAINER", "the root is not a container")
    template = (dataset.get("ContentTemplateSequence") or [Dataset()])[0].get("TemplateIdentifier")
    _require(template == "1500", "the root template is not TID 1500")
    items = list(_items(dataset))
    _check_references(dataset, items, source, uids)
    _check_predecessors(dataset, source, analysis.predecessors)
    comments = [item.TextValue for item in items if _concept(item) == COMMENT]
    _require(
        comments == list(remarks(analysis)),
        "the remarks (research use, earlier reports, input quality) are not the expected ones",
    )
    groups = [item for item in items if _concept(item) == MEASUREMENT_GROUP]
    expected = _expected_groups(findings, uids)
    _require(len(groups) == len(expected), f"there are {len(groups)} measurement groups instead of {len(expected)}")
    by_tracking_uid = {_only(group, TRACKING_UID).get("UID"): group for group in groups}
    for entry in expected:
        group = by_tracking_uid.get(entry.tracking_uid)
        _check_group(Dataset() if group is None else group, entry, uids)


def _require(holds: bool, difference: str) -> None:
    require(holds, "SR", difference)


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or []:
        yield child
        yield from _items(child)


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence") or [Dataset()]
    return str(names[0].get("CodeValue"))


def _only(group: Dataset, concept: str) -> Dataset:
    found = [item for item in group.get("ContentSequence") or [] if _concept(item) == concept]
    return found[0] if len(found) == 1 else Dataset()


def _expected_groups(findings: Findings, uids: ResultUIDs) -> list[ExpectedGroup]:
    expected = []
    if findings.label_map:
        present = findings.label_map.present
        for segment in findings.label_map.segments:
            values = tuple(
                (entry.concept.value, reported_value(entry.value), entry.unit.value, "UCUM")
                for entry in measured(findings, segment)
            )
            number = present.index(segment) + 1 if segment in present else None
            expected.append(ExpectedGroup(segment.label, uids.tracking(segment.label), segment.type, values, number))
    if findings.classification:
        for entry in findings.classification.classes:
            certainty = (CERTAINTY_OF_FINDING.value, percent(entry), PERCENT.value, PERCENT.scheme)
            expected.append(ExpectedGroup(entry.label, uids.tracking(entry.label), entry.code, (certainty,), None))
    return expected


def _check_group(group: Dataset, expected: ExpectedGroup, uids: ResultUIDs) -> None:
    name = f"the group of {expected.name}"
    _require("ContentSequence" in group, f"{name} is missing, or its tracking UID is another")
    finding = (_only(group, FINDING).get("ConceptCodeSequence") or [Dataset()])[0]
    _require(
        (finding.get("CodeValue"), finding.get("CodingSchemeDesignator"))
        == (expected.finding.value, expected.finding.scheme),
        f"{name} states another finding",
    )
    values = [_value(item) for item in group.ContentSequence if item.ValueType == "NUM"]
    _require(values == list(expected.values), f"{name} states other values or units than were measured")
    references = [
        (
            reference.ReferencedSOPInstanceUID,
            int(reference.get("ReferencedSegmentNumber") or reference.ReferencedFrameNumber),
        )
        for item in group.ContentSequence
        if item.ValueType == "IMAGE"
        for reference in item.ReferencedSOPSequence
        if reference.ReferencedSOPClassUID == SegmentationStorage
    ]
    # an X-ray's segment is referred to by its only frame, which has the same number
    number = expected.segment_number
    _require(references == ([(uids.instance("SEG"), number)] if number else []), f"{name} refers to another segment")


def _value(item: Dataset) -> Value:
    measured_value = (item.get("MeasuredValueSequence") or [Dataset()])[0]
    unit = (measured_value.get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
    return (
        _concept(item),
        float(measured_value.get("NumericValue", "nan")),
        unit.get("CodeValue", ""),
        unit.get("CodingSchemeDesignator", ""),
    )


def _check_references(dataset: Dataset, items: Sequence[Dataset], source: Source, uids: ResultUIDs) -> None:
    """Every referenced instance exists, is of its class, and is listed as evidence of the same study."""
    known = {header.SOPInstanceUID: header.SOPClassUID for header in source.headers}
    known[uids.instance("SEG")] = SegmentationStorage
    referenced = {}
    for item in items:
        for reference in item.get("ReferencedSOPSequence") or []:
            uid = reference.ReferencedSOPInstanceUID
            _require(known.get(uid) == reference.ReferencedSOPClassUID, "it refers to an object that does not exist")
            referenced[uid] = reference.ReferencedSOPClassUID
        if item.ValueType == "UIDREF" and _concept(item) == "121232":
            _require(source.first.SeriesInstanceUID == item.UID, "it refers to another source series")
    evidence = {}
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
        _require(study.StudyInstanceUID == source.first.StudyInstanceUID, "its evidence is of another study")
        for series in study.ReferencedSeriesSequence:
            for instance in series.ReferencedSOPSequence:
                place = (
                    uids.series("SEG")
                    if instance.ReferencedSOPClassUID == SegmentationStorage
                    else source.first.SeriesInstanceUID
                )
                _require(series.SeriesInstanceUID == place, "its evidence is of another series")
                evidence[instance.ReferencedSOPInstanceUID] = instance.ReferencedSOPClassUID
    _require(evidence == referenced, "its evidence is not what it refers to")


def _check_predecessors(dataset: Dataset, source: Source, predecessors: Sequence[Predecessor]) -> None:
    named = [
        (study.StudyInstanceUID, series.SeriesInstanceUID, document.ReferencedSOPClassUID, uid)
        for study in dataset.get("PredecessorDocumentsSequence") or []
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
        for uid in [document.ReferencedSOPInstanceUID]
    ]
    study_uid = source.first.StudyInstanceUID
    expected = [
        (study_uid, earlier.series_uid, earlier.sop_class_uid, earlier.sop_instance_uid) for earlier in predecessors
    ]
    _require(sorted(named) == sorted(expected), "it names other predecessors than the reports that it supersedes")
    _require(dataset.SOPInstanceUID not in {uid for *_, uid in named}, "it names itself as its predecessor")
