"""From a model package to an engine file that a runtime loads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from build_engines.graph import load_graph, to_half
from engines.engine_file import engine_file_name, write_engine
from engines.errors import PermanentError
from engines.package import ModelPackage
from engines.runtimes.base import Precision, RuntimeSettings
from engines.runtimes.openvino import compile_model, openvino_version
from engines.runtimes.tensorrt import PORTABLE, PRECISIONS, Gpu, load_tensorrt, tensorrt_logger

Target = Literal["rtx", "tensorrt", "openvino"]

Progress = Callable[[str, float], None]
"""Told the name of the compiler's present phase, and which part of it is done, 0 to 1."""


class BuildError(PermanentError):
    """A network cannot be compiled; the message holds the compiler's reason."""


def build(
    package: ModelPackage,
    target: Target,
    precision: Precision,
    out: Path,
    *,
    capability: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Compile one model.

    Parameters
    ----------
    package
        The model.
    target
        ``rtx`` (TensorRT for RTX, needs no GPU), ``tensorrt`` (needs the GPU that the engine is for), or ``openvino``
        (for this machine's CPU).
    precision
        ``fp32`` or ``fp16`` on a GPU; ``fp32`` or ``bf16`` on the CPU.
    out
        Folder of the engine file; made if it is not there.
    capability
        For ``rtx``: the one compute capability to compile for, for example ``sm89``; None for an engine that runs on
        every GPU from 8.0 on.
    progress
        Told about the compiler's phases.

    Returns
    -------
    Path
        The engine file. Its name holds the model's digest, the runtime's version, the device and the precision. An
        engine file is there whole or not at all.

    Raises
    ------
    RuntimeUnavailable
        The compiler is not installed, or the target's device is not there.
    ModelPackageError
        The network is no valid ONNX model.
    BuildError
        The compiler refuses the network, the precision or the compute capability.
    """
    if capability is not None and target != "rtx":
        raise BuildError(f"{target} compiles for the device of this machine; leave the compute capability out")
    network = package.networks[0]
    if target == "openvino":
        runtime, device, engine = _with_openvino(package, network, precision)
    else:
        runtime, device, engine = _with_tensorrt(package, network, target, precision, capability, progress)
    name = engine_file_name(package, network, runtime=runtime, device=device, precision=precision, grids=[package.grid])
    write_engine(out / name, engine)
    return out / name


Compiled = tuple[str, str, bytes]
"""Runtime with its version, device, and the engine itself, as the file's name and content."""


def _with_openvino(package: ModelPackage, network: Path, precision: Precision) -> Compiled:
    compiled = compile_model(package, network, RuntimeSettings(precision=precision), package.grid)
    return f"openvino-{openvino_version()}", "cpu", compiled.export_model().getvalue()


def _with_tensorrt(
    package: ModelPackage, network: Path, target: str, precision: str, capability: str | None, progress: Progress | None
) -> Compiled:
    if precision not in PRECISIONS:
        raise BuildError(f"{target} has no precision {precision!r} here; choose one of {', '.join(PRECISIONS)}")
    trt = load_tensorrt(target)
    model = load_graph(package, network)
    if precision == "fp16":
        model = to_half(model)
    runtime = f"{target}-{trt.__version__}"
    if target == "rtx":
        return runtime, capability or PORTABLE, _compile(trt, package, model.SerializeToString(), capability, progress)
    gpu = Gpu(0)
    try:
        with gpu.current():
            return runtime, gpu.capability, _compile(trt, package, model.SerializeToString(), None, progress)
    finally:
        gpu.release()


def _compile(trt: Any, package: ModelPackage, onnx: bytes, capability: str | None, progress: Progress | None) -> bytes:
    logger = tensorrt_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BuildError(f"TensorRT cannot read {package.folder}: {reasons}")
    config = builder.create_builder_config()
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_compute_capability(trt, capability), 0)
    if progress is not None:
        config.progress_monitor = _progress_monitor(trt, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(f"TensorRT cannot compile {package.folder}: {logger.last_error or 'no reason given'}")
    return bytes(engine)


def _compute_capability(trt: Any, capability: str) -> Any:
    known: Mapping[str, Any] = {
        name.lower(): value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")
    }
    if capability not in known:
        raise BuildError(f"TensorRT for RTX has no compute capability {capability!r}; choose of {', '.join(known)}")
    return known[capability]


def _progress_monitor(trt: Any, progress: Progress) -> Any:
    # A class in a function: its base class exists only once TensorRT is imported.
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, (step + 1) / max(1, self._steps[phase_name]))
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress(phase_name, 1.0)

    return Monitor()
