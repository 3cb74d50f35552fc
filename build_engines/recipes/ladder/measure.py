"""What a row of the ladder costs and answers: size and time of its network, and its figures as a node runs it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnx
from onnx import shape_inference

from build_engines.recipes.ladder.rows import Result
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import EngineSet, open_engines
from evaluation.estimate import Estimate


def measure_package(package: ModelPackage, measure: Callable[[EngineSet], Mapping[str, Estimate]]) -> Result:
    """Measure a package through its compiled engine, as a node runs it; with the model that it is cropped to."""
    crop_to = package.input.crop_to
    packages = {package.name: package} | ({crop_to: load_package(SHIPPED_MODELS / crop_to)} if crop_to else {})
    with open_engines(packages, RuntimeSettings(threads=2, precision="fp32")) as engines:
        golden, engine = package.golden().input, engines.models[package.name].engine
        sizes = [size_of(file) for file in package.networks]
        return Result(
            metrics=measure(engines),
            parameters=sum(parameters for parameters, _ in sizes),
            operations=sum(operations for _, operations in sizes),
            latency_ms=time_of(lambda: engine.infer(golden)),
        )


def size_of(file: Path) -> tuple[int, int]:
    """Count the weights of an ONNX network with static shapes, and the multiply-adds of one inference."""
    model = shape_inference.infer_shapes(onnx.load(file))
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # A weight that is stored as FP16 has a cast behind it.
    cast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    operations = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            kernel = weights.get(cast.get(node.input[1], node.input[1]), [])
            places = shapes[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
            spread = int(np.prod(places[2:])) if len(places) > 2 else 1
            operations += int(np.prod(kernel)) * spread * places[0]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    parameters = sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type in floats)
    return parameters, operations


def time_of(infer: Callable[[], object], rounds: int = 9) -> float:
    """Give the median time of a call in milliseconds, after one to warm up."""
    infer()
    seconds = []
    for _ in range(rounds):
        begun = perf_counter()
        infer()
        seconds.append(perf_counter() - begun)
    return 1000 * median(seconds)
