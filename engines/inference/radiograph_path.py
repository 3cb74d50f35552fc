"""The whole path of one model over an X-ray: upright, cropped and scaled, through the network, back to the pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from engines.errors import PermanentError
from engines.inference.activation_maps import activations_on_radiograph
from engines.inference.detection import Places, detect, extent
from engines.inference.input_statistics import input_statistics
from engines.inference.orientation import Turn, to_upright
from engines.inference.postprocessing import (
    drop_small_components,
    drop_small_components_of_each,
    labels_on_radiograph,
    masks_on_radiograph,
    probabilities_on_radiograph,
    separate,
)
from engines.inference.preprocessing import (
    Array,
    Box,
    Placement,
    bounding_box,
    crop,
    fit,
    percentile_window,
    scale,
    tensor_from_image,
)
from engines.inference.reading import Reading, answer_of, classification, require_finite
from engines.inference.sliding_window import Window, flipped, on_largest_patch
from engines.packages.description import RadiographInput, SegmentationSection
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine
from engines.types import LabelMap, Radiograph


@dataclass(frozen=True, eq=False)
class RadiographTensor:
    """An X-ray as a network is given it, and the way back to its pixels.

    Attributes
    ----------
    tensor
        ``[channel, row, column]``.
    values
        The part of the tensor that holds image, in 0–1 and not yet scaled: ``[row, column]``.
    turn, box, placement
        How the image was turned, which part of the upright image is seen, and where that lies in the tensor.
    shape
        Rows and columns of the upright image.
    """

    tensor: Array
    values: Array
    turn: Turn
    box: Box
    placement: Placement
    shape: tuple[int, int]

    def on_image(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put what was found in the crop on the stored pixels; 0 outside of the crop."""
        whole = np.zeros(self.shape, np.uint8)
        whole[self.box.top : self.box.bottom, self.box.left : self.box.right] = part
        return np.ascontiguousarray(self.turn.undo(whole))

    def places_on_image(self, places: Places) -> Places:
        """Bring places on the tensor to the stored pixels."""
        to_crop = np.linalg.inv(tensor_from_image(self.placement))
        within = places @ to_crop[:2, :2].T + to_crop[:2, 2]
        return self.turn.undo_places(within + np.array([self.box.top, self.box.left]), self.shape)


def radiograph_tensor(
    package: ModelPackage, wanted: RadiographInput, radiograph: Radiograph, region: LabelMap | None
) -> RadiographTensor:
    """Turn an X-ray upright, crop it to another model's segments, window, scale and place it.

    Raises
    ------
    PermanentError
        The other model's label map is missing or empty.
    """
    turn = to_upright(radiograph.orientation)
    upright = turn.apply(radiograph.array)
    box = _box(package, wanted, radiograph, region, turn)
    windowed = percentile_window(crop(upright, box), *wanted.percentiles)
    fitted, placement = fit(windowed, wanted.size, turn.pixel(radiograph.pixel), wanted.resize)
    top, left = (floor(offset) for offset in placement.offset)
    values = fitted[top : wanted.size[0] - top, left : wanted.size[1] - left]
    rows, columns = upright.shape
    return RadiographTensor(scale(wanted, fitted, 0.0, 1.0), values, turn, box, placement, (rows, columns))


def read_radiograph(
    package: ModelPackage,
    wanted: RadiographInput,
    engine: Engine,
    radiograph: Radiograph,
    region: LabelMap | None,
    probabilities: bool,
) -> Reading:
    """Run a model over an X-ray; see `engines.inference.analyse.analyse`."""
    found, described = Reading(), package.description
    with found.timed("preprocess"):
        require_finite(radiograph.array, "the image")
        given = radiograph_tensor(package, wanted, radiograph, region)
        found.statistics = input_statistics(package, given.values, radiograph)
    with found.timed("infer"):
        answers = _infer(package, wanted, engine, given.tensor)
    with found.timed("postprocess"):
        if section := described.segmentation:
            found.label_maps = _label_maps(package, section, answers[section.tensor], given, probabilities)
        if classes := described.classification:
            activations = None
            if classes.activation is not None:
                maps = activations_on_radiograph(answers[classes.activation], given.placement, wanted.size)
                activations = [given.on_image(entry) for entry in maps]
            found.classification = classification(classes, answers[classes.tensor], activations)
        if detection := described.detection:
            offset = np.array(given.placement.offset)
            seen = extent(wanted.size) + np.stack([offset, -offset])
            found.detections = detect(detection, [Window((0, 0), answers)], seen, given.places_on_image)
    return found


def _infer(package: ModelPackage, wanted: RadiographInput, engine: Engine, tensor: Array) -> Mapping[str, Array]:
    def whole(_: tuple[int, ...]) -> Mapping[str, Array]:
        return {name: each[0] for name, each in flipped(engine.infer, wanted.flips)(tensor[None]).items()}

    answers = on_largest_patch(whole, wanted.size, wanted.grids, package.name)
    for each in answers.values():
        require_finite(each, answer_of(package, engine))
    return answers


def _label_maps(
    package: ModelPackage, section: SegmentationSection, maps: Array, given: RadiographTensor, probabilities: bool
) -> tuple[LabelMap, ...]:
    if section.overlapping:
        if section.keep_largest:
            drop_small_components_of_each(maps)
        masks = masks_on_radiograph(maps, given.placement)
        return separate((given.on_image(mask.astype(np.uint8)) > 0 for mask in masks), package.segments)
    if section.keep_largest:
        drop_small_components(maps)
    labels = given.on_image(labels_on_radiograph(maps, given.placement))
    if not probabilities:
        return (LabelMap(labels, package.segments),)
    grades = np.stack([given.on_image(entry) for entry in probabilities_on_radiograph(maps, given.placement)])
    return (LabelMap(labels, package.segments, grades),)


def _box(
    package: ModelPackage, wanted: RadiographInput, radiograph: Radiograph, region: LabelMap | None, turn: Turn
) -> Box:
    """Give the part of the upright X-ray that the model looks at."""
    if wanted.crop_to is None:
        rows, columns = turn.apply(radiograph.array).shape
        return Box(0, 0, rows, columns)
    if region is None or region.array.shape != radiograph.array.shape:
        raise PermanentError(f"{package.name} needs the label map of {wanted.crop_to} on the same image; run it first")
    box = bounding_box(turn.apply(region.array), wanted.crop_margin)
    if box is None:
        raise PermanentError(
            f"{wanted.crop_to} found nothing in the image that {package.name} could be cropped to; look at the image"
        )
    return box
