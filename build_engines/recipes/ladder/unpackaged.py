"""Networks of the ladder that become no package: trained, then compiled by OpenVINO as a node compiles, and sized."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

from build_engines.recipes import training
from build_engines.recipes.ladder.measure import size_of, time_of
from build_engines.recipes.ladder.rows import Result
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.packaging.export import trace
from build_engines.recipes.packaging.files import halve
from build_engines.recipes.trainer import Trainer
from evaluation.estimate import Estimate

Outputs = Mapping[str, NDArray[np.float32]]
INPUT = "image"


@dataclass(frozen=True)
class Compiled:
    """What a compiled network answers to one input, and what it costs.

    Attributes
    ----------
    infer
        From an input of the example's shape to the outputs by name.
    parameters, operations, latency_ms
        See `build_engines.recipes.ladder.rows.Result`.
    """

    infer: Callable[[NDArray[np.float32]], Outputs]
    parameters: int
    operations: int
    latency_ms: float


def compiled(network: Network, example: NDArray[np.float32], outputs: Sequence[str], threads: int = 2) -> Compiled:
    """Export a network for inputs of the example's shape, weights as FP16, and compile it for FP32.

    The same steps as those of a package (`export.export` and the OpenVINO runtime), for inputs that the package format
    does not know, such as single patches or three neighbouring slices.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save_model(halve(trace(network, example, INPUT, list(outputs))), file)
        parameters, operations = size_of(file)
        model = openvino.Core().compile_model(
            file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        )

    def infer(image: NDArray[np.float32]) -> Outputs:
        answers = model(image)
        return {name: np.array(answers[name]) for name in outputs}

    return Compiled(infer, parameters, operations, time_of(lambda: infer(example)))


def train_and_judge(
    recipe: training.Trainable,
    steps: int,
    seed: int,
    example: NDArray[np.float32],
    outputs: Sequence[str],
    judge: Callable[[Compiled], Mapping[str, Estimate]],
) -> Result:
    """Train a network, or go on with its interrupted training, and judge it compiled.

    Parameters
    ----------
    example, outputs
        See `compiled`.
    judge
        Gives the figures of the compiled network.
    """
    begun = perf_counter()
    network = Trainer().train(recipe, steps, seed)
    seconds = perf_counter() - begun
    engine = compiled(network, example, outputs)
    return Result(
        metrics=judge(engine),
        parameters=engine.parameters,
        operations=engine.operations,
        latency_ms=engine.latency_ms,
        steps=steps,
        seconds=seconds,
        seed=seed,
    )
