"""Measurement groups of a report: TID 1411 and 1410 for regions, TID 1501 for what has none (PS3.16 A)."""

from typing import Any

import numpy as np
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from engines.types import ClassProbability, Code, Findings, Image, Measurement, Segment, Volume
from service.results.segmentation import coded, tracking_identifier
from service.results.source import Source
from service.results.stamp import MANUFACTURER
from service.results.uids import ResultUIDs

CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
ANATOMICAL_STRUCTURE = "123037004"

Group = (
    sr.MeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def measurement_groups(findings: Findings, image: Image, source: Source, uids: ResultUIDs) -> list[Group]:
    """One group for each segment and each class.

    A segment that has a voxel refers to the segmentation (TID 1411 in a volume, TID 1410 in an X-ray); one without says
    that it is absent (TID 1501). Each class of an X-ray refers to the region that was classified (TID 1410), so that a
    viewer has something to draw.
    """
    groups: list[Group] = []
    if findings.label_map:
        present = findings.label_map.present
        for segment in findings.label_map.segments:
            number = present.index(segment) + 1 if segment in present else None
            groups.append(_segment_group(segment, number, findings, image, source, uids))
    if findings.classification:
        groups += [_class_group(entry, findings, source, uids) for entry in findings.classification.classes]
    return groups


def reported_value(value: float) -> float:
    """A measured value with six significant digits, which is more than any measurement here is worth."""
    return float(f"{value:.6g}")


def percent(entry: ClassProbability) -> float:
    """The probability of a class as the report states it."""
    return reported_value(entry.probability * 100)


def measured(findings: Findings, segment: Segment) -> tuple[Measurement, ...]:
    """The measurements of one segment that have a value; that of an empty segment has none (its mean, say, is NaN)."""
    return tuple(
        entry for entry in findings.measurements if entry.segment == segment.number and np.isfinite(entry.value)
    )


def _segment_group(
    segment: Segment, number: int | None, findings: Findings, image: Image, source: Source, uids: ResultUIDs
) -> Group:
    is_structure = segment.category.value == ANATOMICAL_STRUCTURE
    laterality = coded(segment.laterality) if segment.laterality else None
    presence = codes.cid240.Present if number else codes.cid240.Absent
    shared: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(
            uids.tracking(segment.label), tracking_identifier(findings, segment.label)
        ),
        "finding_category": coded(segment.category),
        "finding_type": coded(segment.type),
        "finding_sites": [sr.FindingSite(coded(segment.type), laterality)] if is_structure else None,
        "algorithm_id": _algorithm(findings),
        "qualitative_evaluations": [sr.QualitativeEvaluation(codes.DCM.PresenceOfProperty, presence)],
        "measurements": [_measurement(entry) for entry in measured(findings, segment)],
    }
    if number is None:
        return sr.MeasurementsAndQualitativeEvaluations(**shared)
    if isinstance(image, Volume):
        whole_segment = sr.ReferencedSegment(
            SegmentationStorage,
            uids.instance("SEG"),
            number,
            source_series=sr.SourceSeriesForSegmentation(source.first.SeriesInstanceUID),
        )
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=whole_segment, **shared)
    origin = sr.SourceImageForSegmentation(source.first.SOPClassUID, source.first.SOPInstanceUID)
    # each segment of an X-ray has one frame, in the order of the segments
    only_frame = sr.ReferencedSegmentationFrame(SegmentationStorage, uids.instance("SEG"), number, number, origin)
    # frame and segment exclude each other (PS3.3 C.18.4.1); highdicom states both
    del only_frame[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=only_frame, **shared)


def _measurement(entry: Measurement) -> sr.Measurement:
    return sr.Measurement(
        name=coded(entry.concept),
        value=reported_value(entry.value),
        unit=coded(entry.unit),
        derivation=coded(entry.derivation) if entry.derivation else None,
    )


def _class_group(entry: ClassProbability, findings: Findings, source: Source, uids: ResultUIDs) -> Group:
    shared: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(
            uids.tracking(entry.label), tracking_identifier(findings, entry.label)
        ),
        "finding_type": coded(entry.code),
        "algorithm_id": _algorithm(findings),
        "measurements": [sr.Measurement(coded(CERTAINTY_OF_FINDING), percent(entry), coded(PERCENT))],
    }
    if len(source.planes) > 1:
        return sr.MeasurementsAndQualitativeEvaluations(**shared)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=_region(findings, source), **shared)


def _region(findings: Findings, source: Source) -> sr.ImageRegion:
    """A box around what was classified: the segments of the same findings where there are any, else the whole image."""
    rows, columns = source.first.Rows, source.first.Columns
    top, left, bottom, right = 0, 0, rows, columns
    if findings.label_map and findings.label_map.present:
        where = np.argwhere(findings.label_map.array)
        (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0) + 1
    # image-relative coordinates: the first pixel spans 0 to 1 (PS3.3 C.10.5.1.2)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], float)
    origin = sr.SourceImageForRegion(source.first.SOPClassUID, source.first.SOPInstanceUID)
    return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, corners, origin)


def _algorithm(findings: Findings) -> sr.AlgorithmIdentification:
    engine = findings.engine
    return sr.AlgorithmIdentification(
        name=findings.model.name,
        version=findings.model.version,
        parameters=[f"engine {engine.runtime}, {engine.precision}, {engine.device}"],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )
