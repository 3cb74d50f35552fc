"""What one model reads from one image, collected step by step, and what reading volumes and X-rays have in common."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import PermanentError
from engines.packages.description import ClassificationSection
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine
from engines.types import Classification, ClassProbability, Detections, InputStatistic, LabelMap, Measurement


@dataclass
class Reading:
    """What is known so far; the fields are those of `engines.types.Findings`."""

    seconds: dict[str, float] = field(default_factory=dict)
    statistics: tuple[InputStatistic, ...] = ()
    label_maps: tuple[LabelMap, ...] = ()
    classification: Classification | None = None
    detections: Detections | None = None
    measurements: tuple[Measurement, ...] = ()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Keep how long a step takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = perf_counter() - start


def classification(
    section: ClassificationSection,
    probabilities: NDArray[np.floating[Any]],
    activations: Sequence[NDArray[np.uint8]] | None = None,
) -> Classification:
    """Name the classes of a network's answer ``[class]``, each with its activation map where there are any."""
    maps: Sequence[NDArray[np.uint8] | None] = activations or [None] * len(section.classes)
    return Classification(
        tuple(
            ClassProbability(entry.label, entry.code.code, float(probability), activation)
            for entry, probability, activation in zip(section.classes, probabilities, maps, strict=True)
        ),
        section.exclusive,
    )


def require_finite(array: NDArray[Any], what: str) -> None:
    """Raise a `PermanentError` if an array holds NaN or infinity."""
    # A sum is finite only if every value is, and needs no array of truth values; +inf and -inf give NaN.
    if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
        raise PermanentError(f"{what} holds NaN or infinity; nothing can be said about it")


def answer_of(package: ModelPackage, engine: Engine) -> str:
    """Name an answer in messages."""
    return f"the answer of {package.name} on {engine.identity.runtime} {engine.identity.precision}"
