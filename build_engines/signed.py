"""Quantised activations as TensorRT wants them: with a sign."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

QUANTISING = ("QuantizeLinear", "DequantizeLinear")

WIDER = np.float32(255 / 127)
"""So much larger are the steps, for the same range in half as many of them."""


def with_signed_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let activations that are quantised to 0…255 be quantised to −128…127 over the same range.

    What comes out of a ReLU has no sign, and OpenVINO wants it without: that is a bit more, and OpenVINO 2026.4.1
    computes signed 3D convolutions wrong. TensorRT knows INT8 alone, and takes UINT8 for it without changing the scale:
    everything above half of the range would be cut off.

    Parameters
    ----------
    model
        With a zero point of 0 wherever it is UINT8.

    Raises
    ------
    ValueError
        A zero point is UINT8 and not 0.
    """
    signed = onnx.ModelProto()
    signed.CopyFrom(model)
    weights = {each.name: each for each in signed.graph.initializer}
    nodes = [node for node in signed.graph.node if node.op_type in QUANTISING and len(node.input) > 2]
    unsigned = [node for node in nodes if weights[node.input[2]].data_type == TensorProto.UINT8]
    if any(numpy_helper.to_array(weights[node.input[2]]).any() for node in unsigned):
        raise ValueError("a zero point of UINT8 is not 0, so the range has no middle; quantise symmetrically")
    for name in {node.input[1] for node in unsigned}:
        scale = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array((scale * WIDER).astype(scale.dtype), name))
    for name in {node.input[2] for node in unsigned}:
        zero = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array(zero.astype(np.int8), name))
    del signed.graph.value_info[:]
    return signed
