"""What a report says of findings that have no place in an image (TID 1500 of PS3.16, Qualitative Evaluations)."""

from highdicom import sr
from pydicom.sr.codedict import codes

from engines.types import ClassProbability, Code
from service.results.analysis import Analysis
from service.results.coding import coded
from service.results.writers.regions import class_regions
from service.results.writers.report_groups import CERTAINTY_OF_FINDING, PERCENT, percent, places

# an Enhanced SR lets a value have properties, but no observation context of its own (PS3.3 A.35.2.3)
PROPERTIES, MODIFIES = sr.RelationshipTypeValues.HAS_PROPERTIES, sr.RelationshipTypeValues.HAS_CONCEPT_MOD


def evaluations(analysis: Analysis) -> list[sr.CodeContentItem | sr.NumContentItem]:
    """What was looked for and is absent; the probability of a class that nothing in the image speaks for."""
    absent = [
        _absence(segment.label, segment.type, segment.laterality, analysis)
        for segment, place in places(analysis)
        if place is None
    ]
    detections = analysis.findings.detections
    absent += [_absence(label, code, None, analysis) for label, code in (detections.absent if detections else ())]
    return [*absent, *(_certainty(entry, analysis) for entry, region in class_regions(analysis) if region is None)]


def _absence(label: str, code: Code, side: Code | None, analysis: Analysis) -> sr.CodeContentItem:
    item = sr.CodeContentItem(coded(code), codes.cid240.Absent, sr.RelationshipTypeValues.CONTAINS)
    item.ContentSequence = sr.ContentSequence(_tracking(label, analysis))
    if side:
        item.ContentSequence.append(sr.CodeContentItem(codes.SCT.Laterality, coded(side), MODIFIES))
    return item


def _certainty(entry: ClassProbability, analysis: Analysis) -> sr.NumContentItem:
    contains = sr.RelationshipTypeValues.CONTAINS
    item = sr.NumContentItem(coded(CERTAINTY_OF_FINDING), percent(entry), coded(PERCENT), relationship_type=contains)
    item.ContentSequence = sr.ContentSequence(_tracking(entry.label, analysis))
    item.ContentSequence.append(sr.CodeContentItem(codes.DCM.Finding, coded(entry.code), MODIFIES))
    return item


def _tracking(label: str, analysis: Analysis) -> list[sr.ContentItem]:
    uids = analysis.uids
    return [
        sr.TextContentItem(codes.DCM.TrackingIdentifier, uids.tracking_identifier(label), PROPERTIES),
        sr.UIDRefContentItem(codes.DCM.TrackingUniqueIdentifier, uids.tracking(label), PROPERTIES),
    ]
