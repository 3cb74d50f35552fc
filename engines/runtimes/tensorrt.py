"""TensorRT and TensorRT for RTX: one Python API, two modules.

The engine file comes from ``wetread engines build``. TensorRT's objects and pycuda's memory live in the device's
primary context, which is made current around each use, so that any thread may infer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.engine_file import engine_file_name, read_engine
from engines.errors import ModelPackageError, RuntimeUnavailable
from engines.package import ModelPackage
from engines.runtimes.base import Engine, Outputs, RuntimeSettings
from engines.types import EngineIdentity

PORTABLE = "ampere+"
"""The device of an engine of TensorRT for RTX that was compiled for no one GPU: compute capability 8.0 and later."""

PRECISIONS = ("fp32", "fp16")


class TensorRtEngine(Engine):
    """A model on TensorRT.

    Parameters
    ----------
    package
        The model.
    settings
        ``engines`` is the folder that holds the engine file; ``device`` is the GPU's number.
    """

    runtime = "tensorrt"

    def __init__(self, package: ModelPackage, network: Path, settings: RuntimeSettings) -> None:
        self._package = package
        self._network = network
        self._settings = settings
        self._lock = Lock()
        self._device: Gpu | None = None
        self._session: _Session | None = None
        self._identity = EngineIdentity(self.runtime, settings.precision, f"GPU {settings.device}")

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return self._identity

    def activate(self) -> None:
        """See `Engine.activate`."""
        if self._settings.precision not in PRECISIONS:
            raise RuntimeUnavailable(
                f"TensorRT has no precision {self._settings.precision!r} here; choose one of {', '.join(PRECISIONS)}"
            )
        trt = load_tensorrt(self.runtime)
        device = Gpu(self._settings.device)
        try:
            path = find_engine_file(
                self._package, self._network, self._settings, f"{self.runtime}-{trt.__version__}", device.capability
            )
            with device.current():
                self._session = _Session(trt, device.driver, self._package, path)
        except BaseException:
            device.release()
            raise
        self._device = device
        self._identity = EngineIdentity(f"{self.runtime} {trt.__version__}", self._settings.precision, device.name)

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        with self._lock:
            if self._session is None or self._device is None:
                raise RuntimeUnavailable(f"the engine of {self._package.name} is not active; activate it first")
            with self._device.current():
                return self._session.infer(tensor)

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        with self._lock:
            if self._device is None:
                return
            device, session = self._device, self._session
            self._device = self._session = None
            with device.current():
                if session is not None:
                    session.close()
            device.release()


class TensorRtRtxEngine(TensorRtEngine):
    """A model on TensorRT for RTX; see `TensorRtEngine`."""

    runtime = "rtx"


def load_tensorrt(runtime: str) -> Any:
    """Import TensorRT (``tensorrt``) or TensorRT for RTX (``rtx``).

    Raises
    ------
    RuntimeUnavailable
        It is not installed.
    """
    module = {"rtx": "tensorrt_rtx_bindings", "tensorrt": "tensorrt"}[runtime]
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(f"{module} cannot be imported ({error}); pip install 'wetread[{runtime}]'") from error


def find_engine_file(
    package: ModelPackage, network: Path, settings: RuntimeSettings, runtime: str, capability: str
) -> Path:
    """Find the engine file of a model: the one for this GPU, else the portable one.

    Parameters
    ----------
    package, network, settings
        The model, the file of its network, and where its engines are.
    runtime
        With its version, for example ``rtx-1.7.1.116``.
    capability
        Of the GPU, for example ``sm89``.

    Raises
    ------
    RuntimeUnavailable
        There is none; the message says how to build it.
    """
    name = runtime.split("-")[0]
    build = f"wetread engines build {package.name} --target {name} --precision {settings.precision}"
    if settings.engines is None:
        raise RuntimeUnavailable(f"no engine folder is set; build with '{build} --out DIR' and set engines.compiled")
    names = [
        engine_file_name(
            package,
            package.network_for(network, settings.precision),
            runtime=runtime,
            device=device,
            precision=settings.precision,
            grids=[package.grid],
        )
        for device in (capability, PORTABLE)
    ]
    for path in (settings.engines / name for name in names):
        if path.is_file():
            return path
    raise RuntimeUnavailable(
        f"{settings.engines} holds no {names[0]}; build it with '{build} --out {settings.engines}'"
    )


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
    """
    engine = runtime.deserialize_cuda_engine(read_engine(path))
    if engine is None:
        raise RuntimeUnavailable(
            f"TensorRT cannot use {path} on this machine ({runtime.logger.last_error or 'no reason given'}); check the "
            "GPU with nvidia-smi, or build the engine again with 'wetread engines build'"
        )
    return engine


