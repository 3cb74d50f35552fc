"""The shapes of an ONNX graph's tensors, for the grids and the batch that it is compiled for."""

from collections.abc import Sequence
from math import prod

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from engines.packages.package import ModelPackage

Grid = tuple[int, ...]

NOT_INFERRED = "[ShapeInferenceError] Inference error(s): "
"""How ONNX begins; each operator that it could not do follows, the first being the cause."""


def with_shape(model: onnx.ModelProto, package: ModelPackage, grid: Grid, batch: int) -> onnx.ModelProto:
    """Give a network the input of one grid, infer all other shapes from it, and see that the outputs follow.

    Raises
    ------
    ValueError
        There is more than one input, or control flow, or an output that ``model.toml`` does not describe; or a shape is
        a constant of the graph, as exporters leave it in a ``Reshape``, and belongs to another grid or batch.
    """
    shape = (batch, package.input.channels, *grid)
    try:
        shaped = _inferred(model, shape)
        _check_reshapes(shaped)
    except shape_inference.InferenceError as error:
        reason = str(error).removeprefix(NOT_INFERRED).strip().splitlines()[0]
        raise ValueError(
            f"it does not take {package.input.tensor} of {list(shape)} ({reason}); correct the grid, or let all axes "
            "but the channels be dynamic"
        ) from error
    described = package.output_shapes(grid, batch)
    found = {value.name: [dim.dim_value or None for dim in _dims(value)] for value in shaped.graph.output}
    if found.keys() != described.keys():
        raise ValueError(f"its outputs are {', '.join(found)}, but model.toml names {', '.join(described)}")
    for name, lengths in found.items():
        if not _agree(lengths, described[name]):
            raise ValueError(
                f"{name} is {lengths} for {package.input.tensor} of {list(shape)}, but model.toml describes "
                f"{list(described[name])}; correct it, or let all axes but the channels be dynamic"
            )
    return shaped


def with_open_grid(model: onnx.ModelProto, package: ModelPackage, batch: int) -> onnx.ModelProto:
    """Give a network an input whose spatial lengths are told only when it runs."""
    return _inferred(model, (batch, package.input.channels, *(f"length{axis}" for axis in range(len(package.grid)))))


def _inferred(model: onnx.ModelProto, shape: Sequence[int | str]) -> onnx.ModelProto:
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise ValueError(f"a network needs one input and no control flow, this has {len(inputs)} inputs")
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    del shaped.graph.input[:], shaped.graph.value_info[:]
    shaped.graph.input.append(helper.make_tensor_value_info(inputs[0].name, TensorProto.FLOAT, shape))
    for output in shaped.graph.output:
        # What the exporter wrote there is for its own example.
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(shaped, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred


def _check_reshapes(model: onnx.ModelProto) -> None:
    """See that every constant target of a Reshape has as many elements as what is put into it.

    The inference of shapes takes the target's word for it.
    """
    targets = {weight.name: weight for weight in model.graph.initializer if weight.data_type == TensorProto.INT64}
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    lengths = {value.name: [dim.dim_value for dim in _dims(value)] for value in values}
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in targets and all(lengths.get(node.input[0], [0])):
            target = numpy_helper.to_array(targets[node.input[1]])
            if (target > 0).all() and target.prod() != prod(lengths[node.input[0]]):
                raise ValueError(
                    f"its Reshape {node.name or node.output[0]!r} makes {target.tolist()} of {lengths[node.input[0]]}; "
                    "let all axes but the channels be dynamic"
                )


def _dims(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    dims: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return dims


def _agree(found: Sequence[int | None], described: Sequence[int | None]) -> bool:
    return len(found) == len(described) and all(
        one is None or other is None or one == other for one, other in zip(found, described, strict=True)
    )
