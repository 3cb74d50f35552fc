"""Who is measured: OpenVINO as a node runs it, and ONNX Runtime and PyTorch on the same weights, all of one shape.

The peers are configured as well as we know how: as many threads as we have, every graph optimisation, channels last.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from build_engines.graph import load_graph, to_half
from engines.errors import ModelPackageError, RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine, Ensemble, Outputs, Precision, RuntimeSettings, create_engine
from engines.types import EngineIdentity

Array = NDArray[np.float32]
Answer = Callable[[Array], Outputs]


@dataclass(frozen=True)
class Subject:
    """One runtime in one precision. ``timed`` is false for what only shows the accuracy of a precision."""

    name: str
    make: Callable[[ModelPackage, int], Engine]
    timed: bool = True


def openvino(precision: Precision) -> Callable[[ModelPackage, int], Engine]:
    def make(package: ModelPackage, threads: int) -> Engine:
        return create_engine(package, RuntimeSettings("openvino", precision, threads=threads))

    return make


class PeerEngine(Engine):
    """An engine that is made for each grid when it is first needed."""

    def __init__(
        self, package: ModelPackage, identity: EngineIdentity, load: Callable[[tuple[int, ...]], Answer]
    ) -> None:
        self._package = package
        self._identity = identity
        self._load = load
        self._loaded: dict[tuple[int, ...], Answer] = {}

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    def activate(self) -> None:
        self._answer(self._package.grid)

    def infer(self, tensor: Array) -> Outputs:
        return self._answer(tensor.shape[2:])(tensor)

    def deactivate(self) -> None:
        self._loaded.clear()

    def _answer(self, grid: tuple[int, ...]) -> Answer:
        if grid not in self._loaded:
            self._loaded[grid] = self._load(grid)
        return self._loaded[grid]


def onnx_runtime(precision: Precision) -> Callable[[ModelPackage, int], Engine]:
    def member(package: ModelPackage, threads: int, network: Path) -> Engine:
        file = package.network_for(network, precision)

        def load(grid: tuple[int, ...]) -> Answer:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                on_grid(file, package, grid).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            names = [output.name for output in session.get_outputs()]

            def answer(tensor: Array) -> Outputs:
                answers: Any = session.run(names, {package.input.tensor: tensor})
                return dict(zip(names, answers, strict=True))

            return answer

        return PeerEngine(package, EngineIdentity(f"onnxruntime {onnxruntime.__version__}", precision, "CPU"), load)

    def make(package: ModelPackage, threads: int) -> Engine:
        return Ensemble([member(package, threads, network) for network in package.networks])

    return make


def pytorch(precision: Precision, *, compiled: bool = False) -> Callable[[ModelPackage, int], Engine]:
    def make(package: ModelPackage, threads: int) -> Engine:
        try:
            import torch

            from benchmarks.inference.torch_graph import Averaged, TorchGraph, folded
        except ImportError as error:
            raise RuntimeUnavailable(f"PyTorch is not installed ({error}); pip install 'wetread[train]'") from error
        torch.set_num_threads(threads)
        graphs = [folded(network) for network in package.networks]
        graphs = [half(package, graph) for graph in graphs] if precision == "fp16" else graphs
        module: Any = Averaged([TorchGraph(graph) for graph in graphs]).eval()
        dimensions = len(package.input_shape)
        order = {4: torch.channels_last, 5: torch.channels_last_3d}[dimensions]
        for name, weight in list(module.named_buffers()):
            if weight.ndim == dimensions:
                setattr(module, name, weight.to(memory_format=order))
        module = torch.compile(module) if compiled else module

        def answer(tensor: Array) -> Outputs:
            image = torch.from_numpy(tensor.copy()).to(memory_format=order)  # golden arrays are read-only
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                answers = module(image)
            return {name: each.float().contiguous().numpy() for name, each in answers.items()}

        return PeerEngine(package, EngineIdentity(f"torch {torch.__version__}", precision, "CPU"), lambda _: answer)

    return make


def on_grid(file: Path, package: ModelPackage, grid: tuple[int, ...]) -> onnx.ModelProto:
    """Read a network with its input fixed to another grid."""
    model = onnx.load(file)
    if grid == package.grid:
        return model
    for value, shape in ((model.graph.input[0], (1, package.input.channels, *grid)),):
        for dimension, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = length
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def half(package: ModelPackage, graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that TensorRT is given for FP16."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save_model(graph, Path(folder) / "model.onnx")
        return to_half(load_graph(package, Path(folder) / "model.onnx"))


WETREAD: Mapping[str, Precision] = {"OpenVINO fp32": "fp32", "OpenVINO bf16": "bf16", "OpenVINO int8": "int8"}
ONNX_RUNTIME, TORCH = "ONNX Runtime fp32", "torch fp32"
SUBJECTS = (
    *(Subject(name, openvino(precision)) for name, precision in WETREAD.items()),
    Subject(ONNX_RUNTIME, onnx_runtime("fp32")),
    Subject("ONNX Runtime int8", onnx_runtime("int8")),
    Subject(TORCH, pytorch("fp32")),
    Subject("torch bf16", pytorch("bf16")),
    Subject("torch fp32 compiled", pytorch("fp32", compiled=True)),
    Subject("fp16 (TensorRT's graph, emulated)", pytorch("fp16"), timed=False),
)


def available(subject: Subject, package: ModelPackage, threads: int) -> Engine | str:
    """Make a subject's engine, or give the reason why there is none."""
    try:
        engine = subject.make(package, threads)
        engine.activate()
    except (RuntimeUnavailable, ModelPackageError) as error:
        return str(error)
    return engine
