"""Can what a model found be what it says: about this image, with a meaning for every value?

Engines check what they give; this holds whoever made the findings. What is drawn or counted wrongly would pass every
comparison of a result with its findings, because both would be wrong.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.inference.detection import ROUNDING, within_volume
from engines.types import Classification, Detections, Image, LabelMap, Measurement, Volume
from service.errors import Quarantined
from service.results.analysis import Analysis


def require_sound(analysis: Analysis) -> None:
    """Refuse findings that no result can show.

    Raises
    ------
    Quarantined
        The message says what is wrong with them.
    """
    findings, image = analysis.findings, analysis.image
    for label_map in findings.label_maps:
        _check_label_map(label_map, image)
    twice = [number for number, count in Counter(entry.number for entry in analysis.segments).items() if count > 1]
    _require(not twice, f"segment {', '.join(map(str, twice))} is in two label maps")
    if findings.classification:
        _check_classes(findings.classification, image)
    if findings.detections:
        _check_detections(findings.detections, image)
    for entry in findings.measurements:
        _check_points(entry, image)


def _require(holds: bool, difference: str) -> None:
    if not holds:
        raise Quarantined(f"the findings are not sound: {difference}; correct the model package, or report it")


def _check_label_map(label_map: LabelMap, image: Image) -> None:
    numbers = [segment.number for segment in label_map.segments]
    _require(_is_on(label_map.array, image.array.shape), "a label map is not on the grid of the image, or not uint8")
    _require(len(set(numbers)) == len(numbers), "two segments have one number")
    _require(all(1 <= number <= 255 for number in numbers), "segments are not numbered from 1 to 255")
    unknown = np.setdiff1d(np.flatnonzero(label_map.counts.sum(axis=0)), [0, *numbers])
    _require(not unknown.size, f"{', '.join(map(str, unknown))} in a label map is no segment")
    colours = [part for segment in label_map.segments for part in segment.colour]
    _require(all(0 <= part <= 255 for part in colours), "colours are not from 0 to 255")
    if label_map.probabilities is not None:
        shape = (len(numbers), *image.array.shape)
        _require(_is_on(label_map.probabilities, shape), "probabilities are not on the grid of the image, or not uint8")


def _check_classes(classification: Classification, image: Image) -> None:
    classes = classification.classes
    _require(bool(classes), "there is no class")
    # not a number is not within either
    _require(all(0 <= entry.probability <= 1 for entry in classes), "a probability is not from 0 to 1")
    for entry in classes:
        has_maps = entry.activation is None or not isinstance(image, Volume)
        _require(has_maps, "a class of a volume has an activation map, which only those of X-rays have")
        on_grid = entry.activation is None or _is_on(entry.activation, image.array.shape)
        _require(on_grid, "an activation map is not on the grid of the image, or not uint8")


def _check_detections(detections: Detections, image: Image) -> None:
    """Each has a score, was looked for, and its centre lies within the image."""
    known = {(code.value, code.scheme) for _, code in detections.looked_for}
    _require(bool(known), "nothing was looked for")
    dimensions = image.array.ndim
    for entry in detections.found:
        _require(0 <= entry.score <= 1, "a score is not from 0 to 1")
        _require((entry.code.value, entry.code.scheme) in known, "something was found that was not looked for")
        _require(len(entry.low) == len(entry.high) == dimensions, f"a place has not {dimensions} coordinates")
        known_diameter = entry.diameter_mm is None or 0 < entry.diameter_mm < np.inf
        _require(known_diameter, "a diameter is not a positive number")
        low, high = np.array(entry.low), np.array(entry.high)
        finite = bool(np.isfinite([low, high]).all())
        _require(finite and bool((low <= high).all()), "a box has no finite corners, or its low one is not the lower")
        centre = (low + high) / 2
        if isinstance(image, Volume):
            inside = bool(within_volume(image)(centre[None])[0])
        else:
            last = np.array(image.array.shape) - 0.5
            inside = bool(((centre >= -0.5 - ROUNDING) & (centre <= last + ROUNDING)).all())
        _require(inside, "something was found beside the image")


def _check_points(entry: Measurement, image: Image) -> None:
    """The ends of what was measured lie within one slice; a line has two at least."""
    if not entry.points:
        return
    points = np.array([point if len(point) == 3 else (np.nan,) * 3 for point in entry.points])
    slices, rows, columns = image.array.reshape(-1, *image.array.shape[-2:]).shape
    outside = (points[:, 1:] < -0.5) | (points[:, 1:] > np.array([rows, columns]) - 0.5)
    on_one = len(set(points[:, 0].tolist())) == 1 and points[0, 0] in range(slices)
    is_line = len(points) > 1 and bool(np.isfinite(points).all()) and not outside.any()
    _require(on_one and is_line, "a length was not measured along a line within one slice")


def _is_on(array: NDArray[np.uint8], shape: Sequence[int]) -> bool:
    return array.shape == tuple(shape) and array.dtype == np.uint8
