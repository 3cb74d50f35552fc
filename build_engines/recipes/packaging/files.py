"""The files of a package that hold the network: ``model.onnx`` or several, and ``golden.npz`` with the answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

SMALLEST = 64
"""Initialisers with fewer values stay FP32: shapes and scalars, which no size is gained from."""


def write_network(
    model: onnx.ModelProto, image: NDArray[np.float32], tensor: str, outputs: Sequence[str], folder: Path
) -> None:
    """Write ``model.onnx``, and what ONNX Runtime answers with it; see `write_networks`."""
    write_networks({"model.onnx": model}, image, tensor, outputs, folder)


def write_networks(
    models: Mapping[str, onnx.ModelProto],
    image: NDArray[np.float32],
    tensor: str,
    outputs: Sequence[str],
    folder: Path,
) -> None:
    """Write the networks of a package, and the mean of what ONNX Runtime answers with them.

    Parameters
    ----------
    models
        By file name. They compute in FP32; their weights are stored as FP16.
    image
        The golden input, which FP16 holds exactly.
    tensor, outputs
        Names of the network's input and of its outputs.
    folder
        Of the package.
    """
    given = []
    for file, model in models.items():
        onnx.save_model(halve(model), folder / file)
        given.append(reference(folder / file, image))
    answers = {name: np.mean([each[name] for each in given], axis=0, dtype=np.float32) for name in outputs}
    # Probabilities are rounded, so that the file is small.
    golden = {name: np.round(answers[name] * 1024) / 1024 if name == outputs[0] else answers[name] for name in outputs}
    arrays = {name: array.astype(np.float16) for name, array in {tensor: image, **golden}.items()}
    np.savez_compressed(folder / "golden.npz", allow_pickle=False, **arrays)


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the FP32 weights as FP16, each followed by a cast to FP32: a small file that computes in FP32."""
    casts = []
    for weights in model.graph.initializer:
        if weights.data_type != onnx.TensorProto.FLOAT or np.prod(weights.dims) < SMALLEST:
            continue
        name = weights.name
        half = numpy_helper.to_array(weights).astype(np.float16)
        weights.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.fp16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def reference(model: Path, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a model in ONNX Runtime on the CPU, which is the reference for every engine: its outputs by name."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers: Any = session.run(names, {session.get_inputs()[0].name: image})
    return {name: np.asarray(answer, np.float32) for name, answer in zip(names, answers, strict=True)}
