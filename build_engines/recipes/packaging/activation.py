"""Class activation maps (Zhou et al., CVPR 2016) as a further output of a classifier's graph.

A classifier that ends in a global average, a linear layer and a softmax can say where it looked without gradients: the
linear layer, applied at every place of the last feature map instead of to its average. A graph that does so compiles
like any other, and the weights and the probabilities stay as they are, bit for bit.

``python -m build_engines.recipes.packaging.activation FOLDER`` adds the output that ``classification.activation`` in
``model.toml`` names to a package that lacks it, and writes its ``golden.npz`` again.
"""

import tomllib
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from build_engines.recipes.packaging.files import write_network

RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze"})
"""What may lie between the global average and the linear layer."""


def add_activation(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Give a classifier its class activation maps as a second output.

    The softmax does not see what is common to all classes, and training leaves it as random as it began; so the mean of
    the weights over the classes is taken off. What is left says where the image speaks for a class rather than for the
    others, and its average over the map is the class's logit, but for bias and what is common.

    Parameters
    ----------
    model
        Ends in global average, linear layer (``Gemm``) and softmax; static shapes.
    name
        Of the new output: float32 ``[1, class, row, column]`` on the grid of the last feature map.

    Raises
    ------
    ValueError
        The graph does not end so, or has such an output.
    """
    if name in {output.name for output in model.graph.output}:
        raise ValueError(f"{name!r} is an output already; leave the network as it is")
    made_by = {output: node for node in model.graph.node for output in node.output}
    softmax = _of_kind(made_by.get(model.graph.output[0].name), "Softmax")
    linear = _of_kind(made_by.get(softmax.input[0]), "Gemm")
    average = made_by.get(linear.input[0])
    while average is not None and average.op_type in RESHAPES:
        average = made_by.get(average.input[0])
    features = _of_kind(average, "ReduceMean", "GlobalAveragePool").input[0]

    weights = _weights(model, made_by.get(linear.input[1]), linear.input[1])
    if not any(attribute.name == "transB" and attribute.i for attribute in linear.attribute):
        weights = weights.T
    weights = weights - weights.mean(axis=0)
    classes, channels = weights.shape
    kernel = numpy_helper.from_array(weights.reshape(classes, channels, 1, 1).astype(np.float32), f"{name}.weight")

    grid = _shape(model, features)[2:]
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    widened.graph.initializer.append(kernel)
    widened.graph.node.append(helper.make_node("Conv", [features, kernel.name], [name], name=f"/{name}"))
    widened.graph.output.append(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, classes, *grid]),
    )
    onnx.checker.check_model(widened, full_check=True)
    return widened


def _of_kind(node: onnx.NodeProto | None, *kinds: str) -> onnx.NodeProto:
    if node is None or node.op_type not in kinds:
        raise ValueError(
            f"expected {' or '.join(kinds)}, found {node.op_type if node else 'nothing'}: only a network that ends in "
            "global average, linear layer and softmax has class activation maps"
        )
    return node


def _weights(model: onnx.ModelProto, cast: onnx.NodeProto | None, name: str) -> NDArray[np.float64]:
    """Give the values of a weight that may be stored as FP16 and cast."""
    stored = cast.input[0] if cast is not None else name
    for initialiser in model.graph.initializer:
        if initialiser.name == stored:
            return numpy_helper.to_array(initialiser).astype(np.float64)
    raise ValueError(f"the linear layer's weight {name} is no constant")


def _shape(model: onnx.ModelProto, tensor: str) -> list[int]:
    graph = shape_inference.infer_shapes(model).graph
    for value in (*graph.value_info, *graph.input):
        if value.name == tensor:
            return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    raise ValueError(f"the shape of {tensor} is not known; export the network with static shapes")


def run(
    folder: Annotated[Path, typer.Argument(help="A package whose model.toml has classification.activation.")],
) -> None:
    """Add class activation maps to a classifier's package."""
    description = tomllib.loads((folder / "model.toml").read_text(encoding="utf-8"))
    tensor, head = description["input"]["tensor"], description["classification"]
    image = np.load(folder / "golden.npz")[tensor].astype(np.float32)
    model = add_activation(onnx.load(folder / "model.onnx"), head["activation"])
    write_network(model, image, tensor, [head["tensor"], head["activation"]], folder)


if __name__ == "__main__":
    typer.run(run)
