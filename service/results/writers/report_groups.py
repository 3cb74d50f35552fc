"""Measurement groups of a report: what was found, and where in the images (TID 1411, 1410 and 1501 of PS3.16)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from highdicom import sr
from pydicom.sr.codedict import codes

from engines.inference.measurements import MILLIMETRE
from engines.types import ClassProbability, Code, Detection, Findings, LabelMap, Measurement, Segment, Volume
from service.results.analysis import Analysis
from service.results.coding import coded, is_structure
from service.results.detected import Detected
from service.results.source import Source
from service.results.storage import LABEL_MAP
from service.results.uids import MANUFACTURER
from service.results.writers.regions import (
    Region,
    class_regions,
    detected_regions,
    drawn_on,
    frame,
    line,
    measured,
    outline,
)
from service.types import ResultObject

CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
SCORE = Code("246262008", "SCT", "Score")
"""Of a detection: what its network gives, and no probability, which `CERTAINTY_OF_FINDING` is."""
FROM_0_TO_1 = Code("{0:1}", "UCUM", "range: 0:1")
DIAMETER = Code("81827009", "SCT", "Diameter")
NOTHING_FOUND = "nothing found"

Group = (
    sr.MeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, eq=False)
class Place:
    """Which segment of which SEG a segment is: the label map's part and the number within it, both from 1."""

    label_map: LabelMap
    part: int
    number: int


def places(analysis: Analysis) -> list[tuple[Segment, Place | None]]:
    """Every segment that was looked for, in order, and where it is; None where it was not found."""
    found = {
        segment.number: Place(label_map, part, number)
        for part, label_map in enumerate(analysis.label_maps, start=1)
        for number, segment in enumerate(label_map.present, start=1)
    }
    sought = {segment.number: segment for entry in analysis.findings.label_maps for segment in entry.segments}
    return [(segment, found.get(number)) for number, segment in sought.items()]


def measurement_groups(analysis: Analysis, made: Sequence[ResultObject]) -> list[Group]:
    """The groups of each segment that was found, then of each class that an image speaks for and of each detection.

    All groups of a finding have its tracking identifier, and nothing is said twice. Each finding has a place in an
    image, because OHIF shows nothing at all of a report in which one has none; the others are
    `service.results.writers.report_evaluations`.

    - A segment of a CT refers to its segment in the SEG, with what was measured in all of it (TID 1411); has an outline
      on the slice of its diameters, or where it is largest, for viewers that draw no SEG (TID 1410); and its diameters
      with their ends (TID 1501).
    - A segment of an X-ray refers to its frame in the SEG and has an outline (both TID 1410: it holds one of the two).
    - A class of an X-ray refers to the box around what speaks for it (TID 1410).
    - A detection has its score, its diameter where that is known, and its place on its middle slice (TID 1410); a box
      on several slices, also its place on each of them (TID 1411).
    - Where nothing was found, a group without a finding refers to the middle image, so that a viewer shows it.

    Parameters
    ----------
    made
        The other result objects; without a SEG among them, nothing refers to one.
    """
    groups: list[Group] = []
    for segment, place in places(analysis):
        if place is not None:
            groups += _segment_groups(segment, place, analysis, made)
    for entry, region in class_regions(analysis):
        if region is not None:
            groups.append(_class_group(entry, region, analysis))
    for found in analysis.detected:
        groups += _detection_groups(found, analysis)
    return groups or [_empty_group(analysis)]


def reported_value(value: float) -> float:
    """A measured value with six significant digits, which is more than any measurement here is worth."""
    return float(f"{value:.6g}")


def percent(entry: ClassProbability) -> float:
    """The probability of a class as the report states it."""
    return reported_value(entry.probability * 100)


def detection_measurements(entry: Detection) -> list[Measurement]:
    """What the report states of a detection, as it states it; they belong to no segment."""
    stated = [Measurement(0, SCORE, reported_value(entry.score), FROM_0_TO_1)]
    if entry.diameter_mm is not None:
        stated.append(Measurement(0, DIAMETER, reported_value(entry.diameter_mm), MILLIMETRE))
    return stated


def _segment_groups(
    segment: Segment, place: Place, analysis: Analysis, made: Sequence[ResultObject]
) -> Iterator[Group]:
    findings, source = analysis.findings, analysis.source
    shared = _identity(segment, analysis)
    first: dict[str, Any] = {
        **shared,
        "qualitative_evaluations": [sr.QualitativeEvaluation(codes.DCM.PresenceOfProperty, codes.cid240.Present)],
        "measurements": [_measurement(entry) for entry in measured(findings, segment, along_a_line=False)],
    }
    segmentations = [entry for entry in made if entry.kind == "SEG"]
    if not segmentations:
        yield sr.MeasurementsAndQualitativeEvaluations(**first)
    elif isinstance(analysis.image, Volume):
        whole = _referenced_segment(place, segmentations[place.part - 1], source)
        yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=whole, **first)
    else:
        only_frame = _referenced_frame(place, segmentations[place.part - 1], source)
        yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=only_frame, **first)
    lines = measured(findings, segment, along_a_line=True)
    outlined = outline(place.label_map, segment, drawn_on(place.label_map, segment, lines))
    region = _image_region(outlined, source)
    yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **shared)
    if lines:
        values = [_measurement(entry, _coordinates(line(entry), source)) for entry in lines]
        yield sr.MeasurementsAndQualitativeEvaluations(measurements=values, **shared)


