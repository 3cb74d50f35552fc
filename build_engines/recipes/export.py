"""From a trained network to a model package: ``model.onnx``, ``golden.npz``, ``model.toml``, ``CARD.md``."""

import io
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from build_engines.recipes.activation import add_activation
from build_engines.recipes.files import write_network
from build_engines.recipes.networks import Network
from build_engines.recipes.training import Recipe

OPSET = 17


def export(recipe: Recipe, network: Network, folder: Path, figures: Mapping[str, float]) -> None:
    """Write a model package; a package that is there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = tomllib.loads(recipe.toml)
    # Rounded to what FP16 holds exactly, so that the stored golden input is the one that the reference saw.
    image = (np.round(recipe.golden() * 1024) / 1024).astype(np.float32)
    tensor, head = settings["input"]["tensor"], settings.get("segmentation") or settings["classification"]
    model = trace(network, image, tensor, head["tensor"])
    if "activation" in head:
        model = add_activation(model, head["activation"])
    write_network(model, image, tensor, [output.name for output in model.graph.output], folder)
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


def table(figures: Mapping[str, float]) -> str:
    """Write figures as a Markdown table."""
    return "\n".join(
        ["| figure | value |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in figures.items())]
    )
