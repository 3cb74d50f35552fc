"""Is an image like those that a model was trained on? A few numbers about what the network is given.

A model is only known to work on images like its training data; what lies far outside is flagged, or refused where the
package says so (``[training]`` in ``model.toml``).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engines.errors import PermanentError
from engines.package import ModelPackage
from engines.types import Image, InputStatistic, Volume


def input_statistics(package: ModelPackage, values: NDArray[np.float32], image: Image) -> tuple[InputStatistic, ...]:
    """Describe an image as a model sees it, beside what the model was trained on.

    Parameters
    ----------
    package
        Says between what each statistic lay in training.
    values
        What is given to the network, clipped to its window and not yet scaled: a volume in HU on the network's grid,
        an X-ray in 0–1, each without padding.
    image
        The source.

    Returns
    -------
    tuple[InputStatistic, ...]
        ``mean``, ``deviation``, ``p5``, ``median``, ``p95`` of the values; of a volume ``slice_step_mm`` and
        ``extent_mm`` along its slices' normal; ``pixel_mm`` where it is known.

    Raises
    ------
    PermanentError
        A statistic is outside of its range, and the package says to refuse such images.
    """
    training = package.description.training
    found = []
    for name, value, unit in _statistics(values, image):
        known = training.ranges.get(name)  # type: ignore[call-overload]
        found.append(
            InputStatistic(name, value, unit, known.least if known else None, known.largest if known else None)
        )
    outside = [f"{each.name} {each.value:.4g} ({each.least:g} to {each.largest:g})" for each in found if each.outside]
    if outside and training.outside == "refuse":
        raise PermanentError(
            f"{package.name} was trained on other images, and its package says to refuse them: {', '.join(outside)}; "
            "send an image of the kind that its card describes"
        )
    return tuple(found)


def _statistics(values: NDArray[np.float32], image: Image) -> Iterator[tuple[str, float, str]]:
    volume = isinstance(image, Volume)
    unit = "HU" if volume else ""
    yield "mean", float(values.mean(dtype=np.float64)), unit
    yield "deviation", float(values.std(dtype=np.float64)), unit
    p5, median, p95 = np.percentile(values, (5, 50, 95))
    yield "p5", float(p5), unit
    yield "median", float(median), unit
    yield "p95", float(p95), unit
    if isinstance(image, Volume):
        step, row, _ = image.spacing
        steps = len(image.array) if image.at is None else image.at[-1] + 1
        yield "slice_step_mm", step, "mm"
        yield "extent_mm", step * steps, "mm"
        yield "pixel_mm", row, "mm"
    elif image.spacing is not None:
        yield "pixel_mm", image.spacing[0], "mm"
