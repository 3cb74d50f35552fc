"""A network's outputs as a package wants them: those that are described, with their shapes, as probabilities."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from build_engines.importers.chain import Chain
from build_engines.importers.draft import Output, Remark
from engines.errors import ModelPackageError

Array = NDArray[np.float32]

SUM_TOLERANCE = 1e-3

MOVING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that move values and change none."""

ASKED = {"map": "its segments and the patch", "vector": "its classes", "list": "its labels and format"}


def keep_outputs(graph: onnx.GraphProto, outputs: Sequence[Output], prefix: str) -> list[Remark]:
    """Drop the outputs that nothing describes, and order the others.

    Raises
    ------
    ModelPackageError
        One is not there.
    """
    remarks = []
    names = [value.name.removeprefix(prefix) for value in graph.output]
    wanted = [output.source or names[0] for output in outputs]
    if missing := [name for name in wanted if name not in names]:
        raise ModelPackageError(f"the network has no output {', '.join(missing)}; it has {', '.join(names)}")
    if len(names) > 1 and any(not output.source for output in outputs):
        remarks.append(Remark("assumed", "output", f"the first of {', '.join(names)}"))
    if dropped := [name for name in names if name not in wanted]:
        remarks.append(Remark("left out", "outputs", f"{', '.join(dropped)}: nothing describes them"))
    kept = [value for name in wanted for value in graph.output if value.name == f"{prefix}{name}"]
    del graph.output[:]
    graph.output.extend(kept)
    return remarks


def shape_output(
    graph: onnx.GraphProto, found: str, output: Output, answer: Array, grid: tuple[int, ...], axes_swapped: bool
) -> list[Remark]:
    """Append what makes an output of a package of one of the network.

    Parameters
    ----------
    found
        The network's output.
    output
        What is wanted; it becomes an output of the graph.
    answer
        What the network gives for an input of the wanted shape.
    grid
        That of the input.
    axes_swapped
        Whether the network gives images column by column.

    Raises
    ------
    ModelPackageError
        The answer cannot have the wanted shape, or is not finite.
    """
    chain = Chain(graph, found, output.name)
    if answer.dtype != np.float32:
        chain.then("Cast", to=TensorProto.FLOAT)
    shaped, wanted = _shaped(chain, output, answer.astype(np.float32), tuple(reversed(grid)) if axes_swapped else grid)
    if shaped.shape != wanted:
        raise ModelPackageError(
            f"the output {output.source or output.name} has shape {list(answer.shape)}, but {ASKED[output.kind]} ask "
            f"for {list(wanted)}; correct the labels, the patch or the task"
        )
    if not np.isfinite(shaped).all():
        raise ModelPackageError(f"the output {output.name} holds NaN or infinity for a plain input; check the scaling")
    remarks = _activate(graph, chain, found, output, shaped)
    if output.without_first:
        chain.then("Slice", [1], [output.channels], [1])
    if axes_swapped and output.kind == "map":
        chain.then("Transpose", perm=[0, 1, *reversed(range(2, shaped.ndim))])
    chain.then("Identity")
    chain.ends_as(output.name)
    graph.node.extend(chain.nodes)
    lengths = [1, output.channels - output.without_first, *grid] if output.kind == "map" else list(wanted)
    graph.output.append(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, lengths))
    return remarks


def _shaped(chain: Chain, output: Output, answer: Array, grid: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """Bring an answer to the order of axes that is wanted, as far as it can be; give it with the wanted shape."""
    match output.kind:
        case "map":
            wanted: tuple[int, ...] = (1, output.channels, *grid)
            if answer.shape == (1, *grid, output.channels) and answer.shape != wanted:
                order = [0, answer.ndim - 1, *range(1, answer.ndim - 1)]
                chain.then("Transpose", perm=order)
                answer = answer.transpose(order)
            elif answer.shape == (1, *grid) and output.channels == 1:
                chain.then("Unsqueeze", [1])
                answer = answer[:, None]
        case "vector":
            wanted = (1, output.channels)
            if answer.shape != wanted and answer.size == output.channels:
                chain.then("Reshape", [-1, output.channels])
                answer = answer.reshape(wanted)
        case "list":
            if answer.ndim == 2 and output.channels == 1:
                chain.then("Unsqueeze", [2])
                answer = answer[..., None]
            wanted = (1, answer.shape[1] if answer.ndim > 1 else 0, output.channels)
    return answer, wanted


def _activate(graph: onnx.GraphProto, chain: Chain, found: str, output: Output, answer: Array) -> list[Remark]:
    """Append softmax or sigmoid where the answer is no probability yet."""
    axis, activation = (2 if output.kind == "list" else 1), output.activation
    if activation == "none":
        return []
    if _is_probability(graph, found, answer, axis, output):
        return [Remark("taken over", output.name, "the network gives probabilities itself")]
    if activation == "guess":
        activation = "softmax" if output.kind != "list" and output.channels > 1 else "sigmoid"
        remark = Remark("assumed", output.name, f"the network gives logits: {activation} is appended")
    else:
        remark = Remark("taken over", output.name, f"{activation} is appended")
    chain.then("Softmax", axis=axis) if activation == "softmax" else chain.then("Sigmoid")
    return [remark]


def _is_probability(
    graph: onnx.GraphProto, tensor: str, answer: NDArray[np.float32], axis: int, output: Output
) -> bool:
    """Whether an output needs no softmax or sigmoid any more: by what makes it, and by its values."""
    if not ((answer >= 0).all() and (answer <= 1).all()):
        return False
    maker = _maker(graph, tensor)
    if maker in ("Softmax", "Sigmoid"):
        return output.activation in ("guess", maker.lower())
    if output.activation != "sigmoid" and output.channels > 1 and output.kind != "list":
        sums = np.abs(answer.sum(axis=axis) - 1).max() < SUM_TOLERANCE
        return bool(sums) or (output.activation == "guess" and output.kind == "map")
    return output.activation == "guess" and output.kind != "vector"


def _maker(graph: onnx.GraphProto, tensor: str) -> str:
    """The operator that makes a tensor, looking through those that only move values."""
    makers = {name: node for node in graph.node for name in node.output}
    while (node := makers.get(tensor)) is not None and node.op_type in MOVING:
        tensor = node.input[0]
    return node.op_type if node is not None else ""
