"""Does each measurement group of an SR say what was found, and where?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from engines.types import Code, Measurement, Segment, Volume
from service.results.analysis import Analysis
from service.results.checks.coordinates import Drawn, follows, length
from service.results.checks.detections import lies_at
from service.results.checks.mismatch import require
from service.results.coding import is_structure
from service.results.detected import Detected
from service.results.source import Plane
from service.results.storage import LABEL_MAP
from service.results.writers.regions import Region, class_regions, detected_regions, drawn_on, frame, measured, on_image
from service.results.writers.report_groups import (
    CERTAINTY_OF_FINDING,
    NOTHING_FOUND,
    PERCENT,
    Place,
    detection_measurements,
    percent,
    places,
    reported_value,
)
from service.types import ResultObject

TRACKING_IDENTIFIER, TRACKING_UID = "112039", "112040"
FINDING, CATEGORY, SITE, LATERALITY, PRESENCE = "121071", "276214006", "363698007", "272741003", "121052"
CODES = (FINDING, CATEGORY, SITE, LATERALITY, PRESENCE)
ALGORITHM_NAME, ALGORITHM_VERSION, DERIVATION = "111001", "111003", "121401"
PRESENT = "52101004"
SAME_LENGTH = 1e-3
"""Of a diameter and the distance between its ends, relative to it; a value has six digits, a coordinate has seven."""


@dataclass(frozen=True, eq=False)
class ExpectedGroup:
    """What one group must say.

    Attributes
    ----------
    label
        Of the segment or class.
    codes
        Concept, value and scheme of its coded statements.
    measurements
        In order.
    reference
        SOP class and instance of a SEG, and the keyword and number of the segment or frame; None without one.
    outlined
        The voxels of one slice that its region must go around.
    boxes
        Where its regions must be, in order.
    detected
        What they must lie in.
    """

    label: str
    codes: frozenset[tuple[str, str, str]]
    measurements: tuple[Measurement, ...] = ()
    reference: tuple[str, str, str, int] | None = None
    outlined: tuple[int, NDArray[np.bool_]] | None = None
    boxes: tuple[Region, ...] = ()
    detected: Detected | None = None


def check_groups(groups: Sequence[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare the decoded measurement groups with what was found, in order."""
    expected = [*_of_segments(analysis, made), *_of_classes(analysis), *_of_detections(analysis)]
    expected = expected or [ExpectedGroup(NOTHING_FOUND, frozenset(), boxes=(frame(analysis),))]
    _require(len(groups) == len(expected), f"there are {len(groups)} measurement groups instead of {len(expected)}")
    for group, entry in zip(groups, expected, strict=True):
        _check_group(group, entry, analysis)


def _of_segments(analysis: Analysis, made: Sequence[ResultObject]) -> Iterator[ExpectedGroup]:
    for segment, place in places(analysis):
        if place is None:
            continue
        codes = frozenset(_codes(segment))
        whole = measured(analysis.findings, segment, along_a_line=False)
        reference = _reference(place, analysis, made)
        yield ExpectedGroup(segment.label, codes | {(PRESENCE, PRESENT, "SCT")}, whole, reference)
        lines = measured(analysis.findings, segment, along_a_line=True)
        index = drawn_on(place.label_map, segment, lines)
        outlined = (index, place.label_map.slices[index] == segment.number)
        yield ExpectedGroup(segment.label, codes, outlined=outlined)
        if lines:
            yield ExpectedGroup(segment.label, codes, lines)


def _codes(segment: Segment) -> Iterator[tuple[str, str, str]]:
    yield FINDING, segment.type.value, segment.type.scheme
    yield CATEGORY, segment.category.value, segment.category.scheme
    if is_structure(segment):
        yield SITE, segment.type.value, segment.type.scheme
        if segment.laterality:
            yield LATERALITY, segment.laterality.value, segment.laterality.scheme


def _reference(place: Place, analysis: Analysis, made: Sequence[ResultObject]) -> tuple[str, str, str, int] | None:
    segmentations = [entry for entry in made if entry.kind == "SEG"]
    if not segmentations:
        return None
    target = segmentations[place.part - 1]
    by_segment = isinstance(analysis.image, Volume) or target.sop_class_uid == LABEL_MAP
    keyword = "ReferencedSegmentNumber" if by_segment else "ReferencedFrameNumber"
    return target.sop_class_uid, analysis.uids.instance("SEG", place.part), keyword, place.number


def _of_classes(analysis: Analysis) -> Iterator[ExpectedGroup]:
    for entry, box in class_regions(analysis):
        if box is None:
            continue
        finding = (FINDING, entry.code.value, entry.code.scheme)
        certainty = Measurement(0, CERTAINTY_OF_FINDING, percent(entry), PERCENT)
        yield ExpectedGroup(entry.label, frozenset({finding}), (certainty,), boxes=(box,))


def _of_detections(analysis: Analysis) -> Iterator[ExpectedGroup]:
    for found in analysis.detected:
        entry = found.detection
        finding = frozenset({(FINDING, entry.code.value, entry.code.scheme)})
        present = finding | {(PRESENCE, PRESENT, "SCT")}
        middle = Region(found.middle, found.on[found.middle])
        yield ExpectedGroup(entry.label, present, tuple(detection_measurements(entry)), boxes=(middle,), detected=found)
        if len(found.on) > 1:
            yield ExpectedGroup(entry.label, finding, boxes=tuple(detected_regions(found)), detected=found)


