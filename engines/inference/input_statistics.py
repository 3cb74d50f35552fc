"""Is an image like those that a model was trained on? A few numbers about what the network is given.

A model is only known to work on images like its training data; what lies far outside is flagged, or refused where the
package says so (``[training]`` in ``model.toml``).

The numbers are chosen so that air, table and padding around the patient count for nothing: they are of what is *seen*,
which is more than `SEEN` of the window above its lower end. They tell a head from a chest, an empty scan, values
that are no HU, an inverted X-ray, and one without a patient; they do not tell whether a model's answer is right.
"""

from collections.abc import Iterator
from math import ceil, gcd, prod

import numpy as np
from numpy.typing import NDArray

from engines.errors import PermanentError
from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage
from engines.types import Image, InputStatistic, Radiograph, Volume

Values = NDArray[np.float32]

SEEN = 0.05
"""Of the window: for a window from -1000 to 400 HU that is -930 HU, above air and its noise, below lung."""

ENOUGH = 200_000
"""So many values tell a percentile to a tenth of one; more are thinned out evenly."""

Statistic = tuple[str, float, str]
"""Name, value, unit."""


def input_statistics(package: ModelPackage, values: Values, image: Image) -> tuple[InputStatistic, ...]:
    """Describe an image as a model sees it, beside what the model was trained on.

    Parameters
    ----------
    package
        Says between what each statistic lay in training.
    values
        What is given to the network, on its grid, clipped to its window and not yet scaled: a volume in HU, an X-ray in
        0–1 without padding.
    image
        The source.

    Returns
    -------
    tuple[InputStatistic, ...]
        Of a volume ``p5``, ``median`` and ``p95``, percentiles of what is seen; ``cross_section_cm2``, how much is
        seen of the median slice across the body; ``extent_mm`` and ``slice_step_mm`` along the series' own slices;
        ``pixel_mm``. Of an X-ray ``median`` of what is seen, ``deviation`` of all, ``middle`` (by how much the middle
        fifth of the columns is brighter than the whole), and ``pixel_mm`` where it is known.

    Raises
    ------
    PermanentError
        A statistic is outside of its range, and the package says to refuse such images.
    """
    training = package.description.training
    found = []
    for name, value, unit in _statistics(package, values, image):
        known = training.ranges.get(name)
        least, largest = (known.least, known.largest) if known else (None, None)
        found.append(InputStatistic(name, value, unit, least, largest))
    outside = [each for each in found if each.outside]
    if outside and training.outside == "refuse":
        raise PermanentError(
            f"{package.name} was not trained on such images, and its package says to refuse them: {in_words(outside)}; "
            "send an image of the kind that its card describes"
        )
    return tuple(found)


def in_words(statistics: list[InputStatistic]) -> str:
    """Name statistics, each with its range in training."""
    return ", ".join(
        f"{each.name} {each.value:.4g}{each.unit and ' '}{each.unit} (in training {each.least:g} to {each.largest:g})"
        for each in statistics
    )


def _statistics(package: ModelPackage, values: Values, image: Image) -> Iterator[Statistic]:
    match package.input, image:
        case VolumeInput() as wanted, Volume() as volume:
            yield from _of_volume(wanted, values, volume)
        case _, Radiograph() as radiograph:
            yield from _of_radiograph(values, radiograph)


def _of_volume(wanted: VolumeInput, values: Values, volume: Volume) -> Iterator[Statistic]:
    low, high = wanted.window
    threshold = low + SEEN * (high - low)
    for name, value in zip(("p5", "median", "p95"), _percentiles(values, threshold, (5, 50, 95), low), strict=True):
        yield name, value, "HU"
    # Across the body, whichever axis of the grid that is.
    across = next(axis for axis, letter in enumerate(wanted.axes) if letter in "HF")
    others = tuple(axis for axis in range(3) if axis != across)
    pixels = np.median(np.count_nonzero(values > threshold, axis=others))
    yield "cross_section_cm2", float(pixels) * prod(wanted.spacing_mm[axis] for axis in others) / 100, "cm2"
    step, row, _ = volume.spacing
    steps = len(volume.array) if volume.at is None else volume.at[-1] + 1
    yield "extent_mm", step * steps, "mm"
    yield "slice_step_mm", step, "mm"
    yield "pixel_mm", row, "mm"


def _of_radiograph(values: Values, radiograph: Radiograph) -> Iterator[Statistic]:
    (median,) = _percentiles(values, SEEN, (50,), 0.0)
    yield "median", median, ""
    yield "deviation", float(values.std(dtype=np.float64)), ""
    columns = values.shape[1]
    middle = values[:, columns * 2 // 5 : max(columns * 3 // 5, columns * 2 // 5 + 1)]
    yield "middle", float(middle.mean(dtype=np.float64) - values.mean(dtype=np.float64)), ""
    if radiograph.spacing is not None:
        yield "pixel_mm", radiograph.spacing[0], "mm"


def _percentiles(values: Values, threshold: float, percentiles: tuple[int, ...], none: float) -> list[float]:
    """Give percentiles of the values above a threshold, ``none`` where there are none."""
    step = ceil(values.size / ENOUGH)
    # Through every column: a step that shares a factor with their number would pass some over.
    while gcd(step, values.shape[-1]) > 1:
        step += 1
    some = values.ravel()[::step]
    seen = some[some > threshold]
    if not seen.size:
        return [none] * len(percentiles)
    return [float(value) for value in np.percentile(seen, percentiles)]
