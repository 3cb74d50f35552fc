"""How many operations and bytes an inference takes, from the graph: what a roofline needs."""

from math import prod
from typing import NamedTuple

import onnx
from onnx import helper, shape_inference


class Work(NamedTuple):
    """Of one inference.

    ``operations`` are multiplications and additions of convolutions and matrix products, each counted; ``values`` are
    what these read and write at least: their inputs, weights and outputs once, everything between them fused.
    """

    operations: int
    values: int


def work_of(model: onnx.ModelProto) -> Work:
    """Count the work of a network with fixed shapes."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    operations = values = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        image, weight, answer = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        # One multiplication and one addition for each weight that meets each place: of the answer where a convolution
        # gathers, of the image where a transposed one scatters.
        if node.op_type == "Conv":
            operations += 2 * prod(answer) * prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            operations += 2 * prod(image) * prod(weight[1:])
        else:
            operations += 2 * prod(answer) * weight[1 if attributes.get("transB") else 0]
        values += prod(image) + prod(weight) + prod(answer)
    return Work(operations, values)


def least_ms(work: Work, bytes_per_value: int, tflop_per_s: float, gb_per_s: float) -> float:
    """The roofline: no machine of this rate and bandwidth is faster (Williams et al., CACM 2009)."""
    return max(work.operations / tflop_per_s / 1e9, work.values * bytes_per_value / gb_per_s / 1e6)
