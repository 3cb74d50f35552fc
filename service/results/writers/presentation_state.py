"""Outlines drawn over the source images: a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from highdicom.color import CIELabColor
from highdicom.pr import AnnotationUnitsValues, GraphicLayer, GraphicObject, GraphicTypeValues, TextObject
from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from engines.types import ClassProbability, Measurement, Segment, Volume
from service.results.analysis import Analysis
from service.results.contours import Points, simplified
from service.results.files import keep
from service.results.outlines import Outline, outlines
from service.results.pictures.legend import DETECTED, scored
from service.results.references import image_references
from service.results.stamp import RESEARCH, new_object, stamp
from service.results.uids import MANUFACTURER
from service.results.writers.grey_scale import Rescale, set_grey_scale, slices_by_rescale
from service.results.writers.regions import Region, class_regions, detected_regions, measured, on_image
from service.types import ResultObject

TOLERANCE = 0.35
"""In pixels, how far outlines may be off. Rings of marching squares pass no centre of a pixel within √2/4, so that what
lies within them stays the same."""
WORDS, CLASSES, DETECTIONS = "RESEARCH", "CLASSES", "DETECTIONS"
"""The layers of what is said of all images, of where an X-ray speaks for its classes, and of what was detected."""
LONGEST_TEXT = 1024
"""Characters of an ST (PS3.5 6.2)."""
PIXEL, DISPLAY = AnnotationUnitsValues.PIXEL, AnnotationUnitsValues.DISPLAY
BOTTOM = (0.01, 0.94, 0.99, 0.99)
TOP = (0.01, 0.01, 0.6, 0.3)
"""Places of text in what is displayed: left, top, right and bottom as shares of its width and height."""


def has_annotations(analysis: Analysis) -> bool:
    """A segment has a voxel, there are probabilities of classes, or something was detected."""
    return bool(analysis.label_maps or analysis.findings.classification or analysis.detected)


def write_presentation_states(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One presentation state, or more where slices differ in their rescale (`service.results.kinds.Writer`)."""
    drawn: dict[int, list[Outline]] = {}
    for outline in outlines(analysis):
        drawn.setdefault(outline.slice, []).append(outline)
    return [
        keep("GSPS", presentation_state(analysis, drawn, slices, rescale, number), folder)
        for number, (rescale, slices) in enumerate(slices_by_rescale(analysis).items(), start=1)
    ]


def presentation_state(
    analysis: Analysis, drawn: dict[int, list[Outline]], slices: Sequence[int], rescale: Rescale | None, number: int
) -> Dataset:
    """Encode the outlines of some slices, a layer for each segment, and what is to be said of all of them.

    Parameters
    ----------
    drawn
        The outlines on each slice that has any.
    slices, rescale
        The slices that it is for, and the rescale that they share.
    number
        Of this presentation state, from 1.
    """
    source, model = analysis.source, analysis.findings.model
    dataset = new_object(analysis, "GSPS", GrayscaleSoftcopyPresentationStateStorage, "PR", number)
    dataset.ContentLabel, dataset.ContentCreatorName = "RESEARCH", f"{MANUFACTURER}^Automatic"
    dataset.ContentDescription = f"{RESEARCH}: {model.name} {model.version}"[:64]
    series = Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ReferencedImageSequence = image_references(source, slices)
    dataset.ReferencedSeriesSequence = [series]
    dataset.DisplayedAreaSelectionSequence = [_whole_image(analysis)]
    dataset.GraphicLayerSequence = _layers(analysis)
    annotations = [_words(analysis), *_boxes(analysis), *_detections(analysis, slices)]
    for index in slices:
        annotations += [_annotation(outline, analysis) for outline in drawn.get(index, [])]
    dataset.GraphicAnnotationSequence = annotations
    set_grey_scale(dataset, analysis, rescale)
    stamp(dataset, analysis)
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = dataset.ContentDate, dataset.ContentTime
    # not of this IOD, which has the two above in their place
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def layer_of(number: int) -> str:
    """The name of a segment's layer."""
    return f"SEGMENT {number}"


def statements(analysis: Analysis) -> list[str]:
    """What is said of all images: at the bottom that this is research, at the top the probabilities of classes.

    Of more classes than there is room for, the most probable ones.
    """
    model, classification = analysis.findings.model, analysis.findings.classification
    said = [f"{RESEARCH}. {model.name} {model.version}"]
    if classification:
        shown = list(classification.classes)
        while len(text := "\r\n".join(map(probability_of, shown))) > LONGEST_TEXT:
            shown.remove(min(shown, key=lambda entry: entry.probability))
        said.append(text)
    return said


def probability_of(entry: ClassProbability) -> str:
    """A class and its probability in words."""
    return f"{entry.label} {entry.probability:.1%}"


