"""Networks whose exporter wrote a batch of one into them, made to take any batch."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

PER_SAMPLE = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Conv", "ConvTranspose", "Div", "Elu",
    "Erf", "Exp", "Floor", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity",
    "InstanceNormalization", "LeakyRelu", "Log", "MaxPool", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu",
    "Resize", "Selu", "Shape", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
})  # fmt: skip
"""Operators that never look from one sample at another, a sample being what lies under one index of the first axis."""

DEFAULT_AXIS = {"Concat": 0, "Flatten": 1, "LogSoftmax": -1, "Softmax": -1, "Split": 0}
"""Operators that work along the attribute ``axis``, with its default."""


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the first length of every ``Reshape`` follow from the others, so that the network takes any batch.

    Exporters write ``[2, 8, 64, 64]`` where a sample of 16 × 64 × 64 becomes two of 8 × 64 × 64; with ``[-1, 8, 64,
    64]`` it is the same for a batch of one, and right for every other, as long as samples stay one behind the other in
    memory and nothing looks from one at another. Where an operator is not known to keep to that, nothing is changed:
    one patient's image must not touch another's answer.

    Parameters
    ----------
    model
        Its weights may be initialisers or constants.

    Returns
    -------
    onnx.ModelProto
        For a batch of one it computes the same, bit for bit.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    shapes = {weight.name: weight for weight in freed.graph.initializer if weight.data_type == TensorProto.INT64}
    shapes |= {node.output[0]: node.attribute[0].t for node in freed.graph.node if _is_constant(node)}
    lengths = _image_lengths(model)
    on_images = [node for node in freed.graph.node if lengths.keys() & set(node.input)]
    if not all(_keeps_samples_apart(node, lengths, shapes) for node in on_images):
        return freed
    for index, node in enumerate(on_images):
        if node.op_type != "Reshape" or node.input[1] not in shapes:
            continue
        target = numpy_helper.to_array(shapes[node.input[1]]).copy()
        if -1 not in target:
            target[0] = -1
        elif lengths[node.input[0]][:1] == [target[0]]:
            # Reshape takes 0 as the length that is there.
            target[0] = 0
        name = f"{node.input[1]}/any batch {index}"
        freed.graph.initializer.append(numpy_helper.from_array(target.astype(np.int64), name))
        node.input[1] = name
    _drop_unused(freed.graph)
    return freed


def _image_lengths(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Give the shape of every floating-point tensor that depends on the input."""
    weights = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        if weights.issuperset(name for name in node.input if name):
            weights.update(node.output)
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
        if value.name not in weights and value.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }


def _keeps_samples_apart(
    node: onnx.NodeProto, lengths: Mapping[str, Sequence[int]], shapes: Mapping[str, TensorProto]
) -> bool:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    rank = len(lengths.get(node.input[0], ()))
    if node.op_type in PER_SAMPLE:
        return True
    if node.op_type == "Reshape":
        return len(lengths.get(node.output[0], ())) > 1
    if node.op_type == "Transpose":
        return bool(attributes.get("perm", [1])[0] == 0)
    if node.op_type == "Gemm":
        return not attributes.get("transA", 0) and node.input[1] not in lengths
    if node.op_type == "MatMul":
        return rank > 1 and node.input[1] not in lengths
    if node.op_type in DEFAULT_AXIS:
        return rank > 0 and attributes.get("axis", DEFAULT_AXIS[node.op_type]) % rank != 0
    if node.op_type == "Slice" or node.op_type.startswith("Reduce"):
        at = 3 if node.op_type == "Slice" else 1
        given = shapes.get(node.input[at]) if len(node.input) > at else None
        axes = attributes.get("axes", []) if given is None else numpy_helper.to_array(given).tolist()
        return bool(axes) and rank > 0 and all(axis % rank != 0 for axis in axes)
    return False


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)


def _is_constant(node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Constant"
        and node.attribute[0].name == "value"
        and node.attribute[0].t.data_type == TensorProto.INT64
    )
