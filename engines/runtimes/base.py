"""The one shape that every inference runtime has, and the table that names them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.types import EngineIdentity, Volume

Precision = Literal["fp32", "fp16", "bf16", "int8"]

GPU = "gpu"
"""Stands for the one of TensorRT's two runtimes that suits the GPU."""

Outputs = Mapping[str, NDArray[np.float32]]
"""What a network answers: each of its output tensors by name, shaped as `ModelPackage.output_shapes` says."""

ENGINE_REVISION = 2
"""Raised when a new Wetread compiles the same network into another engine; part of an engine file's name."""


@dataclass(frozen=True)
class RuntimeSettings:
    """What engines run on.

    Attributes
    ----------
    runtime
        Name of the runtime that is tried first, see `RUNTIMES`; ``gpu``, for an engines' process, is the one of
        TensorRT's two that is installed and suits the GPU.
    precision
        In which the network computes; ``auto``, where several models are opened, is the fastest that suits each
        (`engines.serving.opening.precisions`). TensorRT takes all but that, OpenVINO all but ``fp16``.
    engines
        Folder of the engine files that ``wetread engines build`` wrote, and of the runtimes' caches, or None. TensorRT
        needs one; OpenVINO compiles the ONNX file itself where there is none.
    threads
        CPU threads for OpenVINO; 0 means as many as there are cores.
    hint
        What OpenVINO arranges its threads for: all of them for one inference at a time (``latency``), or some for each
        input of a batch (``throughput``).
    device
        Number of the GPU.
    batch
        How many X-rays or patches are run at once. An engine always runs as many; what is missing is filled with zeros,
        so that an answer does not depend on what else is in the batch.
    """

    runtime: str = "openvino"
    precision: Precision | Literal["auto"] = "fp32"
    engines: Path | None = None
    threads: int = 0
    hint: Literal["latency", "throughput"] = "latency"
    device: int = 0
    batch: int = 1


@dataclass(frozen=True, eq=False)
class DeviceAnswer:
    """What a GPU makes of a whole volume.

    Attributes
    ----------
    labels
        Segment numbers, shape of the volume's array.
    values
        What the network was given: on its grid, clipped to the window, in HU.
    seconds
        For ``preprocess``, ``infer`` and ``postprocess``.
    """

    labels: NDArray[np.uint8]
    values: NDArray[np.float32]
    seconds: Mapping[str, float]


WholePath = Callable[[Volume], DeviceAnswer]
"""Resamples, windows, infers, blends, labels, cleans up and resamples back without leaving the device."""


class Engine(Protocol):
    """A model on a runtime. Activate it, infer as often as wanted, deactivate it; or use it as a context manager.

    `infer` may be called from several threads; calls queue.
    """

    @property
    def identity(self) -> EngineIdentity:
        """Runtime with its version, precision and device; complete once the engine is active."""
        ...

    @property
    def batch(self) -> int:
        """How many inputs `infer` takes at once."""
        return 1

    @property
    def whole_path(self) -> WholePath | None:
        """The whole path of a volume on the device, where the runtime has one (`ModelPackage.on_device`)."""
        return None

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
        """Answer inputs with all outputs of the network.

        Parameters
        ----------
        tensor
            ``[n, channel, …grid]``: at most `RuntimeSettings.batch` inputs, on one of the package's ``input.grids``.

        Returns
        -------
        Outputs
            For the same n inputs. The arrays are the caller's: the next call does not change them.

        Raises
        ------
        OutOfMemory
            The grid is too large for the memory that is free; a smaller one may do.
        RuntimeUnavailable
            The engine is not active, or the device failed.
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
    """What makes engines: a class that takes a package, one of the files of its network, and settings.

    It does nothing heavy before `Engine.activate`.
    """

    def __call__(self, package: ModelPackage, network: Path, settings: RuntimeSettings) -> Engine:
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
    members = [runtime(package, network, settings) for network in package.networks]
    return members[0] if len(members) == 1 else Ensemble(members)


class Ensemble(Engine):
    """Several networks of one model, whose outputs are averaged (Lakshminarayanan et al., NeurIPS 2017)."""

    def __init__(self, members: Sequence[Engine]) -> None:
        self._members = members
        self._active = ExitStack()

    @property
    def identity(self) -> EngineIdentity:
        """That of the first member; the others run on the same."""
        return self._members[0].identity

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self._members[0].batch

    def activate(self) -> None:
        """Activate every member, or none."""
        with ExitStack() as active:
            for member in self._members:
                active.enter_context(member)
            self._active = active.pop_all()

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        answers = [member.infer(tensor) for member in self._members]
        return {name: np.mean([answer[name] for answer in answers], axis=0) for name in answers[0]}

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        self._active.close()
