"""Does an SR say what has no place in an image: what is absent, and what nothing speaks for?"""

from collections.abc import Iterator, Sequence

from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.mismatch import require
from service.results.checks.report_groups import FINDING, LATERALITY, TRACKING_UID, concept, stated_value
from service.results.writers.regions import class_regions
from service.results.writers.report_groups import CERTAINTY_OF_FINDING, PERCENT, percent, places

ABSENT = "272519000"

Statement = tuple[object, ...]


def check_evaluations(items: Sequence[Dataset], analysis: Analysis) -> None:
    """Compare the decoded statements, without the remarks, with what was found."""
    stated = [_stated(item) for item in items if item.ValueType in ("CODE", "NUM")]
    require(stated == list(_expected(analysis)), "SR", "it states that other findings are absent, or other certainties")


def _expected(analysis: Analysis) -> Iterator[Statement]:
    for segment, place in places(analysis):
        if place is None:
            side = segment.laterality.value if segment.laterality else None
            yield analysis.uids.tracking(segment.label), segment.type.value, ABSENT, side
    detections = analysis.findings.detections
    for label, code in detections.absent if detections else ():
        yield analysis.uids.tracking(label), code.value, ABSENT, None
    for entry, region in class_regions(analysis):
        if region is None:
            certainty = (CERTAINTY_OF_FINDING, percent(entry), PERCENT, None)
            yield analysis.uids.tracking(entry.label), entry.code.value, certainty


def _stated(item: Dataset) -> Statement:
    below = {concept(child): child for child in item.ContentSequence}
    tracking_uid = below[TRACKING_UID].UID
    if item.ValueType == "NUM":
        return tracking_uid, below[FINDING].ConceptCodeSequence[0].CodeValue, stated_value(item)
    side = below[LATERALITY].ConceptCodeSequence[0].CodeValue if LATERALITY in below else None
    return tracking_uid, concept(item), item.ConceptCodeSequence[0].CodeValue, side
