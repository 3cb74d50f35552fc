"""Networks whose exporter wrote a batch of one into them, made to take any batch."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the first length of every ``Reshape`` follow from the others, so that the network takes any batch.

    Exporters write ``[2, 8, 64, 64]`` where a sample of 16 × 64 × 64 becomes two of 8 × 64 × 64; with ``[-1, 8, 64,
    64]`` it is the same for a batch of one, and right for every other, as long as samples stay one behind the other in
    memory. So nothing is changed where an operator mixes the first axis with others.

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
    reshapes = [node for node in freed.graph.node if node.op_type == "Reshape" and node.input[1] in shapes]
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    known = {value.name: value.type.tensor_type for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    images = {name for name, kind in known.items() if kind.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)}
    if any(_mixes_samples(node) for node in freed.graph.node if images.intersection(node.input)):
        return freed
    for index, node in enumerate(reshapes):
        lengths = numpy_helper.to_array(shapes[node.input[1]]).copy()
        if not lengths.size or lengths[0] <= 0:
            continue
        if -1 not in lengths:
            lengths[0] = -1
        elif node.input[0] in known and lengths[0] == known[node.input[0]].shape.dim[0].dim_value:
            # Reshape takes 0 as the length that is there.
            lengths[0] = 0
        name = f"{node.input[1]}/any batch {index}"
        freed.graph.initializer.append(numpy_helper.from_array(lengths.astype(np.int64), name))
        node.input[1] = name
    _drop_unused(freed.graph)
    return freed


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


def _mixes_samples(node: onnx.NodeProto) -> bool:
    """Whether an operator on images moves, joins or sums along the first axis, as far as attributes tell."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Transpose":
        return bool(attributes.get("perm", [1])[0] != 0)
    return attributes.get("axis", 1) == 0 or 0 in attributes.get("axes", [])
