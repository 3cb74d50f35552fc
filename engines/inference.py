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
from engines.postprocessing import keep_largest_component, labels_on_radiograph, labels_on_source
from engines.preprocessing import Array, Box, bounding_box, crop, fit, percentile_window, resample_to_grid, window
from engines.runtimes.base import Engine
from engines.sliding_window import sliding_window
from engines.types import Classification, Findings, Image, LabelMap, Measurement, Radiograph, Volume

Clock = Callable[[], datetime]
"""Gives the present time, with its time zone."""

Seconds = dict[str, float]


def analyse(
    package: ModelPackage, engine: Engine, image: Image, *, clock: Clock, region: LabelMap | None = None
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

    Returns
    -------
    Findings
        With a label map on the image's own grid or with classes, and with ``seconds`` for ``preprocess``, ``infer``
        and ``postprocess``.

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
            label_map, measurements = _segment_volume(package, wanted, engine, volume, seconds)
        case RadiographInput() as wanted, Radiograph() as radiograph:
            answer = _read_radiograph(package, wanted, engine, radiograph, region, seconds)
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
    package: ModelPackage, wanted: VolumeInput, engine: Engine, volume: Volume, seconds: Seconds
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
        classes = package.output_shape[1]
        probabilities = sliding_window(engine.infer, tensor, wanted.patch, wanted.overlap, classes)
        _require_finite(probabilities, f"the answer of {package.name} on {engine.identity.runtime}")
    with _timed(seconds, "postprocess"):
        if package.description.output.keep_largest:
            _drop_small_components(probabilities)
        labels = labels_on_source(probabilities, affine, volume)
        measurements = measure(package, volume, labels)
    return LabelMap(labels, package.segments), measurements


def _read_radiograph(
    package: ModelPackage,
    wanted: RadiographInput,
    engine: Engine,
    radiograph: Radiograph,
    region: LabelMap | None,
    seconds: Seconds,
) -> LabelMap | Classification:
    with _timed(seconds, "preprocess"):
        _require_finite(radiograph.array, "the image")
        turn = to_upright(radiograph.orientation)
        upright = turn.apply(radiograph.array)
        box = _box(package, wanted, radiograph, region, turn)
        cropped = crop(upright, box)
        windowed = percentile_window(cropped, *wanted.percentiles)
        tensor, placement = fit(windowed, wanted.size, turn.pixel(radiograph.pixel))
    with _timed(seconds, "infer"):
        probabilities = engine.infer(tensor[None, None])[0]
        _require_finite(probabilities, f"the answer of {package.name} on {engine.identity.runtime}")
    with _timed(seconds, "postprocess"):
        if not package.segments:
            return Classification(package.classes(probabilities))
        if package.description.output.keep_largest:
            _drop_small_components(probabilities)
        labels = np.zeros(upright.shape, np.uint8)
        labels[box.top : box.bottom, box.left : box.right] = labels_on_radiograph(probabilities, placement)
        return LabelMap(np.ascontiguousarray(turn.undo(labels)), package.segments)


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


def _kind(wanted: VolumeInput | RadiographInput) -> str:
    return Volume.__name__ if isinstance(wanted, VolumeInput) else Radiograph.__name__


@contextmanager
def _timed(seconds: Seconds, step: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        seconds[step] = perf_counter() - start