def tensorrt_logger(trt: Any) -> Any:
    """Make a logger that sends TensorRT's warnings to the log, and keeps the last error for messages.

    Returns
    -------
    tensorrt.ILogger
        With an attribute ``last_error``.
    """
    log = structlog.get_logger()

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


class Gpu:
    """A GPU's primary context, through pycuda."""

    def __init__(self, number: int) -> None:
        try:
            self.driver: Any = import_module("pycuda.driver")
        except (ImportError, OSError) as error:
            raise RuntimeUnavailable(
                f"pycuda cannot be imported ({error}); install the NVIDIA driver and the CUDA toolkit, then "
                "pip install pycuda"
            ) from error
        try:
            self.driver.init()
            device = self.driver.Device(number)
            self._context = device.retain_primary_context()
        except self.driver.Error as error:
            raise RuntimeUnavailable(f"GPU {number} cannot be used ({error}); check it with nvidia-smi") from error
        self.name: str = device.name()
        self.capability = "sm{}{}".format(*device.compute_capability())

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; CUDA's errors become `RuntimeUnavailable`."""
        self._context.push()
        try:
            yield
        except self.driver.Error as error:
            raise RuntimeUnavailable(f"{self.name} failed ({error}); check it with nvidia-smi") from error
        finally:
            self._context.pop()

    def release(self) -> None:
        """Give the context back."""
        self._context.detach()


class _Session:
    """A deserialised engine with its execution context, stream and buffers. The CUDA context must be current."""

    def __init__(self, trt: Any, driver: Any, package: ModelPackage, path: Path) -> None:
        self._driver = driver
        self._runtime = trt.Runtime(tensorrt_logger(trt))
        self._engine = deserialise(self._runtime, path)
        self._execution = self._engine.create_execution_context()
        if self._execution is None:
            raise RuntimeUnavailable(f"{path} needs more GPU memory than is free; stop what else uses the GPU")
        self._input, self._outputs = package.description.input.tensor, tuple(package.described_outputs)
        golden = package.golden()
        shapes = {self._input: golden.input.shape, **{name: array.shape for name, array in golden.outputs.items()}}
        _check_tensors(trt, self._engine, shapes, path)
        # Page-locked host memory: only from there do copies run asynchronously, and at the bus's full speed.
        self._host = {name: driver.pagelocked_empty(shape, np.float32) for name, shape in shapes.items()}
        self._memory = {name: driver.mem_alloc(array.nbytes) for name, array in self._host.items()}
        for name, memory in self._memory.items():
            self._execution.set_tensor_address(name, int(memory))
        self._stream = driver.Stream()

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        np.copyto(self._host[self._input], tensor)
        self._driver.memcpy_htod_async(self._memory[self._input], self._host[self._input], self._stream)
        if not self._execution.execute_async_v3(self._stream.handle):
            raise RuntimeUnavailable("TensorRT could not start the inference; see tensorrt.error in the log")
        for name in self._outputs:
            self._driver.memcpy_dtoh_async(self._host[name], self._memory[name], self._stream)
        self._stream.synchronize()
        return {name: self._host[name].copy() for name in self._outputs}

    def close(self) -> None:
        self._stream.synchronize()
        # In this order: TensorRT wants the context gone before its engine, and pycuda frees only in a live context.
        del self._execution, self._engine, self._runtime
        del self._memory, self._host, self._stream


def _check_tensors(trt: Any, engine: Any, expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if names != expected.keys():
        raise ModelPackageError(
            f"{path} has the tensors {', '.join(sorted(names))}, but model.toml names {', '.join(expected)}; build the "
            "engine again"
        )
    for name, described in expected.items():
        shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)
        if shape != described or kind != trt.float32:
            raise ModelPackageError(
                f"{path}: tensor {name!r} is {kind} {list(shape)}, but model.toml describes float32 {list(described)}; "
                "build the engine again"
            )
