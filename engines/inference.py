"""From an image to findings: the whole path of one model over one image."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engines.description import ClassificationSection, RadiographInput, SegmentationSection, VolumeInput
from engines.detection import Places, detect, extent, to_patient, within_volume
from engines.errors import PermanentError
from engines.input_statistics import input_statistics
from engines.measurements import HOUNSFIELD, measure
from engines.orientation import Turn, to_upright
from engines.package import ModelPackage
from engines.postprocessing import (
    activations_on_radiograph,
    each_on_radiograph,
    each_on_source,
    keep_largest_component,
    labels_on_radiograph,
    labels_on_source,
    probabilities_on_radiograph,
    probabilities_on_source,
    separate,
)
from engines.preprocessing import (
    Array,
    Box,
    bounding_box,
    crop,
    fit,
    percentile_window,
    resample_to_grid,
    scale,
    tensor_from_image,
)
from engines.runtimes.base import Engine
from engines.sliding_window import Answer, Window, flipped, on_largest_patch, sliding_window
from engines.types import (
    Affine,
    Classification,
    ClassProbability,
    Detections,
    Findings,
    Image,
    InputStatistic,
    LabelMap,
    Measurement,
    Radiograph,
    Volume,
)

HALF = 0.5
"""From this probability on, a segment that may overlap others is there."""

Clock = Callable[[], datetime]
"""Gives the present time, with its time zone."""

Seconds = dict[str, float]


def analyse(
    package: ModelPackage,
    engine: Engine,
    image: Image,
    *,
    clock: Clock,
    region: LabelMap | None = None,
    probabilities: bool = False,
) -> Findings:
    """Run one model over one image.

    Parameters
    ----------
    package
        The model.
    engine
        Of this model, and active.
    image
        A `Volume` in HU or a `Radiograph`, as the model's input asks for.
    clock
        Gives ``Findings.analysed_at``.
    region
        The label map on the same image of the model that ``input.crop_to`` names.
    probabilities
        Whether to keep the probabilities of a label map's segments on the image's grid too: as many bytes for each
        segment as the image has voxels.

    Returns
    -------
    Findings
        What the model's outputs say: label maps on the image's own grid with measurements, classes with their
        activation maps, detections; how like the training data the image is; and ``seconds`` for ``preprocess``,
        ``infer`` and ``postprocess``.

    Raises
    ------
    PermanentError
        The image is of the wrong kind or unit, has too few slices, holds NaN or infinity, is empty where it is to be
        cropped, or unlike those of the training where the package refuses such; or the engine's answer is not finite.
    OutOfMemory
        Not even the smallest patch fits into memory.
    """
    analysed_at = clock()
    match package.input, image:
        case VolumeInput() as wanted, Volume() as volume:
            found = _read_volume(package, wanted, engine, volume, probabilities)
        case RadiographInput() as wanted, Radiograph() as radiograph:
            found = _read_radiograph(package, wanted, engine, radiograph, region, probabilities)
        case wanted, _:
            raise PermanentError(
                f"{package.name} takes a {_kind(wanted)}, not a {type(image).__name__}; correct the routing"
            )
    return Findings(
        model=package.identity,
        engine=engine.identity,
        analysed_at=analysed_at,
        label_map=found.label_maps[0] if found.label_maps else None,
        overlapping=found.label_maps[1:],
        classification=found.classification,
        detections=found.detections,
        measurements=found.measurements,
        input_statistics=found.statistics,
        notes=_notes(package, found.statistics),
        seconds=found.seconds,
    )


@dataclass
class _Found:
    """What is known so far."""

    seconds: Seconds = field(default_factory=dict)
    statistics: tuple[InputStatistic, ...] = ()
    label_maps: tuple[LabelMap, ...] = ()
    classification: Classification | None = None
    detections: Detections | None = None
    measurements: tuple[Measurement, ...] = ()


def _read_volume(package: ModelPackage, wanted: VolumeInput, engine: Engine, volume: Volume, graded: bool) -> _Found:
    slices = volume.array.shape[0]
    if slices < wanted.minimum_slices:
        raise PermanentError(
            f"{package.name} needs at least {wanted.minimum_slices} slices, the series has {slices}; send all of it"
        )
    if volume.unit != HOUNSFIELD.value:
        raise PermanentError(
            f"{package.name} needs Hounsfield units, the series is in {volume.unit!r}; check its Rescale Type"
        )
    _require_finite(volume.array, "the series")
    found, described = _Found(), package.description
    if engine.whole_path is not None and package.on_device and not graded:
        on_device = engine.whole_path(volume)
        found.statistics = input_statistics(package, on_device.values, volume)
        found.seconds = dict(on_device.seconds)
        found.label_maps = (LabelMap(on_device.labels, package.segments),)
        found.measurements = measure(package, volume, on_device.labels)
        return found
    with _timed(found.seconds, "preprocess"):
        grid, affine = resample_to_grid(volume, wanted.spacing_mm, wanted.axes)
        clipped = np.clip(grid, *wanted.window, out=grid)
        found.statistics = input_statistics(package, clipped, volume)
        tensor = scale(wanted, clipped, *wanted.window)
    with _timed(found.seconds, "infer"):
        answer = _in_windows(package, wanted, engine, tensor)
        _require_finite_answers(package, engine, answer)
    with _timed(found.seconds, "postprocess"):
        if described.segmentation:
            maps = answer.maps[described.segmentation.tensor]
            label_maps = _label_volume(package, described.segmentation, maps, affine, volume, graded)
            found.label_maps = label_maps
            found.measurements = tuple(
                measurement for each in label_maps for measurement in measure(package, volume, each.array)
            )
        if described.classification:
            found.classification = _classify(described.classification, answer.windows)
        if described.detection:
            placed, holds = to_patient(affine), within_volume(volume)
            found.detections = detect(described.detection, answer.windows, extent(grid.shape), placed, holds)
    return found


def _in_windows(package: ModelPackage, wanted: VolumeInput, engine: Engine, tensor: Array) -> Answer:
    """Run the network whole where a patch covers the volume, in windows where none does, in smaller ones if need be."""
    segmentation = package.description.segmentation

    def on_patch(patch: tuple[int, ...]) -> Answer:
        return sliding_window(
            flipped(engine.infer, wanted.flips),
            tensor,
            patch,
            wanted.overlap,
            (segmentation.tensor,) if segmentation else (),
            blend=wanted.blend,
            batch=engine.batch,
        )

    return on_largest_patch(on_patch, tensor.shape[1:], wanted.grids, package.name)


def _label_volume(
    package: ModelPackage,
    section: SegmentationSection,
    probabilities: Array,
    affine: Affine,
    volume: Volume,
    graded: bool,
) -> tuple[LabelMap, ...]:
    if section.overlapping:
        if section.keep_largest:
            _drop_small_components_of_each(probabilities)
        masks = (probability >= HALF for probability in each_on_source(probabilities, affine, volume))
        return separate(masks, package.segments)
    if section.keep_largest:
        _drop_small_components(probabilities)
    grades = probabilities_on_source(probabilities, affine, volume) if graded else None
    return (LabelMap(labels_on_source(probabilities, affine, volume), package.segments, grades),)


def _classify(section: ClassificationSection, windows: Sequence[Window]) -> Classification:
    each = np.stack([window.answers[section.tensor] for window in windows])
    probabilities = each.max(axis=0) if section.windows == "max" else each.mean(axis=0)
    return _classification(section, probabilities)


def _classification(
    section: ClassificationSection, probabilities: Array, activations: Sequence[NDArray[np.uint8]] | None = None
) -> Classification:
    maps: Sequence[NDArray[np.uint8] | None] = activations or [None] * len(section.classes)
    return Classification(
        tuple(
            ClassProbability(entry.label, entry.code.code, float(probability), activation)
            for entry, probability, activation in zip(section.classes, probabilities, maps, strict=True)
        ),
        section.exclusive,
    )


def _read_radiograph(
    package: ModelPackage,
    wanted: RadiographInput,
    engine: Engine,
    radiograph: Radiograph,
    region: LabelMap | None,
    graded: bool,
) -> _Found:
    found, described = _Found(), package.description
    with _timed(found.seconds, "preprocess"):
        _require_finite(radiograph.array, "the image")
        turn = to_upright(radiograph.orientation)
        upright = turn.apply(radiograph.array)
        box = _box(package, wanted, radiograph, region, turn)
        windowed = percentile_window(crop(upright, box), *wanted.percentiles)
        found.statistics = input_statistics(package, windowed, radiograph)
        fitted, placement = fit(windowed, wanted.size, turn.pixel(radiograph.pixel), wanted.resize)
        tensor = scale(wanted, fitted, 0.0, 1.0)
    with _timed(found.seconds, "infer"):
        answers = {name: each[0] for name, each in flipped(engine.infer, wanted.flips)(tensor[None]).items()}
        for each in answers.values():
            _require_finite(each, _answer_of(package, engine))

    def on_image(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        whole = np.zeros(upright.shape, np.uint8)
        whole[box.top : box.bottom, box.left : box.right] = part
        return np.ascontiguousarray(turn.undo(whole))

    def corners_on_image(corners: Places) -> Places:
        to_crop = np.linalg.inv(tensor_from_image(placement))
        within = corners @ to_crop[:2, :2].T + to_crop[:2, 2]
        return turn.undo_places(within + np.array([box.top, box.left]), upright.shape)

    with _timed(found.seconds, "postprocess"):
        if section := described.segmentation:
            probabilities = answers[section.tensor]
            if section.overlapping:
                if section.keep_largest:
                    _drop_small_components_of_each(probabilities)
                each_mask = (
                    on_image((each >= HALF).astype(np.uint8)) > 0
                    for each in each_on_radiograph(probabilities, placement)
                )
                found.label_maps = separate(each_mask, package.segments)
            else:
                if section.keep_largest:
                    _drop_small_components(probabilities)
                labels = on_image(labels_on_radiograph(probabilities, placement))
                grades = probabilities_on_radiograph(probabilities, placement) if graded else None
                graded_maps = None if grades is None else np.stack([on_image(entry) for entry in grades])
                found.label_maps = (LabelMap(labels, package.segments, graded_maps),)
        if classes := described.classification:
            activations = None
            if classes.activation is not None:
                maps = activations_on_radiograph(answers[classes.activation], placement, wanted.size)
                activations = [on_image(entry) for entry in maps]
            found.classification = _classification(classes, answers[classes.tensor], activations)
        if detection := described.detection:
            windows = [Window((0, 0), answers)]
            offset = np.array(placement.offset)
            seen = extent(wanted.size) + np.stack([offset, -offset])
            found.detections = detect(detection, windows, seen, corners_on_image)
    return found


def _notes(package: ModelPackage, statistics: Sequence[InputStatistic]) -> tuple[str, ...]:
    """Tell the reader of an image unlike those that the model was trained on."""
    outside = [each for each in statistics if each.outside]
    if not outside:
        return ()
    told = ", ".join(
        f"{each.name} {each.value:.4g} {each.unit} (in training {each.least:g} to {each.largest:g})".replace("  ", " ")
        for each in outside
    )
    return (f"The image is unlike those that {package.name} was trained on: {told}.",)


def _drop_small_components_of_each(probabilities: Array) -> None:
    """The same of segments that may overlap, each for itself."""
    for probability in probabilities:
        mask = (probability >= HALF).astype(np.uint8)
        probability[keep_largest_component(mask) != mask] = 0.0


def _drop_small_components(probabilities: Array) -> None:
    """Make background of all but the largest component of each segment, on the network's grid and in place.

    The grid is coarser than the image, so this costs a hundredth of the same on the image. Linear interpolation keeps
    the result in one piece: along an edge between two points of a segment, the segment stays the most probable.
    """
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    dropped = keep_largest_component(labels) != labels
    probabilities[:, dropped] = 0.0
    probabilities[0, dropped] = 1.0


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


def _require_finite(array: NDArray[np.int16] | Array, what: str) -> None:
    # A sum is finite only if every value is, and needs no array of truth values; +inf and -inf give NaN.
    if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
        raise PermanentError(f"{what} holds NaN or infinity; nothing can be said about it")


def _require_finite_answers(package: ModelPackage, engine: Engine, answer: Answer) -> None:
    for each in answer.maps.values():
        _require_finite(each, _answer_of(package, engine))
    for window in answer.windows:
        for each in window.answers.values():
            _require_finite(each, _answer_of(package, engine))


def _answer_of(package: ModelPackage, engine: Engine) -> str:
    return f"the answer of {package.name} on {engine.identity.runtime}"


def _kind(wanted: VolumeInput | RadiographInput) -> str:
    return Volume.__name__ if isinstance(wanted, VolumeInput) else Radiograph.__name__


@contextmanager
def _timed(seconds: Seconds, step: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        seconds[step] = perf_counter() - start