def axes_on(analysis: Analysis, segment: Segment, index: int) -> list[Measurement]:
    """The measurements of a segment along a line that lies in a slice."""
    lines = measured(analysis.findings, segment, along_a_line=True)
    return [entry for entry in lines if {point[0] for point in entry.points} == {index}]


def boxes(analysis: Analysis) -> Iterator[tuple[ClassProbability, Region]]:
    """The classes of an X-ray that have a box, each with it."""
    if not isinstance(analysis.image, Volume):
        yield from ((entry, region) for entry, region in class_regions(analysis) if region is not None)


def _whole_image(analysis: Analysis) -> Dataset:
    area = Dataset()
    rows_apart, columns_apart = analysis.source.planes[0].spacing
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [analysis.source.first.Columns, analysis.source.first.Rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    square = np.isclose(rows_apart, columns_apart, rtol=1e-3)
    area.PresentationPixelAspectRatio = [1, 1] if square else [round(1000 * rows_apart / columns_apart), 1000]
    return area


def _layers(analysis: Analysis) -> list[GraphicLayer]:
    layers = [GraphicLayer(WORDS, 1, "What is said of all images")]
    for number, segment in enumerate(analysis.segments, start=1):
        colour = CIELabColor.from_rgb(*segment.colour)
        layers.append(GraphicLayer(layer_of(number), number + 1, segment.label[:64], colour))
    if list(boxes(analysis)):
        layers.append(GraphicLayer(CLASSES, len(layers) + 1, "Where the image speaks for a class"))
    if analysis.detected:
        colour = CIELabColor.from_rgb(*DETECTED)
        layers.append(GraphicLayer(DETECTIONS, len(layers) + 1, "What was detected, with its score", colour))
    return layers


def _words(analysis: Analysis) -> Dataset:
    """Text on every image: an annotation without a reference is of all (PS3.3 C.10.5)."""
    item = Dataset()
    item.GraphicLayer = WORDS
    item.TextObjectSequence = [
        TextObject(text, DISPLAY, bounding_box=box, text_justification="LEFT")
        for text, box in zip(statements(analysis), (BOTTOM, TOP), strict=False)
    ]
    return item


def _boxes(analysis: Analysis) -> list[Dataset]:
    """The boxes of the classes of an X-ray, each with its probability at its top."""
    return [_box(CLASSES, entry.label, probability_of(entry), region, analysis) for entry, region in boxes(analysis)]


def _detections(analysis: Analysis, slices: Sequence[int]) -> list[Dataset]:
    """The detections on some slices, each with its score."""
    return [
        _box(DETECTIONS, found.detection.label, scored(found.detection), region, analysis)
        for found in analysis.detected
        for region in detected_regions(found)
        if region.slice in slices
    ]


def _box(layer: str, label: str, text: str, region: Region, analysis: Analysis) -> Dataset:
    """A region on one image, followed under its label, with some words at its first point."""
    item = Dataset()
    item.ReferencedImageSequence = image_references(analysis.source, [region.slice])
    item.GraphicLayer = layer
    item.GraphicObjectSequence = [
        GraphicObject(
            GraphicTypeValues.POLYLINE if len(region.points) > 1 else GraphicTypeValues.POINT,
            on_image(region.points),
            PIXEL,
            tracking_id=analysis.uids.tracking_identifier(label),
            tracking_uid=analysis.uids.tracking(label),
        )
    ]
    item.TextObjectSequence = [_text(text, region.points[0])]
    return item


def _annotation(outline: Outline, analysis: Analysis) -> Dataset:
    """One segment on one slice: its rings, its label at the top of the largest, and its axes."""
    uid, name = analysis.uids.tracking(outline.segment.label), outline.segment.label
    followed_as = analysis.uids.tracking_identifier(name)
    rings = [simplified(ring, TOLERANCE) for polygon in outline.polygons for ring in polygon.rings]
    closed = [np.concatenate([ring, ring[:1]]) for ring in rings]
    largest = max(rings, key=lambda ring: float(np.prod(np.ptp(ring, axis=0))))
    texts = [_text(name, largest[np.argmin(largest[:, 0])])]
    for axis in axes_on(analysis, outline.segment, outline.slice):
        ends = np.array(axis.points)[:, 1:]
        closed.append(ends)
        texts.append(_text(f"{axis.value:.1f} {axis.unit.value}", ends[1]))
    item = Dataset()
    item.ReferencedImageSequence = image_references(analysis.source, [outline.slice])
    item.GraphicLayer = layer_of(outline.number)
    item.GraphicObjectSequence = [
        GraphicObject(GraphicTypeValues.POLYLINE, on_image(line), PIXEL, tracking_id=followed_as, tracking_uid=uid)
        for line in closed
    ]
    item.TextObjectSequence = texts
    return item


def _text(text: str, point: Points) -> TextObject:
    column, row = on_image(point[None])[0].tolist()
    return TextObject(text, PIXEL, anchor_point=(column, row), anchor_point_visible=False)
