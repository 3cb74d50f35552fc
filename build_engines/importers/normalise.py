"""From the graph that somebody exported to the one that a package wants: one input, and the described outputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from build_engines.importers.draft import TENSOR, Output, Remark
from engines.errors import ModelPackageError

OPSET = 17
OLDEST_KEPT = 13
"""From this opset on, Softmax means what it says: along one axis."""

SUM_TOLERANCE = 1e-3

MOVING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


class Normalised(NamedTuple):
    """A graph as the package wants it, and what was done to it."""

    model: onnx.ModelProto
    remarks: tuple[Remark, ...]


def normalise(
    source: onnx.ModelProto,
    shape: Sequence[int],
    outputs: Sequence[Output],
    probe: NDArray[np.float32],
    *,
    axes_swapped: bool = False,
) -> Normalised:
    """Bring a network to the shape that docs/model-package.md asks for.

    Its input is called ``image``, has the wanted shape and is FP32; every wanted output has its name, its shape and
    gives probabilities; all others are dropped, with what only they need. The opset is 17 where it can be converted.

    Parameters
    ----------
    source
        As exported. It is not changed.
    shape
        Of the input: ``[1, channel, …grid]``.
    outputs
        What is wanted.
    probe
        An input, to see whether an output gives logits or probabilities.
    axes_swapped
        Whether the network takes and gives images column by column.

    Raises
    ------
    ModelPackageError
        It has several inputs, control flow, operators of another domain, lacks an output, or an output cannot have the
        shape that the labels ask for.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source)
    remarks: list[Remark] = []
    try:
        _one_input(model)
        remarks += _convert(model)
        _prefix(model.graph)
        _shape_input(model.graph, shape, axes_swapped)
        _keep_outputs(model.graph, outputs, remarks)
        for output in outputs:
            remarks += _shape_output(model, output, probe, axes_swapped)
        _drop_unused(model.graph)
        model.ir_version = min(model.ir_version, 10)
        onnx.checker.check_model(model)
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ModelPackageError(f"the network is no valid ONNX graph: {error}; export it again") from error
    return Normalised(inferred, tuple(remarks))


def run(model: onnx.ModelProto, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Answer with ONNX Runtime, the reference: the outputs by name.

    Raises
    ------
    ModelPackageError
        ONNX Runtime refuses the graph or the input.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        answers: Any = session.run(names, {session.get_inputs()[0].name: image})
    except Exception as error:  # ONNX Runtime's errors have no common class but this
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelPackageError(
            f"ONNX Runtime cannot run the network on an input of shape {list(image.shape)}: {reason}; "
            "give the patch or size that it was exported for, or export it again"
        ) from error
    return {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}


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


def _one_input(model: onnx.ModelProto) -> None:
    inputs = inputs_of(model.graph)
    if len(inputs) != 1:
        raise ModelPackageError(
            f"the network has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}); a package has one: "
            "export it with the image alone"
        )
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise ModelPackageError("the network has control flow (If, Loop or Scan); export it traced, without branches")
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise ModelPackageError(
            f"the network has operators of {', '.join(sorted(foreign)) or 'its own functions'}; export it with ONNX's "
            "own operators alone"
        )


def _convert(model: onnx.ModelProto) -> list[Remark]:
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset == OPSET:
        return []
    try:
        converted = version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter's errors are RuntimeError and its own
        if opset < OLDEST_KEPT:
            raise ModelPackageError(
                f"opset {opset} of the network cannot be converted to {OPSET} ({str(error).splitlines()[0]}); "
                "export it again with opset 17"
            ) from error
        return [Remark("to check", "opset", f"{opset} could not be converted to {OPSET} and is kept")]
    model.CopyFrom(converted)
    return [Remark("taken over", "opset", f"{opset}, converted to {OPSET}")]


def _prefix(graph: onnx.GraphProto) -> None:
    """Give all tensors new names, so that those of the package are free."""

    def renamed(name: str) -> str:
        return f"net/{name}" if name else name

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed(value.name)
    del graph.value_info[:]


def _shape_input(graph: onnx.GraphProto, shape: Sequence[int], axes_swapped: bool) -> None:
    (old,) = graph.input
    described, kind, name = dimensions(old), old.type.tensor_type.elem_type, old.name
    nodes: list[onnx.NodeProto] = []
    tensor, now = TENSOR, list(shape)

    def then(operator: str, suffix: str, inputs: Sequence[str] = (), **attributes: Any) -> None:
        nonlocal tensor
        nodes.append(helper.make_node(operator, [tensor, *inputs], [f"{TENSOR}/{suffix}"], **attributes))
        tensor = f"{TENSOR}/{suffix}"

    if axes_swapped:
        order = [0, 1, *reversed(range(2, len(shape)))]
        then("Transpose", "swapped", perm=order)
        now = [now[axis] for axis in order]
    if len(described) == len(shape) - 1 and shape[1] == 1:
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{TENSOR}/channel"))
        then("Squeeze", "squeezed", [f"{TENSOR}/channel"])
        now = [now[0], *now[2:]]
    elif _channels_last(described, now):
        order = [0, *range(2, len(now)), 1]
        then("Transpose", "channels_last", perm=order)
        now = [now[axis] for axis in order]
    if len(described) != len(now) or any(
        known not in (None, length) for known, length in zip(described[1:], now[1:], strict=True)
    ):
        told = [length if length is not None else "any" for length in described]
        raise ModelPackageError(
            f"the network takes {told}, but the description asks for {list(shape)}; correct patch or size and channels"
        )
    if kind != TensorProto.FLOAT:
        then("Cast", "cast", to=kind)
    if tensor == TENSOR:
        for node in graph.node:
            node.input[:] = [TENSOR if each == name else each for each in node.input]
    else:
        nodes[-1].output[0] = name
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *rest])
    graph.input.append(helper.make_tensor_value_info(TENSOR, TensorProto.FLOAT, list(shape)))


