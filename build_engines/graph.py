"""The ONNX graph as a compiler wants it: weights in the precision that the engine computes in.

TensorRT takes each tensor's type from the graph, so the precision of an engine is decided here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from build_engines.batching import free_batch
from build_engines.shapes import Grid, with_open_grid, with_shape
from build_engines.signed import QUANTISING, to_signed
from engines.errors import ModelPackageError
from engines.packages.package import ModelPackage

KEPT_IN_FP32 = frozenset({
    "BatchNormalization", "GlobalAveragePool", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
    "LogSoftmax", "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "Softmax", "Sqrt",
})  # fmt: skip
"""Operators that add up many values or take their exponent: FP16 overflows at 65504 and has 11 bits."""

TYPED_BY_ATTRIBUTE = frozenset({"Cast", "ConstantOfShape", "RandomNormal", "RandomUniform", "Range"})
"""Operators whose output type does not follow from their inputs' type; they stay as they are."""

HALF_SCALES = 19
"""The first operator set in which scales of quantisation may be FP16."""

ALWAYS_FP32_INPUTS: Mapping[str, frozenset[int]] = {"Resize": frozenset({1, 2})}
"""Inputs that the operator's definition fixes to FP32: region of interest and scales."""


def load_graph(
    package: ModelPackage, network: Path, grids: Sequence[Grid] | None = None, batch: int = 1
) -> onnx.ModelProto:
    """Read a package's network for a compiler, and see that it takes the shapes that it is compiled for.

    Weights that are kept as FP16 to be small become FP32 weights, and constants become initialisers.

    Parameters
    ----------
    package, network
        The model, and the file that is compiled (`ModelPackage.network_for`).
    grids
        What the input's spatial lengths may be; the package's own grid if None. Where there are several, the lengths
        stay open.
    batch
        How many inputs there are at once.

    Returns
    -------
    onnx.ModelProto
        With the type and shape of every tensor inferred.

    Raises
    ------
    ModelPackageError
        The file is no valid ONNX model, has more than one input, has control flow, or does not take a grid or the batch
        because other shapes are constants of its graph.
    """
    grids = grids or [package.grid]
    try:
        model = onnx.load(network)
        _constants_to_initialisers(model.graph)
        _fold_casts(model.graph)
        if batch > 1:
            model = free_batch(model)
        shaped = [with_shape(model, package, grid, batch) for grid in grids]
        return shaped[0] if len(shaped) == 1 else with_open_grid(model, package, batch)
    except (DecodeError, onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        raise ModelPackageError(f"{network}: {error}; export the model again") from error


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a network compute in FP16, except for what needs FP32's range; its input and output stay FP32.

    A quantised network stays in integers where it is.

    Parameters
    ----------
    model
        As from `load_graph`.

    Raises
    ------
    ModelPackageError
        A weight is too large for FP16.
    """
    if any(node.op_type in QUANTISING for node in model.graph.node):
        model = _typed_scales(to_signed(model))
    half = _lowered(model, TensorProto.FLOAT16)
    onnx.checker.check_model(half)
    return shape_inference.infer_shapes(half, check_type=True, strict_mode=True)


def to_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a network compute in bfloat16, except for what needs FP32's digits; its input and output stay FP32.

    ONNX types convolutions in bfloat16 from operator set 22 on only, so the result is for compilers that do not mind.

    Parameters
    ----------
    model
        As from `load_graph`.
    """
    return _lowered(model, TensorProto.BFLOAT16)


def _lowered(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    graph = _LoweredGraph(model.graph, kind)
    for node in model.graph.node:
        graph.add(node)
    for output in model.graph.output:
        graph.tensor(output.name, TensorProto.FLOAT)
    return helper.make_model(
        helper.make_graph(
            graph.nodes, model.graph.name, model.graph.input, model.graph.output, list(graph.initialisers.values())
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )


def _typed_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise the operator set to the first whose quantisation may have scales, and so neighbours, in FP16."""
    if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) >= HALF_SCALES:
        return model
    raised = version_converter.convert_version(model, HALF_SCALES)
    return shape_inference.infer_shapes(raised, check_type=True, strict_mode=True)


class _LoweredGraph:
    """Grows a graph node by node; each FP32 tensor ``t`` may have a twin ``t/half``, made when it is first needed."""

    def __init__(self, source: onnx.GraphProto, kind: int) -> None:
        self._kind = kind
        self._suffix = "half" if kind == TensorProto.FLOAT16 else "bfloat16"
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}
        self._weights: dict[str, TensorProto] = {weight.name: weight for weight in source.initializer}
        self._types = {name: weight.data_type for name, weight in self._weights.items()}
        for value in (*source.input, *source.value_info, *source.output):
            self._types[value.name] = value.type.tensor_type.elem_type
        self._made = {value.name for value in source.input}

    def add(self, node: onnx.NodeProto) -> None:
        full = node.op_type in KEPT_IN_FP32 | TYPED_BY_ATTRIBUTE
        kind = TensorProto.FLOAT if full else self._kind
        always_full = ALWAYS_FP32_INPUTS.get(node.op_type, frozenset())
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(
            self.tensor(name, TensorProto.FLOAT if index in always_full else kind)
            for index, name in enumerate(node.input)
        )
        copy.output.extend(self._name(name, kind) for name in node.output)
        self._made.update(copy.output)
        self.nodes.append(copy)

    def tensor(self, name: str, kind: int) -> str:
        """Give the name under which a tensor is there in FP32 or FP16; make it if it is not there yet."""
        typed = self._name(name, kind)
        if not name or typed in self._made:
            return typed
        if name in self._weights:
            self.initialisers[typed] = self._weight(name, typed)
        else:
            other = self._kind if kind == TensorProto.FLOAT else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [self._name(name, other)], [typed], to=kind))
        self._made.add(typed)
        return typed

    def _name(self, name: str, kind: int) -> str:
        lowered = kind == self._kind and self._types.get(name) == TensorProto.FLOAT
        return f"{name}/{self._suffix}" if lowered else name

    def _weight(self, name: str, typed: str) -> TensorProto:
        if typed == name:
            return self._weights[name]
        array = numpy_helper.to_array(self._weights[name])
        largest = float(np.abs(array).max(initial=0.0))
        if self._kind == TensorProto.FLOAT16 and largest > float(np.finfo(np.float16).max):
            raise ModelPackageError(f"weight {name} holds {largest:g}, too large for fp16; build with precision fp32")
        lowered: TensorProto = numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(self._kind)), typed)
        return lowered


def _constants_to_initialisers(graph: onnx.GraphProto) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        weight = graph.initializer.add()
        weight.CopyFrom(node.attribute[0].t)
        weight.name = node.output[0]
        graph.node.remove(node)


def _fold_casts(graph: onnx.GraphProto) -> None:
    weights = {weight.name: weight for weight in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]:
        array = numpy_helper.to_array(weights[node.input[0]])
        wanted = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
        graph.initializer.append(numpy_helper.from_array(array.astype(wanted), node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
