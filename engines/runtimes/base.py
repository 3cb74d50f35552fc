"""The one shape that every inference runtime has, and the table that names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engines.errors import RuntimeUnavailable
from engines.package import ModelPackage
from engines.types import EngineIdentity

Precision = Literal["fp32", "fp16", "bf16"]

Outputs = Mapping[str, NDArray[np.float32]]
"""What a network answers: each of its output tensors by name, shaped as `ModelPackage.output_shapes` says."""


@dataclass(frozen=True)
class RuntimeSettings:
    """What engines run on.

    Attributes
    ----------
    runtime
        Name of the runtime that is tried first, see `RUNTIMES`.
    precision
        In which the network computes. TensorRT takes ``fp32`` and ``fp16``, OpenVINO ``fp32`` and ``bf16``.
    engines
        Folder of the engine files that ``wetread engines build`` wrote, or None. TensorRT needs one; OpenVINO compiles
        the ONNX file itself where there is none.
    threads
        CPU threads for OpenVINO; 0 means as many as there are cores.
    device
        Number of the GPU.
    """

    runtime: str = "openvino"
    precision: Precision = "fp32"
    engines: Path | None = None
    threads: int = 0
    device: int = 0


class Engine(Protocol):
    """A model on a runtime. Activate it, infer as often as wanted, deactivate it; or use it as a context manager.

    `infer` may be called from several threads; calls queue.
    """

    @property
    def identity(self) -> EngineIdentity:
        """Runtime with its version, precision and device; complete once the engine is active."""
        ...

    def activate(self) -> None:
        """Take the memory and the device.

        Raises
        ------
        RuntimeUnavailable
            The runtime cannot be used on this machine; the message says what to do.
        ModelPackageError
            The network's tensors are not those that ``model.toml`` describes.
        """
        ...

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """Answer one input of shape `ModelPackage.input_shape` with all outputs of the network.

        The arrays are the caller's: the next call does not change them.
        """
        ...

    def deactivate(self) -> None:
        """Give memory and device back."""
        ...

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.deactivate()


class Runtime(Protocol):
    """What makes engines: a class that takes a package and settings, and does nothing heavy before `activate`."""

    def __call__(self, package: ModelPackage, settings: RuntimeSettings) -> Engine:
        """Make an engine that is not active yet."""
        ...


RUNTIMES: Mapping[str, tuple[str, str]] = {
    "openvino": ("engines.runtimes.openvino", "OpenVinoEngine"),
    "rtx": ("engines.runtimes.tensorrt", "TensorRtRtxEngine"),
    "tensorrt": ("engines.runtimes.tensorrt", "TensorRtEngine"),
}
"""Every runtime by name: the module that is imported on first use, and the class in it."""


def create_engine(package: ModelPackage, settings: RuntimeSettings) -> Engine:
    """Make an engine, not active yet, on the runtime that the settings name.

    Raises
    ------
    RuntimeUnavailable
        No runtime has that name, or its library is not installed.
    """
    if settings.runtime not in RUNTIMES:
        raise RuntimeUnavailable(f"there is no runtime {settings.runtime!r}; choose one of {', '.join(RUNTIMES)}")
    module, name = RUNTIMES[settings.runtime]
    runtime: Runtime = getattr(import_module(module), name)
    return runtime(package, settings)


def engine_file_name(package: ModelPackage, runtime: str, device: str, precision: str) -> str:
    """Name the engine file of a model: everything that an engine depends on is in it.

    Parameters
    ----------
    package
        The model; its digest ties the file to the network.
    runtime
        Runtime with its version, for example ``rtx-1.7.1.116``.
    device
        Compute capability (``sm89``), ``ampere+`` for the portable engine of TensorRT for RTX, or ``cpu``.
    precision
        ``fp32``, ``fp16`` or ``bf16``.
    """
    return f"{package.name}-{package.identity.digest[:12]}-{runtime}-{device}-{precision}.engine"
