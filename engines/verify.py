"""Is an engine the model that it claims to be? Its answer to the golden input is compared with the reference's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engines.description import Limits
from engines.errors import EngineMismatch
from engines.package import ModelPackage
from engines.runtimes.base import Engine
from engines.types import EngineIdentity


@dataclass(frozen=True)
class Verification:
    """How far an engine is from the golden output.

    Attributes
    ----------
    model, engine
        What was compared.
    probability_error
        The largest absolute difference of any probability or score.
    dice
        Overlap of the segments, by label (Dice 1945; 1 where a segment is in neither). Empty where there are none.
    activation_error
        The largest absolute difference of the class activation maps as a part of the largest absolute value in the
        golden ones. None where the model has no such maps.
    place_error
        The largest absolute difference of any detected place, in pixels. None where the model detects nothing.
    limits
        How large each may be, and how small a Dice, in the engine's precision.
    """

    model: str
    engine: EngineIdentity
    probability_error: float
    dice: Mapping[str, float]
    activation_error: float | None
    place_error: float | None
    limits: Limits

    @property
    def ok(self) -> bool:
        """Whether every figure is within its limit; NaN never is."""
        return not self.beyond

    @property
    def beyond(self) -> tuple[str, ...]:
        """The figures that are beyond their limits, in words."""
        limits = self.limits
        errors = (
            ("probability error", self.probability_error, limits.max_probability_error),
            ("activation error", self.activation_error, limits.max_activation_error),
            ("place error", self.place_error, limits.max_place_error),
        )
        too_far = [
            f"{name} {value:.4f} (limit {limit})"
            for name, value, limit in errors
            if value is not None and limit is not None and not value <= limit
        ]
        too_small = [
            f"Dice of {label} {value:.4f} (limit {limits.min_dice})"
            for label, value in self.dice.items()
            if limits.min_dice is not None and not value >= limits.min_dice
        ]
        return (*too_far, *too_small)

    def require(self) -> Self:
        """Return the verification itself if the engine may serve.

        Raises
        ------
        EngineMismatch
            A figure is beyond its limit.
        """
        if self.ok:
            return self
        raise EngineMismatch(
            f"{self.model} on {self.engine.runtime} {self.engine.precision} differs from golden.npz: "
            f"{', '.join(self.beyond)}; build the engine again, choose another precision, or restore the model's folder"
        )


def verify(package: ModelPackage, engine: Engine) -> Verification:
    """Compare an engine with its model's golden outputs.

    Parameters
    ----------
    package
        Has the golden arrays and the limits.
    engine
        Of this model, and active.
    """
    golden, described = package.golden(), package.description
    answers = engine.infer(golden.input)
    limits = described.verify.limits(engine.identity.precision)

    def error(*tensors: str) -> float:
        return max(float(np.abs(answers[tensor] - golden.outputs[tensor]).max()) for tensor in tensors)

    probabilities, dices = [], dict[str, float]()
    activation_error = place_error = None
    if segmentation := described.segmentation:
        probabilities.append(segmentation.tensor)
        dices = _dice_per_segment(package, answers[segmentation.tensor], golden.outputs[segmentation.tensor])
    if classification := described.classification:
        probabilities.append(classification.tensor)
        if (maps := classification.activation) is not None:
            activation_error = error(maps) / float(np.abs(golden.outputs[maps]).max())
    if detection := described.detection:
        probabilities.append(detection.scores)
        place_error = error(detection.places)
    return Verification(
        model=package.name,
        engine=engine.identity,
        probability_error=error(*probabilities),
        dice=dices,
        activation_error=activation_error,
        place_error=place_error,
        limits=limits,
    )


def _dice_per_segment(
    package: ModelPackage, answer: NDArray[np.float32], expected: NDArray[np.float32]
) -> dict[str, float]:
    section = package.description.segmentation
    if section is not None and section.overlapping:
        return {
            segment.label: dice(one >= 0.5, other >= 0.5)
            for segment, one, other in zip(package.segments, answer[0], expected[0], strict=True)
        }
    labels, reference = answer.argmax(axis=1), expected.argmax(axis=1)
    return {segment.label: dice(labels == segment.number, reference == segment.number) for segment in package.segments}


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Give the Dice coefficient of two masks of the same shape; 1 if both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