def _identity(segment: Segment, analysis: Analysis) -> dict[str, Any]:
    """What all groups of one segment have in common: what was found, where, and by whom."""
    laterality = coded(segment.laterality) if segment.laterality else None
    return {
        "tracking_identifier": _tracking(segment.label, analysis),
        "finding_category": coded(segment.category),
        "finding_type": coded(segment.type),
        "finding_sites": [sr.FindingSite(coded(segment.type), laterality)] if is_structure(segment) else None,
        "algorithm_id": _algorithm(analysis.findings),
    }


def _tracking(label: str, analysis: Analysis) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(analysis.uids.tracking(label), analysis.uids.tracking_identifier(label))


def _referenced_segment(place: Place, segmentation: ResultObject, source: Source) -> sr.ReferencedSegment:
    return sr.ReferencedSegment(
        segmentation.sop_class_uid,
        segmentation.sop_instance_uid,
        place.number,
        source_series=sr.SourceSeriesForSegmentation(source.first.SeriesInstanceUID),
    )


def _referenced_frame(place: Place, segmentation: ResultObject, source: Source) -> sr.ReferencedSegmentationFrame:
    """Each segment of an X-ray has one frame, in the order of the segments; a label map has one for all of them."""
    origin = sr.SourceImageForSegmentation(source.first.SOPClassUID, source.first.SOPInstanceUID)
    frame = sr.ReferencedSegmentationFrame(
        segmentation.sop_class_uid, segmentation.sop_instance_uid, place.number, place.number, origin
    )
    # frame and segment exclude each other (PS3.3 C.18.4.1); highdicom states both
    [reference] = frame[0].ReferencedSOPSequence
    if segmentation.sop_class_uid == LABEL_MAP:
        del reference.ReferencedFrameNumber
    else:
        del reference.ReferencedSegmentNumber
    return frame


def _image_of(region: Region, source: Source) -> sr.SourceImageForRegion:
    plane = source.planes[region.slice]
    frames = None if plane.frame is None else [plane.frame]
    return sr.SourceImageForRegion(source.first.SOPClassUID, plane.sop_instance_uid, frames)


def _image_region(region: Region, source: Source) -> sr.ImageRegion:
    kind = sr.GraphicTypeValues.POLYLINE if len(region.points) > 1 else sr.GraphicTypeValues.POINT
    return sr.ImageRegion(kind, region.coordinates, _image_of(region, source))


def _coordinates(region: Region, source: Source) -> sr.CoordinatesForMeasurement:
    return sr.CoordinatesForMeasurement(sr.GraphicTypeValues.POLYLINE, region.coordinates, _image_of(region, source))


def _measurement(entry: Measurement, coordinates: sr.CoordinatesForMeasurement | None = None) -> sr.Measurement:
    return sr.Measurement(
        name=coded(entry.concept),
        value=reported_value(entry.value),
        unit=coded(entry.unit),
        derivation=coded(entry.derivation) if entry.derivation else None,
        referenced_coordinates=[coordinates] if coordinates else None,
    )


def _empty_group(analysis: Analysis) -> Group:
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(NOTHING_FOUND, analysis),
        referenced_region=_image_region(frame(analysis), analysis.source),
        algorithm_id=_algorithm(analysis.findings),
    )


def _class_group(entry: ClassProbability, region: Region, analysis: Analysis) -> Group:
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(entry.label, analysis),
        referenced_region=_image_region(region, analysis.source),
        finding_type=coded(entry.code),
        algorithm_id=_algorithm(analysis.findings),
        measurements=[sr.Measurement(coded(CERTAINTY_OF_FINDING), percent(entry), coded(PERCENT))],
    )


def _detection_groups(found: Detected, analysis: Analysis) -> Iterator[Group]:
    entry, source = found.detection, analysis.source
    shared: dict[str, Any] = {
        "tracking_identifier": _tracking(entry.label, analysis),
        "finding_type": coded(entry.code),
        "algorithm_id": _algorithm(analysis.findings),
    }
    yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=_image_region(Region(found.middle, found.on[found.middle]), source),
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.DCM.PresenceOfProperty, codes.cid240.Present)],
        measurements=[_measurement(each) for each in detection_measurements(entry)],
        **shared,
    )
    if len(found.on) > 1:
        regions = [_image_region(region, source) for region in detected_regions(found)]
        yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **shared)


def _algorithm(findings: Findings) -> sr.AlgorithmIdentification:
    engine = findings.engine
    return sr.AlgorithmIdentification(
        name=findings.model.name,
        version=findings.model.version,
        parameters=[f"engine {engine.runtime}, {engine.precision}, {engine.device}"],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )
