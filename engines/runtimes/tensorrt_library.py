"""TensorRT and TensorRT for RTX: one Python API, two modules; which to take, and how they tell what went wrong."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import structlog

from engines.errors import OutOfMemory, RuntimeUnavailable
from engines.runtimes.cuda import Gpu
from engines.runtimes.engine_file import read_engine

log = structlog.get_logger()

MODULES = {"rtx": "tensorrt_rtx_bindings", "tensorrt": "tensorrt"}
"""The module of each runtime."""

RTX_FROM = 80
"""TensorRT for RTX's portable engines run from compute capability 8.0 on."""


def load_tensorrt(runtime: str) -> Any:
    """Import TensorRT (``tensorrt``) or TensorRT for RTX (``rtx``).

    Raises
    ------
    RuntimeUnavailable
        It is not installed.
    """
    module = MODULES[runtime]
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(f"{module} cannot be imported ({error}); pip install 'wetread[{runtime}]'") from error


def best_gpu_runtime(capability: str) -> Literal["rtx", "tensorrt"]:
    """Choose the runtime for a GPU, of those that are installed.

    TensorRT for RTX comes first where NVIDIA names the GPU's compute capability for it: it builds in seconds and needs
    no GPU for that. For other GPUs from 8.0 on (the H100's ``sm90``) TensorRT comes first, and TensorRT for RTX is
    tried where there is no TensorRT: the golden check tells whether it can be used.

    Parameters
    ----------
    capability
        As `engines.runtimes.cuda.Gpu` has it, for example ``sm89``.

    Raises
    ------
    RuntimeUnavailable
        None of them can be used; the message says what to install.
    """
    recent = int(capability.removeprefix("sm")) >= RTX_FROM
    has_rtx = recent and find_spec(MODULES["rtx"]) is not None
    if has_rtx and capability.upper() in load_tensorrt("rtx").ComputeCapability.__members__:
        return "rtx"
    if find_spec(MODULES["tensorrt"]) is not None:
        return "tensorrt"
    if has_rtx:
        return "rtx"
    extra = "rtx" if recent else "tensorrt"
    raise RuntimeUnavailable(f"nothing is installed that runs on a GPU of {capability}; pip install 'wetread[{extra}]'")


def installed_gpu_runtime(device: int) -> Literal["rtx", "tensorrt"]:
    """Choose the runtime for the GPU of this number, see `best_gpu_runtime`.

    Raises
    ------
    RuntimeUnavailable
        There is no such GPU, or nothing is installed that runs on it.
    """
    return best_gpu_runtime(Gpu(device).capability)


def deserialise(runtime: Any, path: Path) -> Any:
    """Turn an engine file into a TensorRT engine.

    Parameters
    ----------
    runtime
        ``tensorrt.Runtime`` with a logger from `tensorrt_logger`.
    path
        The engine file.

    Returns
    -------
    tensorrt.ICudaEngine

    Raises
    ------
    RuntimeUnavailable
        TensorRT refuses the file: another version, another GPU, no GPU at all, or a damaged file.
    OutOfMemory
        The GPU's memory does not hold its weights.
    """
    engine = runtime.deserialize_cuda_engine(read_engine(path))
    if engine is None:
        raise refusal(runtime.logger.last_error, f"TensorRT cannot use {path} on this machine")
    return engine


def refusal(reason: str, what: str) -> OutOfMemory | RuntimeUnavailable:
    """Make the error for something that TensorRT did not do; only its log tells why."""
    if "outofmemory" in reason.lower().replace(" ", "").replace("_", ""):
        return OutOfMemory(f"{what} ({reason}); see with nvidia-smi what else uses the GPU's memory")
    return RuntimeUnavailable(
        f"{what} ({reason or 'no reason given'}); check the GPU with nvidia-smi, or build the engine again with "
        "'wetread engines build'"
    )


def tensorrt_logger(trt: Any) -> Any:
    """Make a logger that sends TensorRT's warnings to the log, and keeps the last error for messages.

    Returns
    -------
    tensorrt.ILogger
        With an attribute ``last_error``.
    """

    # A class in a function: its base class exists only once TensorRT is imported.
    class StructuredLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last_error = message
                log.warning("tensorrt.error", message=message)
            elif severity == trt.ILogger.WARNING:
                log.debug("tensorrt.warning", message=message)

    return StructuredLogger()
