"""Is an engine the model that it claims to be? Its answer to the golden input is compared with the reference's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

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
    probability_error, max_probability_error
        The largest absolute difference of any probability, and how large it may be.
    dice, min_dice
        Overlap of the arg-max per segment, by label (Dice 1945; 1 where a segment is in neither), and how small it may
        be. Empty and None for a classifier.
    activation_error, max_activation_error
        The largest absolute difference of the class activation maps as a part of the largest absolute value in the
        golden ones, and how large it may be. None where the model has no such maps.
    """

    model: str
    engine: EngineIdentity
    probability_error: float
    max_probability_error: float
    dice: Mapping[str, float]
    min_dice: float | None
    activation_error: float | None = None
    max_activation_error: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every figure is within its limit; NaN never is."""
        overlaps = self.min_dice is None or all(value >= self.min_dice for value in self.dice.values())
        activates = (
            self.activation_error is None
            or self.max_activation_error is None
            or self.activation_error <= self.max_activation_error
        )
        return self.probability_error <= self.max_probability_error and overlaps and activates

    def require(self) -> Self:
        """Return the verification itself if the engine may serve.

        Raises
        ------
        EngineMismatch
            A figure is beyond its limit.
        """
        if self.ok:
            return self
        dice = "".join(f", Dice of {label} {value:.4f} (limit {self.min_dice})" for label, value in self.dice.items())
        activation = (
            f", activation error {self.activation_error:.4f} (limit {self.max_activation_error})"
            if self.activation_error is not None
            else ""
        )
        raise EngineMismatch(
            f"{self.model} on {self.engine.runtime} {self.engine.precision} differs from golden.npz: probability error "
            f"{self.probability_error:.4f} (limit {self.max_probability_error}){dice}{activation}; build the engine "
            "again, choose another precision, or restore the model's folder"
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
    golden, output, limits = package.golden(), package.description.output, package.description.verify
    answers = engine.infer(golden.input)
    answer = answers[output.tensor]
    activation_error = None
    if golden.activation is not None and output.activation is not None:
        difference = np.abs(answers[output.activation] - golden.activation).max()
        activation_error = float(difference / np.abs(golden.activation).max())
    return Verification(
        model=package.name,
        engine=engine.identity,
        probability_error=float(np.abs(answer - golden.output).max()),
        max_probability_error=limits.max_probability_error,
        dice=_dice_per_segment(package, answer, golden.output) if package.segments else {},
        min_dice=limits.min_dice,
        activation_error=activation_error,
        max_activation_error=limits.max_activation_error,
    )


def _dice_per_segment(
    package: ModelPackage, answer: NDArray[np.float32], expected: NDArray[np.float32]
) -> dict[str, float]:
    labels, reference = answer.argmax(axis=1), expected.argmax(axis=1)
    return {segment.label: dice(labels == segment.number, reference == segment.number) for segment in package.segments}


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Give the Dice coefficient of two masks of the same shape; 1 if both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
