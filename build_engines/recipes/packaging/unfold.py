"""``python -m build_engines.recipes.packaging.unfold``: the weights of the shipped ``ct-lung``, to train on from.

The export folds batch normalisation into the convolutions. To train on, each normalisation is given back what it takes
away: the mean and the deviation of what it gets on training images. Before the first step the network answers as the
package does.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console
from torch import Tensor, nn

from build_engines.recipes.ct_lung import NAME, load
from build_engines.recipes.folders import DATA
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.trainer import weights_of
from engines.packages.package import SHIPPED_MODELS


def unfold(network: Network, model: onnx.ModelProto, images: Sequence[Tensor]) -> None:
    """Give a network the weights of its own export.

    Parameters
    ----------
    network
        As the recipe builds it; each batch normalisation stands behind a convolution, in the order of computation.
    model
        What was exported of it.
    images
        Batches ``[batch, 1, ...]`` that tell what the normalisations get.

    Raises
    ------
    ValueError
        The convolutions are not those of the network.
    """
    weights = convolutions(model)
    layers: list[Any] = list(network.modules())
    ours: list[Any] = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    if [tuple(layer.weight.shape) for layer in ours] != [weight.shape for weight, _ in weights]:
        raise ValueError("the convolutions of the file are not those of the recipe's network; train from scratch")
    after = dict(pairwise(layers))
    normalisations = _normalisations(network)
    with torch.no_grad():
        for layer, (weight, bias) in zip(ours, weights, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            normed = any(after.get(layer) is each for each in normalisations)
            (after[layer] if normed else layer).bias.copy_(torch.from_numpy(bias))
        for layer in normalisations:
            nn.init.zeros_(layer.running_mean)
            # With the constant that the normalisation adds it is then exactly one.
            nn.init.constant_(layer.running_var, 1 - layer.eps)
            nn.init.ones_(layer.weight)
        _measure(network, images)


def convolutions(model: onnx.ModelProto) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Give weights and bias of each convolution, in the order of computation; weights may be stored as FP16."""
    arrays: Mapping[str, Any] = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    cast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    return [
        (arrays[cast.get(weight, weight)].astype(np.float32), arrays[cast.get(bias, bias)].astype(np.float32))
        for node in model.graph.node
        if node.op_type == "Conv"
        for _, weight, bias in [node.input]
    ]


def _measure(network: Network, images: Sequence[Tensor]) -> None:
    """Set each normalisation's mean and deviation to those of its input, without changing what it gives."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        seen.setdefault(layer, []).append((inputs[0].mean(axes), (inputs[0] ** 2).mean(axes)))

    layers = _normalisations(network)
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    network.eval()
    for batch in images:
        network.logits(batch)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        mean, square = (torch.stack(each).mean(0) for each in zip(*seen[layer], strict=True))
        variance = (square - mean**2).clamp(min=0)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
        layer.weight.copy_(torch.sqrt(variance + layer.eps))
        layer.bias.add_(mean)


def _normalisations(network: Network) -> list[Any]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d)]


def run(
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
    batches: Annotated[int, typer.Option(help="Of training images that tell what normalisations get.")] = 8,
) -> None:
    """Write the weights of ``ct-lung`` to .train/ct-lung-shipped.pt, for ``wetread-train ct-lung --start``."""
    recipe, random = load(data), np.random.default_rng(1)
    network = recipe.network()
    model = onnx.load(SHIPPED_MODELS / NAME / "model.onnx")
    unfold(network, model, [recipe.batch(random)[0] for _ in range(batches)])
    file = weights_of(f"{NAME}-shipped")
    file.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), file)
    Console().print(f"{file.name} has the weights of {NAME}")


if __name__ == "__main__":
    typer.run(run)
