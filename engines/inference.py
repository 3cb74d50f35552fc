"""From an image to findings: the whole path of one model over one image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engines.description import RadiographInput, VolumeInput
from engines.errors import PermanentError
from engines.measurements import HOUNSFIELD, measure
from engines.orientation import Turn, to_upright
from engines.package import ModelPackage
from engines.postprocessing import (
    activations_on_radiograph,
    keep_largest_component,
    labels_on_radiograph,
    labels_on_source,
    probabilities_on_radiograph,
    probabilities_on_source,
)
from engines.preprocessing import Array, Box, bounding_box, crop, fit, percentile_window, resample_to_grid, window
from engines.runtimes.base import Engine
from engines.sliding_window import sliding_window
from engines.types import Classification, Findings, Image, LabelMap, Measurement, Radiograph, Volume

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
        With a label map on the image's own grid, or with classes and, where the model gives them, their activation
        maps; and with ``seconds`` for ``preprocess``, ``infer`` and ``postprocess``.

    Raises
    ------
    PermanentError
        The image is of the wrong kind or unit, has too few slices, holds NaN or infinity, or is empty where it is to be
        cropped; or the engine's answer is not finite.
    """
    analysed_at = clock()
    seconds: Seconds = {}
    label_map: LabelMap | None = None
    classification: Classification | None = None
    measurements: tuple[Measurement, ...] = ()
    match package.input, image:
        case VolumeInput() as wanted, Volume() as volume:
            label_map, measurements = _segment_volume(package, wanted, engine, volume, probabilities, seconds)
        case RadiographInput() as wanted, Radiograph() as radiograph:
            answer = _read_radiograph(package, wanted, engine, radiograph, region, probabilities, seconds)
            label_map = answer if isinstance(answer, LabelMap) else None
            classification = answer if isinstance(answer, Classification) else None
        case wanted, _:
            raise PermanentError(
                f"{package.name} takes a {_kind(wanted)}, not a {type(image).__name__}; correct the routing"
            )
    return Findings(
        model=package.identity,
        engine=engine.identity,
        analysed_at=analysed_at,
        label_map=label_map,
        classification=classification,
        measurements=measurements,
        seconds=seconds,
    )


def _segment_volume(
    package: ModelPackage, wanted: VolumeInput, engine: Engine, volume: Volume, graded: bool, seconds: Seconds
) -> tuple[LabelMap, tuple[Measurement, ...]]:
    slices = volume.array.shape[0]
    if slices < wanted.minimum_slices:
        raise PermanentError(
            f"{package.name} needs at least {wanted.minimum_slices} slices, the series has {slices}; send all of it"
        )
    if volume.unit != HOUNSFIELD.value:
        raise PermanentError(
            f"{package.name} needs Hounsfield units, the series is in {volume.unit!r}; check its Rescale Type"
        )
    with _timed(seconds, "preprocess"):
        _require_finite(volume.array, "the series")
        grid, affine = resample_to_grid(volume, wanted.spacing_mm)
        tensor = window(grid, *wanted.window)
    with _timed(seconds, "infer"):
        output, classes = package.description.output, package.output_shape[1]
        probabilities = sliding_window(
            lambda patch: engine.infer(patch)[output.tensor], tensor, wanted.patch, wanted.overlap, classes
        )
        _require_finite(probabilities, _answer_of(package, engine))
    with _timed(seconds, "postprocess"):
        if output.keep_largest:
            _drop_small_components(probabilities)
        labels = labels_on_source(probabilities, affine, volume)
        measurements = measure(package, volume, labels)
        grades = probabilities_on_source(probabilities, affine, volume) if graded else None
    return LabelMap(labels, package.segments, grades), measurements


def _read_radiograph(
    package: ModelPackage,
    wanted: RadiographInput,
    engine: Engine,
    radiograph: Radiograph,
    region: LabelMap | None,
    graded: bool,
    seconds: Seconds,
) -> LabelMap | Classification:
    output = package.description.output
    with _timed(seconds, "preprocess"):
        _require_finite(radiograph.array, "the image")
        turn = to_upright(radiograph.orientation)
        upright = turn.apply(radiograph.array)
        box = _box(package, wanted, radiograph, region, turn)
        cropped = crop(upright, box)
        windowed = percentile_window(cropped, *wanted.percentiles)
        tensor, placement = fit(windowed, wanted.size, turn.pixel(radiograph.pixel))
    with _timed(seconds, "infer"):
        answers = {name: answer[0] for name, answer in engine.infer(tensor[None, None]).items()}
        for answer in answers.values():
            _require_finite(answer, _answer_of(package, engine))

    def on_image(found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        whole = np.zeros(upright.shape, np.uint8)
        whole[box.top : box.bottom, box.left : box.right] = found
        return np.ascontiguousarray(turn.undo(whole))

    with _timed(seconds, "postprocess"):
        probabilities = answers[output.tensor]
        if not package.segments:
            if output.activation is None:
                return Classification(package.classes(probabilities))
            activations = activations_on_radiograph(answers[output.activation], placement, wanted.size)
            return Classification(package.classes(probabilities, [on_image(entry) for entry in activations]))
        if output.keep_largest:
            _drop_small_components(probabilities)
        labels = on_image(labels_on_radiograph(probabilities, placement))
        if not graded:
            return LabelMap(labels, package.segments)
        grades = probabilities_on_radiograph(probabilities, placement)
        return LabelMap(labels, package.segments, np.stack([on_image(entry) for entry in grades]))


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