def _check_group(group: Dataset, expected: ExpectedGroup, analysis: Analysis) -> None:
    name = f"the group of {expected.label}"
    findings = analysis.findings
    texts = {
        TRACKING_IDENTIFIER: analysis.uids.tracking_identifier(expected.label),
        ALGORITHM_NAME: findings.model.name,
        ALGORITHM_VERSION: findings.model.version,
    }
    children = list(group.get("ContentSequence") or [])
    tracking = [item.UID for item in children if concept(item) == TRACKING_UID]
    _require(tracking == [analysis.uids.tracking(expected.label)], f"{name} is missing, or its tracking UID is another")
    found = {concept(item): item.TextValue for item in children if item.ValueType == "TEXT"}
    _require(
        all(found.get(key) == text for key, text in texts.items()), f"{name} names another finding or another model"
    )
    _require(frozenset(_stated_codes(children)) == expected.codes, f"{name} states another finding or another place")
    numbers = [item for item in children if item.ValueType == "NUM"]
    _require(
        [stated_value(item) for item in numbers] == [_expected_value(entry) for entry in expected.measurements],
        f"{name} states other values or units than were measured",
    )
    references = [
        (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID, keyword, int(reference[keyword].value))
        for item in children
        if item.ValueType == "IMAGE" and concept(item) in ("121191", "121214")
        for reference in item.ReferencedSOPSequence
        for keyword in ("ReferencedSegmentNumber", "ReferencedFrameNumber")
        if keyword in reference
    ]
    _require(references == ([expected.reference] if expected.reference else []), f"{name} refers to another segment")
    _check_region(children, expected, analysis, name)
    for item, entry in zip(numbers, expected.measurements, strict=True):
        _check_line(item, entry, analysis, name)


def _check_region(children: Sequence[Dataset], expected: ExpectedGroup, analysis: Analysis, name: str) -> None:
    drawn = [Drawn.read(item) for item in children if item.ValueType == "SCOORD"]
    outlined = expected.outlined
    wanted = [outlined[0]] if outlined else [box.slice for box in expected.boxes]
    _require(len(drawn) == len(wanted), f"{name} has too few or many regions")
    for number, (region, index) in enumerate(zip(drawn, wanted, strict=True)):
        _require(_lies_on(region, index, analysis), f"the region of {name} lies on another image, or not within it")
        holds = follows(region.points, outlined[1]) if outlined else _same(region, expected.boxes[number])
        if expected.detected:
            holds = holds and lies_at(region.points, index, expected.detected, analysis)
        _require(holds, f"the region of {name} is not around what was found")


def _same(drawn: Drawn, expected: Region) -> bool:
    coordinates = on_image(drawn.points)
    return coordinates.shape == expected.coordinates.shape and np.allclose(coordinates, expected.coordinates, atol=1e-3)


def _check_line(item: Dataset, expected: Measurement, analysis: Analysis, name: str) -> None:
    drawn = [Drawn.read(child) for child in item.get("ContentSequence") or [] if child.ValueType == "SCOORD"]
    _require(len(drawn) == bool(expected.points), f"{name} has too few or many lines")
    for ends in drawn:
        index = int(expected.points[0][0])
        _require(_lies_on(ends, index, analysis), f"a line of {name} lies on another image, or not within it")
        same = np.allclose(ends.points, [point[1:] for point in expected.points], atol=SAME_LENGTH)
        measured_length = length(ends.points, analysis.source.planes[index].spacing)
        _require(
            same and bool(np.isclose(measured_length, expected.value, rtol=SAME_LENGTH)),
            f"a line of {name} is not as long as it says",
        )


def _lies_on(drawn: Drawn, index: int, analysis: Analysis) -> bool:
    plane: Plane = analysis.source.planes[index]
    return (drawn.image, drawn.frame) == (plane.sop_instance_uid, plane.frame) and drawn.within(
        analysis.image.array.shape[-2:]
    )


def _stated_codes(children: Sequence[Dataset]) -> Iterator[tuple[str, str, str]]:
    for item in children:
        if item.ValueType == "CODE":
            [value] = item.ConceptCodeSequence
            if concept(item) in CODES:
                yield concept(item), value.CodeValue, value.CodingSchemeDesignator
            yield from _stated_codes(item.get("ContentSequence") or [])


def _expected_value(entry: Measurement) -> tuple[Code, float, Code, Code | None]:
    return entry.concept, reported_value(entry.value), entry.unit, entry.derivation


def stated_value(item: Dataset) -> tuple[Code, float, Code, Code | None]:
    """Concept, number, unit and derivation of a decoded measurement."""
    [number] = item.MeasuredValueSequence
    derivations = [child for child in item.get("ContentSequence") or [] if concept(child) == DERIVATION]
    return (
        _code(item.ConceptNameCodeSequence),
        float(number.NumericValue),
        _code(number.MeasurementUnitsCodeSequence),
        _code(derivations[0].ConceptCodeSequence) if derivations else None,
    )


def _code(sequence: Sequence[Dataset]) -> Code:
    [item] = sequence
    return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)


def concept(item: Dataset) -> str:
    """The code of what a content item is about."""
    names = item.get("ConceptNameCodeSequence") or [Dataset()]
    return str(names[0].get("CodeValue"))


def _require(holds: bool, difference: str) -> None:
    require(holds, "SR", difference)
