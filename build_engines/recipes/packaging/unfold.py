"""Transfer learning from a package, which holds no more than an ONNX graph: a network that starts with its weights.

Exporting folds each batch normalisation into its convolution. It is unfolded by what the channels are on some images:
the network answers as the exported one, and training finds every channel with the scale that it had.

``python -m build_engines.recipes.packaging.unfold`` does so with the shipped ``ct-lung``, to train it on.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from onnx import numpy_helper
from rich.console import Console
from torch import Tensor, nn

from build_engines.recipes.folders import DATA
from build_engines.recipes.trainer import weights_of
from engines.packages.package import SHIPPED_MODELS

NORMALISATIONS = (nn.BatchNorm2d, nn.BatchNorm3d)


def unfold(network: nn.Module, file: Path, images: Tensor, prefix: str = "") -> None:
    """Give a network, or the part of one that comes first, the weights that its export has in a file.

    Parameters
    ----------
    network
        Built as the exported one; each batch normalisation stands behind a convolution.
    images
        ``[batch, 1, ...]`` as the network is given them; a few are enough.
    prefix
        Of the part's name in the exported network, such as ``encoder.``.

    Raises
    ------
    ValueError
        The graph does not begin with such a network.
    """
    graph = onnx.load(file).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values |= {n.output[0]: values[n.input[0]] for n in graph.node if n.op_type == "Cast" and n.input[0] in values}

    def tensor_of(name: str, shape: torch.Size) -> Tensor:
        found = values.get(name)
        if found is None or found.shape != tuple(shape):
            raise ValueError(f"{file} has no {name} of shape {tuple(shape)}: its network is another one")
        return torch.from_numpy(found.astype("float32"))

    # A graph is in the order of execution, as are the modules of a network.
    folded = [node for node in graph.node if node.op_type == "Conv"]
    modules: list[Any] = list(network.modules())
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d | nn.Conv3d)]
    if len(folded) < len(convolutions):
        raise ValueError(f"{file} has {len(folded)} convolutions, fewer than the network's {len(convolutions)}")
    after = dict(pairwise(modules))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if f"{prefix}{name}" in values:
                parameter.copy_(tensor_of(f"{prefix}{name}", parameter.shape))
        for convolution, node in zip(convolutions, folded, strict=False):
            convolution.weight.copy_(tensor_of(node.input[1], convolution.weight.shape))
            norm = after.get(convolution)
            if isinstance(norm, NORMALISATIONS):
                norm.reset_running_stats()
                norm.weight.fill_((1 + norm.eps) ** 0.5)
                norm.bias.copy_(tensor_of(node.input[2], norm.bias.shape))
    _observe(network, images)


def _observe(network: nn.Module, images: Tensor) -> None:
    """Give each batch normalisation the mean and the variance that it sees, and take them back after it."""

    def observe(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, NORMALISATIONS)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        axes = [axis for axis in range(given[0].ndim) if axis != 1]
        mean, variance = given[0].mean(dim=axes), given[0].var(dim=axes)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)

    hooks = [m.register_forward_pre_hook(observe) for m in network.modules() if isinstance(m, NORMALISATIONS)]
    training = network.training
    with torch.no_grad():
        network.eval()(images)
    network.train(training)
    for hook in hooks:
        hook.remove()


def run(
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
    batches: Annotated[int, typer.Option(help="Of training images that tell what normalisations get.")] = 4,
) -> None:
    """Write the weights of ``ct-lung`` to .train/ct-lung-shipped.pt, for ``wetread-train ct-lung --start``."""
    from build_engines.recipes.ct_lung import NAME, load

    recipe, random = load(data), np.random.default_rng(1)
    network, file = recipe.network(), weights_of(f"{NAME}-shipped")
    images = torch.cat([recipe.batch(random)[0] for _ in range(batches)])
    unfold(network, SHIPPED_MODELS / NAME / "model.onnx", images)
    file.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), file)
    Console().print(f".train/{file.name} has the weights of {NAME}")


if __name__ == "__main__":
    typer.run(run)
