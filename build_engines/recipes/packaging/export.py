"""From a trained network to a model package: ``model.onnx``, ``golden.npz``, ``model.toml``, ``CARD.md``."""

import io
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.packaging.activation import add_activation
from build_engines.recipes.packaging.files import write_networks
from build_engines.recipes.training import Recipe

OPSET = 17


def export(recipe: Recipe, network: Network, folder: Path) -> None:
    """Write a model package, but for the figures of its card; a package that is there is replaced."""
    export_all(recipe, [network], folder)


def export_all(recipe: Recipe, networks: Sequence[Network], folder: Path) -> None:
    """Write the package of an ensemble: as many networks as ``network.files`` names.

    Raises
    ------
    ValueError
        Another number of networks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = tomllib.loads(recipe.toml)
    # Rounded to what FP16 holds exactly, so that the stored golden input is the one that the reference saw.
    image = (np.round(recipe.golden() * 1024) / 1024).astype(np.float32)
    tensor = settings["input"]["tensor"]
    files = settings.get("network", {}).get("files", ["model.onnx"])
    activation = settings.get("classification", {}).get("activation")
    models = {}
    for file, network in zip(files, networks, strict=True):
        model = trace(network, image, tensor, outputs(settings))
        models[file] = add_activation(model, activation) if activation else model
    write_networks(models, image, tensor, [output.name for output in models[files[0]].graph.output], folder)
    (folder / "model.toml").write_text(recipe.toml, encoding="utf-8")
    (folder / "CARD.md").write_text(recipe.card, encoding="utf-8")


def outputs(settings: Mapping[str, Any]) -> list[str]:
    """Name the outputs of a network in the order in which `Network.forward` gives them."""
    tensors = [
        ("segmentation", "tensor"),
        ("classification", "tensor"),
        ("detection", "places"),
        ("detection", "scores"),
    ]
    return [settings[table][key] for table, key in tensors if table in settings]


def trace(network: Network, image: NDArray[np.float32], input_name: str, output_names: list[str]) -> onnx.ModelProto:
    """Export a network in evaluation mode with static shapes; batch normalisation is folded into the convolutions."""
    buffer: Any = io.BytesIO()
    torch.onnx.export(
        network.eval(),
        (torch.from_numpy(image),),
        buffer,
        input_names=[input_name],
        output_names=output_names,
        opset_version=OPSET,
        dynamo=False,
    )
    return onnx.load_from_string(buffer.getvalue())
