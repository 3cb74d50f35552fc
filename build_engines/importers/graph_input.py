"""A network's input as a package wants it: ``image``, with the described shape, FP32."""

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from build_engines.importers.chain import Chain
from build_engines.importers.draft import TENSOR
from engines.errors import ModelPackageError


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights; older files list the weights among them."""
    weights = {weight.name for weight in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    """The lengths of a tensor's axes; None where the file leaves them open."""
    return [
        each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else None
        for each in value.type.tensor_type.shape.dim
    ]


def shape_input(graph: onnx.GraphProto, shape: Sequence[int], axes_swapped: bool) -> None:
    """Give a graph the input that a package wants, and bring it to what the network takes.

    Parameters
    ----------
    graph
        Has one input.
    shape
        ``[1, channel, …grid]``.
    axes_swapped
        Whether the network takes images column by column.

    Raises
    ------
    ModelPackageError
        The network takes another shape.
    """
    (old,) = graph.input
    described, kind = dimensions(old), old.type.tensor_type.elem_type
    chain, now = Chain(graph, TENSOR, f"{TENSOR}/source"), list(shape)

    def transpose(order: Sequence[int]) -> None:
        nonlocal now
        chain.then("Transpose", perm=list(order))
        now = [now[axis] for axis in order]

    if axes_swapped:
        transpose([0, 1, *reversed(range(2, len(shape)))])
    if len(described) == len(shape) - 1 and shape[1] == 1:
        chain.then("Squeeze", [1])
        now = [now[0], *now[2:]]
    elif _channels_last(described, now):
        transpose([0, *range(2, len(now)), 1])
    if not _fits(described, now):
        told = [length if length is not None else "any" for length in described]
        raise ModelPackageError(
            f"the network takes {told}, but the description asks for {list(shape)}; correct patch or size and channels"
        )
    if kind != TensorProto.FLOAT:
        chain.then("Cast", to=kind)
    for node in graph.node if not chain.nodes else ():
        node.input[:] = [TENSOR if each == old.name else each for each in node.input]
    if chain.nodes:
        chain.ends_as(old.name)
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*chain.nodes, *rest])
    graph.input.append(helper.make_tensor_value_info(TENSOR, TensorProto.FLOAT, list(shape)))


def _channels_last(described: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether only an input with its channels on the last axis fits the file."""
    if len(described) != len(shape) or described[1] in (None, shape[1]):
        return False
    return _fits(described, [shape[0], *shape[2:], shape[1]])


def _fits(described: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(described) == len(shape) and all(
        known in (None, length) for known, length in zip(described[1:], shape[1:], strict=True)
    )