def _channels_last(described: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether only an input with its channels on the last axis fits the file."""
    if len(described) != len(shape) or described[1] in (None, shape[1]):
        return False
    moved = [shape[0], *shape[2:], shape[1]]
    return all(known in (None, length) for known, length in zip(described[1:], moved[1:], strict=True))


def _keep_outputs(graph: onnx.GraphProto, outputs: Sequence[Output], remarks: list[Remark]) -> None:
    names = [value.name.removeprefix("net/") for value in graph.output]
    wanted = [output.source or names[0] for output in outputs]
    if missing := [name for name in wanted if name not in names]:
        raise ModelPackageError(f"the network has no output {', '.join(missing)}; it has {', '.join(names)}")
    if len(names) > 1 and any(not output.source for output in outputs):
        remarks.append(Remark("assumed", "output", f"the first of {', '.join(names)}"))
    if dropped := [name for name in names if name not in wanted]:
        remarks.append(Remark("left out", "outputs", f"{', '.join(dropped)}: nothing describes them"))
    kept = [value for name in wanted for value in graph.output if value.name == f"net/{name}"]
    del graph.output[:]
    graph.output.extend(kept)


def _shape_output(
    model: onnx.ModelProto, output: Output, probe: NDArray[np.float32], axes_swapped: bool
) -> list[Remark]:
    graph = model.graph
    found = graph.output[0]
    answer = run(model, probe)[found.name]
    remarks: list[Remark] = []
    tensor, steps = found.name, 0

    def then(operator: str, inputs: Sequence[str] = (), **attributes: Any) -> None:
        nonlocal tensor, steps
        steps += 1
        made = f"{output.name}/{steps}"
        graph.node.append(helper.make_node(operator, [tensor, *inputs], [made], **attributes))
        tensor = made

    def constant(values: Sequence[int]) -> str:
        name = f"{output.name}/{steps}.constant"
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    if found.type.tensor_type.elem_type != TensorProto.FLOAT:
        then("Cast", to=TensorProto.FLOAT)
        answer = answer.astype(np.float32)
    grid = probe.shape[2:]
    swapped = tuple(reversed(grid)) if axes_swapped else grid
    if output.kind == "map":
        wanted: tuple[int, ...] = (1, output.channels, *swapped)
        if answer.shape == (1, *swapped, output.channels) and answer.shape != wanted:
            order = [0, answer.ndim - 1, *range(1, answer.ndim - 1)]
            then("Transpose", perm=order)
            answer = answer.transpose(order)
        elif answer.shape == (1, *swapped) and output.channels == 1:
            then("Unsqueeze", [constant([1])])
            answer = answer[:, None]
    elif output.kind == "vector":
        wanted = (1, output.channels)
        if answer.shape != wanted and answer.size == output.channels:
            then("Reshape", [constant([-1, output.channels])])
            answer = answer.reshape(wanted)
    else:
        if answer.ndim == 2 and output.channels == 1:
            then("Unsqueeze", [constant([2])])
            answer = answer[..., None]
        wanted = (1, answer.shape[1] if answer.ndim > 1 else 0, output.channels)
    if answer.shape != wanted:
        raise ModelPackageError(
            f"the output {output.source or found.name.removeprefix('net/')} has shape {list(answer.shape)}, but "
            f"{_described(output)} ask for {list(wanted)}; correct the labels, the patch or the task"
        )
    if not np.isfinite(answer).all():
        raise ModelPackageError(
            f"the output {output.name} holds NaN or infinity for a plain input; look at its scaling"
        )
    axis = 2 if output.kind == "list" else 1
    activation = output.activation
    if activation != "none" and _is_probability(graph, found.name, answer, axis, output):
        remarks.append(Remark("taken over", output.name, "the network gives probabilities itself"))
    elif activation != "none":
        if activation == "guess":
            activation = "softmax" if output.kind != "list" and output.channels > 1 else "sigmoid"
            remarks.append(Remark("assumed", output.name, f"the network gives logits: {activation} is appended"))
        else:
            remarks.append(Remark("taken over", output.name, f"{activation} is appended"))
        then("Softmax", axis=axis) if activation == "softmax" else then("Sigmoid")
    if output.without_first:
        then("Slice", [constant([1]), _another(graph, output, [output.channels]), _another(graph, output, [1])])
    if axes_swapped and output.kind == "map":
        then("Transpose", perm=[0, 1, *reversed(range(2, 2 + len(grid)))])
    then("Identity")
    graph.node[-1].output[0] = output.name
    lengths: list[int | str] = [1, output.channels - output.without_first, *grid]
    if output.kind != "map":
        lengths = [1, output.channels] if output.kind == "vector" else [1, wanted[1], output.channels]
    # those that are done go to the end, so that the next in turn is always the first
    rest = list(graph.output)[1:]
    del graph.output[:]
    graph.output.extend([*rest, helper.make_tensor_value_info(output.name, TensorProto.FLOAT, lengths)])
    return remarks


def _another(graph: onnx.GraphProto, output: Output, values: Sequence[int]) -> str:
    name = f"{output.name}/{len(graph.initializer)}.constant"
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _described(output: Output) -> str:
    return {"map": "its segments and the patch", "vector": "its classes", "list": "its labels and format"}[output.kind]


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


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop nodes and weights that no output needs: heads of deep supervision, for example."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for weight in [weight for weight in graph.initializer if weight.name not in needed]:
        graph.initializer.remove(weight)
