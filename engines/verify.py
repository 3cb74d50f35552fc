"""Is an engine the model that it claims to be? Its answer to the golden input is compared with the reference's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.errors import EngineMismatch, OutOfMemory
from engines.packages.description import Limits
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine, Outputs
from engines.types import EngineIdentity

Tensor = NDArray[np.float32]

SLACK = 2.0
"""ct-lung in bf16 errs by 0.090 on its golden grid, and by 0.034 to 0.097 on three others; what is broken, by 1."""

log = structlog.get_logger()


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
    reference
        What the engine was compared with.
    """

    model: str
    engine: EngineIdentity
    probability_error: float
    dice: Mapping[str, float]
    activation_error: float | None
    place_error: float | None
    limits: Limits
    reference: str = "golden.npz"

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
            f"{self.model} on {self.engine.runtime} {self.engine.precision} differs from {self.reference}: "
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

    Raises
    ------
    EngineMismatch
        It answers with other shapes than the reference, or its answer depends on what else is in the batch.
    """
    golden = package.golden()
    answers = engine.infer(golden.input)
    verification = _compare(package, engine.identity, answers, golden.outputs)
    if engine.batch > 1:
        _require_alone(package, engine, golden.input, answers)
    return verification


def verify_further_grids(package: ModelPackage, engine: Engine, reference: Engine | None = None) -> None:
    """Run an engine once on each of its other grids, and compare it with a reference that has passed `verify`.

    The golden outputs say nothing about another grid, not even about its middle: normalisation and the padding of
    convolutions make every voxel depend on the whole patch. So the reference is the same network on another runtime,
    and the input the golden one, cropped or padded with 0 as a sliding window does. The errors may be `SLACK` times as
    large as on the golden grid; Dice does not count, because the crop may leave a segment few voxels. A grid that does
    not fit into memory is left out: `engines.inference.analyse` takes a smaller one then.

    Parameters
    ----------
    package
        Has the grids and the limits.
    engine
        Of this model, active, and verified on the golden grid.
    reference
        Of this model, active and verified too; None where there is no better one than the engine itself. Then only the
        answers' shapes are looked at, and whether they are finite.

    Raises
    ------
    EngineMismatch
        On one of the grids the engine gives NaN, other shapes, or differs from the reference by more than the limits.
    """
    golden = package.golden()
    for grid in package.input.grids:
        if grid == package.grid:
            continue
        tensor = _on_grid(golden.input, grid)
        try:
            answers = engine.infer(tensor)
            _require_sound(package, engine.identity, answers, grid)
            if reference is not None:
                verification = _compare(package, engine.identity, answers, reference.infer(tensor))
                replace(
                    verification,
                    limits=_loosened(verification.limits),
                    reference=f"{reference.identity.runtime} {reference.identity.precision} on the patch {list(grid)}",
                ).require()
        except OutOfMemory as error:
            log.warning("engine.grid_left_out", model=package.name, grid=grid, reason=str(error))


def _compare(package: ModelPackage, engine: EngineIdentity, answers: Outputs, expected: Outputs) -> Verification:
    described = package.description
    for name, array in expected.items():
        if answers[name].shape != array.shape:
            raise EngineMismatch(
                f"{package.name} on {engine.runtime} {engine.precision} answers {name} with shape "
                f"{list(answers[name].shape)}, the reference with {list(array.shape)}; build the engine again"
            )

    def error(*tensors: str) -> float:
        return max(float(np.abs(answers[tensor] - expected[tensor]).max()) for tensor in tensors)

    probabilities, dices = [], dict[str, float]()
    activation_error = place_error = None
    if segmentation := described.segmentation:
        probabilities.append(segmentation.tensor)
        dices = _dice_per_segment(package, answers[segmentation.tensor], expected[segmentation.tensor])
    if classification := described.classification:
        probabilities.append(classification.tensor)
        if (maps := classification.activation) is not None:
            activation_error = error(maps) / float(np.abs(expected[maps]).max())
    if detection := described.detection:
        probabilities.append(detection.scores)
        place_error = error(detection.places)
    return Verification(
        model=package.name,
        engine=engine,
        probability_error=error(*probabilities),
        dice=dices,
        activation_error=activation_error,
        place_error=place_error,
        limits=described.verify.limits(engine.precision),
    )


def _require_alone(package: ModelPackage, engine: Engine, tensor: Tensor, answers: Outputs) -> None:
    """Put another image into the batch: one that is of another patient, in service."""
    others = np.repeat(np.flip(tensor, axis=-1), engine.batch - 1, axis=0)
    beside = engine.infer(np.concatenate([others, tensor]))
    for name, array in answers.items():
        if not np.array_equal(beside[name][-1], array[0], equal_nan=True):
            raise EngineMismatch(
                f"{package.name} on {engine.identity.runtime} {engine.identity.precision}: {name} depends on what else "
                "is in the batch; set engines.batch = 1, or export the network so that it keeps its inputs apart"
            )


def _require_sound(package: ModelPackage, engine: EngineIdentity, answers: Outputs, grid: tuple[int, ...]) -> None:
    for name, shape in package.output_shapes(grid).items():
        array = answers[name]
        right = len(shape) == array.ndim and all(
            wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
        )
        if not right or not np.isfinite(array).all():
            what = "holds NaN or infinity" if right else f"has shape {list(array.shape)}"
            raise EngineMismatch(
                f"{package.name} on {engine.runtime} {engine.precision}, patch {list(grid)}: {name} {what}; "
                "build the engine again, or take the patch out of input.further_patches"
            )


def _loosened(limits: Limits) -> Limits:
    errors = ("max_probability_error", "max_activation_error", "max_place_error")
    values = {name: getattr(limits, name) for name in errors}
    return limits.model_copy(
        update={"min_dice": None} | {name: None if value is None else SLACK * value for name, value in values.items()}
    )


def _on_grid(tensor: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Crop or pad the middle of ``[n, channel, …grid]``."""
    found = np.zeros((*tensor.shape[:2], *grid), np.float32)
    into, of = [slice(None)] * 2, [slice(None)] * 2
    for wanted, length in zip(grid, tensor.shape[2:], strict=True):
        shared = min(wanted, length)
        into.append(slice((wanted - shared) // 2, (wanted - shared) // 2 + shared))
        of.append(slice((length - shared) // 2, (length - shared) // 2 + shared))
    found[tuple(into)] = tensor[tuple(of)]
    return found


def _dice_per_segment(package: ModelPackage, answer: Tensor, expected: Tensor) -> dict[str, float]:
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
