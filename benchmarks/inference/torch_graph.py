"""An ONNX graph as a PyTorch module, operator by operator: the peer that computes with the weights that we ship."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

Attributes = Mapping[str, Any]


class TorchGraph(nn.Module):
    """Runs a network as PyTorch does.

    On a CPU, an operator on FP16 tensors computes in FP32 and rounds its result: FP16 with FP32 accumulation, which is
    what tensor cores do, and no CPU does quickly.

    Parameters
    ----------
    model
        As from `folded`: one input, no control flow, and the operators of `OPERATORS`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        self.names = [value.name for value in graph.output]
        weights = {weight.name: weight for weight in graph.initializer}
        [self.input] = [value.name for value in graph.input if value.name not in weights]
        # What says how (shapes, axes, scales) stays beside the tensors, so that a compiler sees it as constant.
        self.constants: dict[str, list[Any]] = {}
        self.places: dict[str, str] = {}
        for index, (name, weight) in enumerate(weights.items()):
            array = numpy_helper.to_array(weight)
            self.constants[name] = array.ravel().tolist() if array.size <= 16 else []
            self.places[name] = f"weight{index}"
            self.register_buffer(self.places[name], torch.from_numpy(np.array(array)))
        self.steps = []
        for node in graph.node:
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            if node.op_type not in OPERATORS:
                raise ValueError(f"no operator {node.op_type} here; add it to OPERATORS")
            self.steps.append((OPERATORS[node.op_type], attributes, tuple(node.input), tuple(node.output)))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Answer ``[batch, channel, …grid]`` with every output by name."""
        known: dict[str, Tensor] = {name: getattr(self, place) for name, place in self.places.items()}
        known[self.input] = image
        emulated = image.device.type == "cpu"
        for operator, attributes, inputs, outputs in self.steps:
            tensors = [known[name] if name else None for name in inputs]
            how = [self.constants.get(name, []) for name in inputs]
            rounded = emulated and any(tensor is not None and tensor.dtype == torch.half for tensor in tensors)
            if rounded:
                tensors = [
                    tensor.float() if tensor is not None and tensor.dtype == torch.half else tensor
                    for tensor in tensors
                ]
            answers = operator(attributes, tensors, how)
            for name, answer in zip(outputs, answers if isinstance(answers, tuple) else (answers,), strict=False):
                known[name] = answer.half() if rounded and operator is not cast else answer
        return {name: known[name] for name in self.names}


class Averaged(nn.Module):
    """Averages the answers of an ensemble's networks, as `engines.runtimes.base.Ensemble` does."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Answer with every output by name."""
        answers = [network(image) for network in self.networks]
        return {name: torch.stack([answer[name] for answer in answers]).mean(dim=0) for name in answers[0]}


def folded(network: Path) -> onnx.ModelProto:
    """Read a network, compute what depends on no input, and leave the rest in plain ONNX operators."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


# ---- operators: attributes, tensors, and the values of those inputs that are small constants -------------------------


def convolve(attributes: Attributes, tensors: Sequence[Any], _: Any) -> Tensor:
    image, weight, bias = (*tensors, None)[:3]
    dimensions = weight.ndim - 2
    pads = attributes.get("pads", [0] * 2 * dimensions)
    before, after = pads[:dimensions], pads[dimensions:]
    if before != after:
        image = functional.pad(
            image, [part for pair in reversed(list(zip(before, after, strict=True))) for part in pair]
        )
        before = [0] * dimensions
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[dimensions - 1]
    ones = [1] * dimensions
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    answer: Tensor = run(image, weight, bias, strides, before, dilations, attributes.get("group", 1))
    return answer


def resize(attributes: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[float]]) -> Tensor:
    mode = attributes["mode"].decode()
    linear = {4: "bilinear", 5: "trilinear"}[tensors[0].ndim]
    answer: Tensor = functional.interpolate(
        tensors[0], scale_factor=list(how[2][2:]), mode=linear if mode == "linear" else mode
    )
    return answer


def cast(attributes: Attributes, tensors: Sequence[Any], _: Any) -> Tensor:
    kinds = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.half}
    answer: Tensor = tensors[0].to(kinds[attributes["to"]])
    return answer


def clip(_: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[float]]) -> Tensor:
    answer: Tensor = tensors[0].clamp(how[1][0], how[2][0])
    return answer


def split(attributes: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = tensors[0].split([int(part) for part in how[1]], attributes.get("axis", 0))
    return parts


def cut(_: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[int]]) -> Tensor:
    tensor: Tensor = tensors[0]
    starts, ends, axes = (list(map(int, each)) for each in how[1:4])
    for start, end, axis in zip(starts, ends, axes, strict=True):
        tensor = tensor.narrow(axis, start, min(end, tensor.shape[axis]) - start)
    return tensor


def gather(attributes: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[int]]) -> Tensor:
    axis, index = attributes.get("axis", 0), tensors[1]
    if index.ndim:
        answer: Tensor = tensors[0].index_select(axis, index.ravel()).unflatten(axis, index.shape)
        return answer
    one: Tensor = tensors[0].select(axis, int(how[1][0]))
    return one


def average(attributes: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[int]]) -> Tensor:
    axes = attributes.get("axes") or [int(axis) for axis in how[1]]
    answer: Tensor = tensors[0].mean(dim=tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))
    return answer


def reshape(_: Attributes, tensors: Sequence[Any], how: Sequence[Sequence[int]]) -> Tensor:
    image: Tensor = tensors[0]
    return image.reshape([image.shape[axis] if length == 0 else int(length) for axis, length in enumerate(how[1])])


def multiply_matrices(attributes: Attributes, tensors: Sequence[Any], _: Any) -> Tensor:
    image, weight, bias = tensors
    answer: Tensor = functional.linear(image, weight if attributes.get("transB") else weight.T, bias)
    return answer


def norm_of_instance(attributes: Attributes, tensors: Sequence[Any], _: Any) -> Tensor:
    image, scale, shift = tensors
    return functional.instance_norm(image, weight=scale, bias=shift, eps=attributes.get("epsilon", 1e-5))


OPERATORS: Mapping[str, Callable[[Attributes, Sequence[Any], Sequence[Any]], Any]] = {
    "Add": lambda _, tensors, how: tensors[0] + tensors[1],
    "Cast": cast,
    "Clip": clip,
    "Concat": lambda attributes, tensors, how: torch.cat(tensors, dim=attributes["axis"]),
    "Conv": convolve,
    "Div": lambda _, tensors, how: tensors[0] / tensors[1],
    "Gather": gather,
    "Gemm": multiply_matrices,
    "Identity": lambda _, tensors, how: tensors[0],
    "InstanceNormalization": norm_of_instance,
    "LeakyRelu": lambda attributes, tensors, how: functional.leaky_relu(tensors[0], attributes.get("alpha", 0.01)),
    "Mul": lambda _, tensors, how: tensors[0] * tensors[1],
    "ReduceMean": average,
    "Relu": lambda _, tensors, how: torch.relu(tensors[0]),
    "Reshape": reshape,
    "Resize": resize,
    "Sigmoid": lambda _, tensors, how: torch.sigmoid(tensors[0]),
    "Slice": cut,
    "Softmax": lambda attributes, tensors, how: torch.softmax(tensors[0], dim=attributes.get("axis", -1)),
    "Split": split,
    "Sqrt": lambda _, tensors, how: torch.sqrt(tensors[0]),
    "Sub": lambda _, tensors, how: tensors[0] - tensors[1],
    "Transpose": lambda attributes, tensors, how: tensors[0].permute(attributes["perm"]),
}
"""What the shipped models and an nnU-Net are made of."""
