"""From a trained network to a model package: ``model.onnx``, ``golden.npz``, ``model.toml``, ``CARD.md``."""

import io
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from build_engines.recipes.networks import Network
from build_engines.recipes.training import Recipe

OPSET = 17
SMALLEST = 64
"""Initialisers with fewer values stay FP32: shapes and scalars, which no size is gained from."""


def export(recipe: Recipe, network: Network, folder: Path, figures: Mapping[str, float]) -> None:
    """Write a model package; a package that is there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = tomllib.loads(recipe.toml)
    # Rounded to what FP16 holds exactly, so that the stored golden input is the one that the reference saw.
    image = (np.round(recipe.golden() * 1024) / 1024).astype(np.float32)
    model = halve(trace(network, image, settings["input"]["tensor"], settings["output"]["tensor"]))
    onnx.save_model(model, folder / "model.onnx")
    output = reference(folder / "model.onnx", image)
    np.savez_compressed(
        folder / "golden.npz",
        input=image.astype(np.float16),
        output=(np.round(output * 1024) / 1024).astype(np.float16),
    )
    (folder / "model.toml").write_text(recipe.toml, encoding="utf-8")
    write_card(recipe, folder, figures)


def write_card(recipe: Recipe, folder: Path, figures: Mapping[str, float]) -> None:
    """Write the package's ``CARD.md`` with these figures."""
    (folder / "CARD.md").write_text(recipe.card.replace("{figures}", table(figures)), encoding="utf-8")


def trace(network: Network, image: NDArray[np.float32], input_name: str, output_name: str) -> onnx.ModelProto:
    """Export a network in evaluation mode with static shapes; batch normalisation is folded into the convolutions."""
    buffer: Any = io.BytesIO()
    torch.onnx.export(
        network.eval(),
        (torch.from_numpy(image),),
        buffer,
        input_names=[input_name],
        output_names=[output_name],
        opset_version=OPSET,
        dynamo=False,
    )
    return onnx.load_from_string(buffer.getvalue())


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


def reference(model: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model in ONNX Runtime on the CPU, which is the reference for every engine."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    result: Any = session.run(None, {session.get_inputs()[0].name: image})[0]
    return np.asarray(result, dtype=np.float32)


def table(figures: Mapping[str, float]) -> str:
    """Write figures as a Markdown table."""
    return "\n".join(
        ["| figure | value |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in figures.items())]
    )
