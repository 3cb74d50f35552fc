"""Networks of the ladder that become no package: trained, then compiled by OpenVINO as a node compiles, and sized."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import onnx
import openvino
import torch
from numpy.typing import NDArray
from rich.console import Console

from build_engines.recipes import training
from build_engines.recipes.ladder.rows import size_of, time_of
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.packaging.export import trace
from build_engines.recipes.packaging.files import halve

Outputs = Mapping[str, NDArray[np.float32]]
INPUT = "image"
KEPT = Path(__file__).resolve().parents[3] / ".train"
EVERY = 100
"""Steps between two states that an interrupted training goes on from."""


def trained(recipe: training.Trainable, steps: int, seed: int) -> tuple[Network, float]:
    """Train a network, or go on with its interrupted training; its weights are kept in ``.train/NAME.pt``.

    Returns
    -------
    network
        See `training.train`.
    seconds
        That the training took, since it was gone on with if it was.
    """
    console, begun = Console(), perf_counter()

    def report(progress: training.Progress) -> None:
        if progress.step % 20 == 0:
            console.print(f"step {progress.step}: loss {progress.loss:.3f}")

    def checkpoint(network: Network) -> None:
        torch.save(network.state_dict(), KEPT / f"{recipe.name}.pt")

    KEPT.mkdir(exist_ok=True)
    network = training.train(
        recipe, steps, seed, None, report, checkpoint, every=EVERY, state=KEPT / f"{recipe.name}.state"
    )
    return network, perf_counter() - begun


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
