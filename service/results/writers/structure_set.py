"""Label maps become an RT Structure Set: closed contours in patient coordinates (PS3.3 A.19)."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from highdicom.color import CIELabColor
from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import RTStructureSetStorage

from engines.types import Segment, Volume
from service.results.analysis import Analysis
from service.results.coding import coded, is_structure
from service.results.contours import Points, Polygon, inside, polygons
from service.results.files import keep
from service.results.outlines import Outline, outlines
from service.results.references import image_references
from service.results.remarks import in_sentences, told
from service.results.source import Plane, Source
from service.results.stamp import new_object, stamp
from service.types import ResultObject

MOST_POINTS = 1600
"""Of a contour: in Explicit VR its decimal strings have 65534 bytes (PS3.5 7.1.2), three to a point, each of 13."""
CHANNEL_POINTS = 4
"""What joining a hole adds."""
CONTOUR_DATA = Tag("ContourData")
STUDY_CLASS_UID = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: what a reference to a study says it is of (PS3.3 C.8.8.5.4)."""


def has_contours(analysis: Analysis) -> bool:
    """A segment of a volume has a voxel; an X-ray has no place in the patient that a contour could lie in."""
    return isinstance(analysis.image, Volume) and bool(analysis.label_maps)


def write_structure_set(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One structure set of all segments (`service.results.kinds.Writer`)."""
    return [keep("RTSTRUCT", structure_set(analysis), folder)]


def structure_set(analysis: Analysis) -> Dataset:
    """Encode every segment of every label map as a region of interest (ROI); segments may overlap.

    Contours run midway between the voxels inside and outside, in the plane of their source image, wherever that lies:
    slices may be tilted or uneven. What lies within them are the voxels of the segment.
    """
    dataset = new_object(analysis, "RTSTRUCT", RTStructureSetStorage, "RTSTRUCT")
    model, source = analysis.findings.model, analysis.source
    dataset.OperatorsName = ""
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = source.frame_of_reference_uid, ""
    dataset.StructureSetLabel, dataset.StructureSetName = "RESEARCH", f"{model.name} {model.version}"[:64]
    dataset.StructureSetDescription = in_sentences(told(analysis, "structure set"))[:1024]
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    segments = analysis.segments
    dataset.StructureSetROISequence = [_region(number, segment, source) for number, segment in enumerate(segments, 1)]
    by_segment = groupby(outlines(analysis), key=lambda outline: (outline.number, outline.segment))
    dataset.ROIContourSequence = [
        _contours(number, segment, tuple(found), source) for (number, segment), found in by_segment
    ]
    dataset.RTROIObservationsSequence = [_observation(number, segment) for number, segment in enumerate(segments, 1)]
    dataset.ApprovalStatus = "UNAPPROVED"
    stamp(dataset, analysis)
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.ContentDate, dataset.ContentTime
    # not of this IOD, which has the two above in their place
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def _frame_of_reference(source: Source) -> Dataset:
    """Every image that contours may lie on (PS3.3 C.8.8.5)."""
    series, study, frame_of_reference = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ContourImageSequence = image_references(source, range(len(source.planes)))
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS_UID, source.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference.FrameOfReferenceUID = source.frame_of_reference_uid
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _region(number: int, segment: Segment, source: Source) -> Dataset:
    region = Dataset()
    region.ROINumber, region.ROIName = number, segment.label
    region.ReferencedFrameOfReferenceUID = source.frame_of_reference_uid
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    return region


def _observation(number: int, segment: Segment) -> Dataset:
    """What a region is (PS3.3 C.8.8.8). Only an anatomical structure has an interpreted type: no target is meant."""
    kind = coded(segment.type)
    if segment.laterality:
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(segment.laterality)]
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.ROIObservationLabel = segment.label[:16]
    observation.SegmentedPropertyCategoryCodeSequence = [coded(segment.category)]
    observation.RTROIIdentificationCodeSequence = [kind]
    observation.RTROIInterpretedType = "ORGAN" if is_structure(segment) else ""
    observation.ROIInterpreter = ""
    return observation


def _contours(number: int, segment: Segment, found: Sequence[Outline], source: Source) -> Dataset:
    """All contours of one region (PS3.3 C.8.8.6)."""
    item = Dataset()
    item.ReferencedROINumber, item.ROIDisplayColor = number, list(segment.colour)
    item.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*segment.colour).value)
    contours = []
    for outline in found:
        plane = source.planes[outline.slice]
        reference = image_references(source, [outline.slice])
        for polygon in outline.polygons:
            for ring in _closed(polygon, (source.first.Rows, source.first.Columns)):
                contour = Dataset()
                contour.ContourImageSequence = reference
                contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(ring)
                _set_contour_data(contour, in_patient(ring, plane))
                contours.append(contour)
    item.ContourSequence = contours
    return item


def _closed(polygon: Polygon, shape: tuple[int, int]) -> Iterator[Points]:
    """A region as one ring, or cut into several where that would have more points than its value can hold."""
    if sum(len(ring) + CHANNEL_POINTS for ring in polygon.rings) <= MOST_POINTS:
        yield keyhole(polygon)
        return
    mask = inside(polygon.rings, shape)
    middle = int(np.median(np.flatnonzero(mask.any(axis=1)))) + 1
    above = np.arange(shape[0])[:, None] < middle
    for half in (mask & above, mask & ~above):
        for part in polygons(half):
            yield from _closed(part, shape)


def keyhole(polygon: Polygon) -> Points:
    """One ring around a region with holes: a channel of no width leads up from each hole (PS3.3 C.8.8.6.3).

    The channels cross no ring and no centre of a pixel, as rings of marching squares have their corners at halves of a
    pixel, and the channels lie at quarters.
    """
    ring = polygon.outer
    # what a hole's channel meets above it belongs to the ring already
    for hole in sorted(polygon.holes, key=lambda points: (points[:, 0].min(), points[:, 1].min())):
        top = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        hole = np.roll(hole, -top, axis=0)
        start = hole[0] + (hole[1] - hole[0]) * 0.25 / abs(hole[1, 1] - hole[0, 1])
        edge, end = _above(ring, start)
        ring = np.concatenate([ring[: edge + 1], [end, start], hole[1:], hole[:1], [start, end], ring[edge + 1 :]])
    return ring


def _above(ring: Points, point: Points) -> tuple[int, Points]:
    """The nearest place on a ring straight above a point: on which of its edges, and where."""
    following = np.roll(ring, -1, axis=0)
    crossing = np.flatnonzero((ring[:, 1] < point[1]) != (following[:, 1] < point[1]))
    start, step = ring[crossing], following[crossing] - ring[crossing]
    rows = start[:, 0] + (point[1] - start[:, 1]) * step[:, 0] / step[:, 1]
    nearest = int(np.argmax(np.where(rows < point[0], rows, -np.inf)))
    return int(crossing[nearest]), np.array([rows[nearest], point[1]])


def in_patient(points: Points, plane: Plane) -> Points:
    """From row and column to LPS millimetres, ``[n, 3]`` (PS3.3 C.7.6.2.1.1)."""
    along_rows, along_columns = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    steps = np.stack([along_columns * plane.spacing[0], along_rows * plane.spacing[1]])
    placed: Points = np.array(plane.position) + points @ steps
    return placed


def _set_contour_data(contour: Dataset, points: Points) -> None:
    """Set Contour Data to a thousandth of a millimetre.

    It is set as it will stand in the file: as elements of their own the numbers would take ten times as long.
    """
    # the sum makes a plain zero of a negative one
    numbers = (np.round(points, 3) + 0.0).ravel().tolist()
    text = ("\\".join(["%.3f"] * len(numbers)) % tuple(numbers)).encode("ascii")
    padded = text + b" " * (len(text) % 2)
    contour[CONTOUR_DATA] = RawDataElement(CONTOUR_DATA, "DS", len(padded), padded, 0, False, True)
    contour.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=default_encoding)
