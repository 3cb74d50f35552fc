"""Do the contours of this RT Structure Set hold the voxels of the label maps, in the place of the source images?"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from pydicom import Dataset

from engines.types import Segment
from service.results.analysis import Analysis
from service.results.checks.drawn import differing_slices
from service.results.checks.mismatch import only, require
from service.results.checks.places import image_places, planes_of
from service.results.contours import Points
from service.results.source import SAME_PLACE_MM, Plane, Source
from service.types import ResultObject


def check_structure_set(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare a decoded structure set with the label maps and the source (`service.results.kinds.Check`)."""
    dataset = only(datasets, "RTSTRUCT")
    _require(dataset.get("StructureSetLabel") == "RESEARCH", "StructureSetLabel is not RESEARCH")
    _require(dataset.get("ApprovalStatus") == "UNAPPROVED", "ApprovalStatus is not UNAPPROVED")
    source = analysis.source
    _check_references(dataset, source)
    segments = analysis.segments
    _check_regions(dataset, segments, source)
    numbers = [item.ReferencedROINumber for item in dataset.ROIContourSequence]
    _require(numbers == list(range(1, len(segments) + 1)), "there are not the contours of each region")
    items = iter(dataset.ROIContourSequence)
    for label_map in analysis.label_maps:
        rings: dict[tuple[int, int], list[Points]] = {}
        for segment, item in zip(label_map.present, items, strict=False):
            colour = [int(value) for value in item.ROIDisplayColor]
            _require(colour == list(segment.colour), f"region {item.ReferencedROINumber} has another colour")
            for index, ring in _rings(item, source):
                rings.setdefault((segment.number, index), []).append(ring)
        differing = differing_slices(rings, label_map, range(len(label_map.array)))
        where = ", ".join(str(index + 1) for index in differing[:5])
        _require(not differing, f"the contours on slice {where} do not hold the voxels that were found")


def _require(holds: bool, difference: str) -> None:
    require(holds, "RTSTRUCT", difference)


def _check_references(dataset: Dataset, source: Source) -> None:
    """The structure set lies in the frame of reference of the source, and refers to its images and no others."""
    uid = source.frame_of_reference_uid
    [frame_of_reference] = dataset.ReferencedFrameOfReferenceSequence
    _require(
        dataset.FrameOfReferenceUID == frame_of_reference.FrameOfReferenceUID == uid,
        "FrameOfReferenceUID is not that of the source",
    )
    [study] = frame_of_reference.RTReferencedStudySequence
    [series] = study.RTReferencedSeriesSequence
    _require(
        (study.ReferencedSOPInstanceUID, series.SeriesInstanceUID)
        == (source.first.StudyInstanceUID, source.first.SeriesInstanceUID),
        "it refers to another study or series",
    )
    images = [place for item in series.ContourImageSequence for place in image_places(item, source, "RTSTRUCT")]
    _require(sorted(images, key=str) == sorted(planes_of(source), key=str), "it does not refer to the source images")


def _check_regions(dataset: Dataset, segments: Sequence[Segment], source: Source) -> None:
    """Every region is named and coded as its segment."""
    regions, observations = dataset.StructureSetROISequence, dataset.RTROIObservationsSequence
    _require(len(regions) == len(observations) == len(segments), "there is not one region for each segment")
    for number, (region, observation, segment) in enumerate(zip(regions, observations, segments, strict=True), 1):
        name = f"region {number}"
        _require(region.ROINumber == observation.ReferencedROINumber == number, f"{name} has another number")
        _require(region.ROIName == segment.label, f"{name} has another name")
        _require(
            region.ReferencedFrameOfReferenceUID == source.frame_of_reference_uid,
            f"{name} lies in another frame of reference",
        )
        kind = observation.RTROIIdentificationCodeSequence[0]
        sides = [code.CodeValue for code in kind.get("SegmentedPropertyTypeModifierCodeSequence") or []]
        _require(
            (kind.CodeValue, kind.CodingSchemeDesignator) == (segment.type.value, segment.type.scheme),
            f"{name} is of another type",
        )
        _require(sides == ([segment.laterality.value] if segment.laterality else []), f"{name} has another laterality")


def _rings(item: Dataset, source: Source) -> Iterator[tuple[int, Points]]:
    """The contours of a region in pixels, each with its slice."""
    name = f"region {item.ReferencedROINumber}"
    slices = {place: index for index, place in enumerate(planes_of(source))}
    for contour in item.ContourSequence:
        [place] = [place for image in contour.ContourImageSequence for place in image_places(image, source, "RTSTRUCT")]
        _require(place in slices, f"a contour of {name} refers to an image that is not in the source")
        points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
        _require(contour.ContourGeometricType == "CLOSED_PLANAR", f"a contour of {name} is not closed")
        _require(len(points) == contour.NumberOfContourPoints, f"a contour of {name} has another number of points")
        yield slices[place], _on_plane(points, source.planes[slices[place]], name)


def _on_plane(points: Points, plane: Plane, name: str) -> Points:
    """From LPS millimetres to row and column, where points lie on the plane."""
    along_rows, along_columns = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    steps = np.stack([along_columns * plane.spacing[0], along_rows * plane.spacing[1]])
    offsets = points - plane.position
    indices: Points = offsets @ np.linalg.pinv(steps)
    distance = float(np.abs(offsets - indices @ steps).max())
    _require(distance <= SAME_PLACE_MM, f"a contour of {name} does not lie in the plane of its image")
    return indices
