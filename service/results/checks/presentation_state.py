"""Do these presentation states outline what was found, on the images that it was found in?"""

from collections.abc import Iterable, Sequence

import numpy as np
from highdicom.color import CIELabColor
from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.drawn import differing_slices
from service.results.checks.mismatch import paired, require
from service.results.checks.places import image_places, planes_of
from service.results.contours import Points
from service.results.pictures.legend import scored
from service.results.writers.grey_scale import Rescale, slices_by_rescale
from service.results.writers.presentation_state import (
    CLASSES,
    DETECTIONS,
    WORDS,
    axes_on,
    boxes,
    layer_of,
    probability_of,
    statements,
)
from service.results.writers.regions import Region, detected_regions
from service.types import ResultObject


def check_presentation_states(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare decoded presentation states with findings and source (`service.results.kinds.Check`)."""
    for dataset, (rescale, slices) in paired(datasets, slices_by_rescale(analysis).items(), "GSPS"):
        _check_one(dataset, rescale, slices, analysis)


def _require(holds: bool, difference: str) -> None:
    require(holds, "GSPS", difference)


def _check_one(dataset: Dataset, rescale: Rescale | None, slices: Sequence[int], analysis: Analysis) -> None:
    source = analysis.source
    _require(dataset.get("ContentLabel") == "RESEARCH", "ContentLabel is not RESEARCH")
    [series] = dataset.ReferencedSeriesSequence
    _require(series.SeriesInstanceUID == source.first.SeriesInstanceUID, "it refers to another series")
    planes = planes_of(source)
    images = [place for item in series.ReferencedImageSequence for place in image_places(item, source, "GSPS")]
    _require(images == [planes[index] for index in slices], "it does not refer to the source images")
    if rescale is not None:
        stated = (float(dataset.RescaleSlope), float(dataset.RescaleIntercept))
        _require(np.allclose(stated, rescale), "its rescale is not that of the images")
    _check_layers(dataset, analysis)
    words, *others = dataset.GraphicAnnotationSequence
    texts = [item.UnformattedTextValue for item in words.TextObjectSequence]
    _require(
        words.GraphicLayer == WORDS and "ReferencedImageSequence" not in words and texts == statements(analysis),
        "it does not say of all images that this is for research only, or states other probabilities",
    )
    _check_boxes([item for item in others if item.GraphicLayer == CLASSES], analysis)
    _check_detections([item for item in others if item.GraphicLayer == DETECTIONS], slices, analysis)
    outlined = [item for item in others if item.GraphicLayer not in (CLASSES, DETECTIONS)]
    _check_outlines(outlined, slices, analysis)


def _check_layers(dataset: Dataset, analysis: Analysis) -> None:
    segments = analysis.segments
    first, *layers = dataset.GraphicLayerSequence
    _require(first.GraphicLayer == WORDS, "it has no layer for words")
    if analysis.detected:
        _require(bool(layers) and layers.pop().GraphicLayer == DETECTIONS, "it has no layer for detections")
    if list(boxes(analysis)):
        _require(layers.pop().GraphicLayer == CLASSES, "it has no layer for classes")
    _require(len(layers) == len(segments), "there is not one layer for each segment")
    for number, (layer, segment) in enumerate(zip(layers, segments, strict=True), start=1):
        colour = list(CIELabColor.from_rgb(*segment.colour).value)
        _require(layer.GraphicLayer == layer_of(number), f"layer {number} has another name")
        _require(layer.GraphicLayerDescription == segment.label[:64], f"layer {number} is of another segment")
        _require(list(layer.GraphicLayerRecommendedDisplayCIELabValue) == colour, f"layer {number} has another colour")


def _check_boxes(annotations: Sequence[Dataset], analysis: Analysis) -> None:
    """Each class has its box, with its name and probability."""
    expected = list(boxes(analysis))
    _require(len(annotations) == len(expected), "there is not one box for each class that has one")
    for annotation, (entry, region) in zip(annotations, expected, strict=True):
        _check_box(annotation, entry.label, probability_of(entry), region, analysis)


def _check_detections(annotations: Sequence[Dataset], slices: Sequence[int], analysis: Analysis) -> None:
    """Each detection is on each of these slices that it is on, with its name and score."""
    expected = [
        (found.detection, region)
        for found in analysis.detected
        for region in detected_regions(found)
        if region.slice in slices
    ]
    _require(len(annotations) == len(expected), "there is not one box for each detection and slice")
    for annotation, (entry, region) in zip(annotations, expected, strict=True):
        _check_box(annotation, entry.label, scored(entry), region, analysis)


def _check_box(annotation: Dataset, label: str, words: str, region: Region, analysis: Analysis) -> None:
    [item], [text] = annotation.GraphicObjectSequence, annotation.TextObjectSequence
    places = image_places(annotation.ReferencedImageSequence[0], analysis.source, "GSPS")
    _require(places == [planes_of(analysis.source)[region.slice]], f"the box of {label} is on another image")
    points = np.array(item.GraphicData, np.float64).reshape(-1, 2)
    drawn_as = ("POLYLINE" if len(region.points) > 1 else "POINT", "PIXEL")
    _require((item.GraphicType, item.GraphicAnnotationUnits) == drawn_as, f"the box of {label} is drawn otherwise")
    same = points.shape == region.coordinates.shape and np.allclose(points, region.coordinates, atol=0.01)
    _require(same, f"the box of {label} lies elsewhere")
    _require(item.get("TrackingUID") == analysis.uids.tracking(label), f"{label} has another UID")
    _require(text.UnformattedTextValue == words, f"{label} has another probability or score")


def _check_outlines(annotations: Sequence[Dataset], slices: Sequence[int], analysis: Analysis) -> None:
    """Each segment is outlined on each slice that it is on, and nowhere else."""
    places = {place: index for index, place in enumerate(planes_of(analysis.source))}
    segments = analysis.segments
    layers = {layer_of(number): number for number in range(1, len(segments) + 1)}
    rings: dict[tuple[int, int], list[Points]] = {}
    for annotation in annotations:
        number = layers.get(annotation.GraphicLayer, 0)
        [place] = image_places(annotation.ReferencedImageSequence[0], analysis.source, "GSPS")
        _require(number > 0 and places.get(place) in slices, "it outlines what was not found")
        segment, index = segments[number - 1], places[place]
        _require((segment.number, index) not in rings, f"segment {number} is outlined twice on slice {index + 1}")
        rings[(segment.number, index)] = _rings(annotation, number, index, analysis)
    for label_map in analysis.label_maps:
        differing = differing_slices(rings, label_map, slices)
        where = ", ".join(str(index + 1) for index in differing[:5])
        _require(not differing, f"the outlines on slice {where} do not hold what was found")


def _rings(annotation: Dataset, number: int, index: int, analysis: Analysis) -> list[Points]:
    """The rings of one segment on one slice, in rows and columns."""
    limits = (analysis.source.first.Columns, analysis.source.first.Rows)
    where = f"segment {number} on slice {index + 1}"
    segment = analysis.segments[number - 1]
    rings: list[Points] = []
    lines: list[Points] = []
    for item in annotation.GraphicObjectSequence:
        drawn_as = (item.GraphicType, item.GraphicAnnotationUnits)
        _require(drawn_as == ("POLYLINE", "PIXEL"), f"{where} is drawn otherwise")
        _require(item.get("TrackingUID") == analysis.uids.tracking(segment.label), f"{where} has another tracking UID")
        points: Points = np.array(item.GraphicData, np.float64).reshape(-1, 2)
        _require(len(points) == item.NumberOfGraphicPoints, f"{where} has another number of points")
        _require(bool((points >= 0).all() and (points <= limits).all()), f"{where} reaches beyond the image")
        closed = bool(np.array_equal(points[0], points[-1]))
        (rings if closed else lines).append(points[:, ::-1] - 0.5)
    expected = [np.array(entry.points)[:, 1:] for entry in axes_on(analysis, segment, index)]
    same = len(lines) == len(expected) and np.allclose(lines, expected, atol=0.01)
    _require(same, f"the lines of {where} do not end where was measured")
    _require(annotation.TextObjectSequence[0].UnformattedTextValue == segment.label, f"{where} has another label")
    return rings
