"""Can what a model found be what it says: about this image, with a meaning for every value?

Engines check what they give; this holds whoever made the findings. What is drawn or counted wrongly would pass every
comparison of a result with its findings, because both would be wrong.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.types import Classification, Image, LabelMap, Measurement, Radiograph
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
    _require(isinstance(image, Radiograph), "classes are of X-rays only")
    _require(bool(classes), "there is no class")
    # not a number is not within either
    _require(all(0 <= entry.probability <= 1 for entry in classes), "a probability is not from 0 to 1")
    for entry in classes:
        on_grid = entry.activation is None or _is_on(entry.activation, image.array.shape)
        _require(on_grid, "an activation map is not on the grid of the image, or not uint8")


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
