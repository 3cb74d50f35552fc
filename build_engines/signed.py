"""Quantised networks as TensorRT reads them: in signed integers around zero."""

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from engines.errors import ModelPackageError

QUANTISING = frozenset({"DequantizeLinear", "QuantizeLinear"})

WIDER = 255 / 127
"""A scale that spread a range over 0 to 255 spreads it over 0 to 127."""


def to_signed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise to -127 to 127 what a network quantises to 0 to 255, as calibration does after a ReLU for the CPU.

    TensorRT takes UINT8 for INT8 without changing the scale, which would cut off the upper half of each range. With
    wider scales nothing is cut off, and steps are twice as coarse. What has a zero point other than zero stays as it
    is, and TensorRT refuses it.

    Raises
    ------
    ModelPackageError
        Weights are kept as UINT8.
    """
    signed = onnx.ModelProto()
    signed.CopyFrom(model)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in signed.graph.initializer}
    made: set[str] = set()
    for node in signed.graph.node:
        if node.op_type not in QUANTISING or not _is_unsigned(node, weights):
            continue
        if node.input[0] in weights:
            raise ModelPackageError(f"weight {node.input[0]} is kept as UINT8; quantise weights to symmetric INT8")
        scale = weights[node.input[1]]
        names = f"{node.input[1]}/signed", f"{node.input[1]}/zero"
        if not made.issuperset(names):
            signed.graph.initializer.append(numpy_helper.from_array((scale * WIDER).astype(scale.dtype), names[0]))
            signed.graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), names[1]))
            made.update(names)
        del node.input[1:]
        node.input.extend(names)
    del signed.graph.value_info[:]
    return shape_inference.infer_shapes(signed, check_type=True, strict_mode=True)


def _is_unsigned(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> bool:
    if len(node.input) < 3 or node.input[1] not in weights:
        return False
    zero = weights.get(node.input[2])
    return zero is not None and zero.dtype == np.uint8 and not zero.any()
