"""Transfer learning: an encoder that starts with the weights of a package, which holds no more than an ONNX graph."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from build_engines.recipes.networks.encoders import Encoder


def start_from(encoder: Encoder, file: Path, images: Tensor) -> None:
    """Give an encoder the weights of the network in a file, whose encoder is built alike.

    Exporting folds each batch normalisation into its convolution. It is unfolded by what the channels are on some
    images: the encoder answers as the exported one, and training finds every channel with the scale that it had.

    Parameters
    ----------
    images
        ``[batch, 1, row, column]`` as the network is given them; a few are enough.

    Raises
    ------
    ValueError
        The graph does not begin with such an encoder.
    """
    graph = onnx.load(file).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values |= {n.output[0]: values[n.input[0]] for n in graph.node if n.op_type == "Cast" and n.input[0] in values}

    def tensor_of(name: str, shape: torch.Size) -> Tensor:
        found = values.get(name)
        if found is None or found.shape != tuple(shape):
            raise ValueError(f"{file} has no {name} of shape {tuple(shape)}: its encoder is another one")
        return torch.from_numpy(found.astype("float32"))

    # A graph is in the order of execution, as are the modules of an encoder.
    folded = [node for node in graph.node if node.op_type == "Conv"]
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    if len(folded) < len(convolutions):
        raise ValueError(f"{file} has {len(folded)} convolutions, fewer than the encoder's {len(convolutions)}")
    with torch.no_grad():
        for convolution, norm, node in zip(convolutions, norms, folded, strict=False):
            convolution.weight.copy_(tensor_of(node.input[1], convolution.weight.shape))
            norm.reset_running_stats()
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.copy_(tensor_of(node.input[2], norm.bias.shape))
        for name, parameter in encoder.named_parameters():
            if f"encoder.{name}" in values:
                parameter.copy_(tensor_of(f"encoder.{name}", parameter.shape))
    _unfold(encoder, images)


def _unfold(encoder: Encoder, images: Tensor) -> None:
    """Give each batch normalisation the mean and the variance that it sees, and take them back after it."""

    def observe(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = given[0].mean(dim=(0, 2, 3)), given[0].var(dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)

    hooks = [m.register_forward_pre_hook(observe) for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    training = encoder.training
    with torch.no_grad():
        encoder.eval()(images)
    encoder.train(training)
    for hook in hooks:
        hook.remove()
