"""TensorRT and TensorRT for RTX as runtimes.

The engine file comes from ``wetread engines build``. TensorRT's objects and pycuda's memory live in the GPU's primary
context, which is made current around each use, so that any thread may infer.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.device.whole_path import DevicePath
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import DeviceAnswer, Engine, Outputs, RuntimeSettings, WholePath
from engines.runtimes.cuda import Gpu
from engines.runtimes.engine_file import engine_file_name
from engines.runtimes.tensorrt_lane import BUFFERS, Pending
from engines.runtimes.tensorrt_library import load_tensorrt
from engines.runtimes.tensorrt_session import Session
from engines.types import EngineIdentity, Volume

log = structlog.get_logger()

PORTABLE = "ampere+"
"""The device of an engine of TensorRT for RTX that was compiled for no one GPU: compute capability 8.0 and later."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class TensorRtEngine(Engine):
    """A file of a model's network on TensorRT.

    Parameters
    ----------
    package, network
        The model, and which file of its network.
    settings
        ``engines`` is the folder that holds the engine file; ``device`` is the GPU's number.
    """

    runtime = "tensorrt"

    def __init__(self, package: ModelPackage, network: Path, settings: RuntimeSettings) -> None:
        self._package = package
        self._network = network
        self._settings = settings
        self._lock = Lock()
        self._gpu: Gpu | None = None
        self._session: Session | None = None
        self._path: DevicePath | None = None
        self._identity = EngineIdentity(self.runtime, settings.precision, f"GPU {settings.device}")

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return self._identity

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self._settings.batch

    @property
    def whole_path(self) -> WholePath | None:
        """See `Engine.whole_path`; there while the engine is active."""
        return None if self._path is None else self._on_device

    def activate(self) -> None:
        """See `Engine.activate`.

        Raises
        ------
        OutOfMemory
            The GPU's memory does not hold the engine.
        """
        settings = self._settings
        if settings.precision not in PRECISIONS:
            raise RuntimeUnavailable(
                f"TensorRT has no precision {settings.precision!r}; choose one of {', '.join(PRECISIONS)}"
            )
        trt = load_tensorrt(self.runtime)
        gpu = Gpu(settings.device)
        runtime = f"{self.runtime}-{trt.__version__}"
        path = find_engine_file(self._package, self._network, settings, runtime, gpu.capability)
        jit = path.with_name(f"{path.stem}-{gpu.capability}.jit") if self.runtime == "rtx" else None
        session = Session(trt, gpu.driver, self._package, path, settings.batch, jit)
        with gpu.current():
            try:
                session.open()
                path_on_device = self._device_path(gpu, session)
            except BaseException:
                session.close()
                raise
        self._gpu, self._session, self._path = gpu, session, path_on_device
        self._identity = EngineIdentity(f"{self.runtime} {trt.__version__}", settings.precision, gpu.name)

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        (answer,) = self.infer_many([tensor])
        return answer

    def infer_many(self, tensors: Iterable[NDArray[np.float32]]) -> Iterator[Outputs]:
        """Answer one input after the other; while one is inferred, the next is copied to the GPU.

        Parameters
        ----------
        tensors
            As `infer` takes them. Nothing else is inferred before the last is answered.
        """
        with self._lock:
            if self._session is None or self._gpu is None:
                raise self._not_active()
            gpu, session = self._gpu, self._session
            before: Pending | None = None
            try:
                for number, tensor in enumerate(tensors):
                    with gpu.current():
                        pending = session.start(tensor, number % BUFFERS)
                        answer = before.wait() if before is not None else None
                    before = pending
                    if answer is not None:
                        yield answer
                if before is not None:
                    with gpu.current():
                        answer = before.wait()
                        session.save_jit()
                    yield answer
            finally:
                with gpu.current():
                    session.synchronise()

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        with self._lock:
            if self._gpu is None or self._session is None:
                return
            gpu, session, path = self._gpu, self._session, self._path
            self._gpu = self._session = self._path = None
            with gpu.current():
                try:
                    if path is not None:
                        path.close()
                finally:
                    session.close()

    def _device_path(self, gpu: Gpu, session: Session) -> DevicePath | None:
        """Prepare the whole path on the GPU, where the model can stay there. It runs one network, not an ensemble."""
        package = self._package
        if not package.on_device or len(package.networks) > 1:
            return None
        try:
            return DevicePath(
                gpu.driver, package, session.run_on_device, package.input.grids, batch=self._settings.batch
            )
        except gpu.driver.Error as error:
            # The host can do the same, more slowly.
            log.warning("engine.no_device_path", model=package.name, device=gpu.name, reason=str(error))
            return None

    def _on_device(self, volume: Volume) -> DeviceAnswer:
        with self._lock:
            if self._session is None or self._gpu is None or self._path is None:
                raise self._not_active()
            session, path = self._session, self._path
            with self._gpu.current():
                session.synchronise()
                answer = path(volume)
                session.save_jit()
                return answer

    def _not_active(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"the engine of {self._package.name} is not active; activate it first")


class TensorRtRtxEngine(TensorRtEngine):
    """A file of a model's network on TensorRT for RTX; see `TensorRtEngine`."""

    runtime = "rtx"


def engine_name(package: ModelPackage, network: Path, settings: RuntimeSettings, runtime: str, device: str) -> str:
    """Name the engine file of a network for TensorRT: one file for all of the package's grids.

    Parameters
    ----------
    package, network
        The model, and which file of its network.
    settings
        Precision and batch.
    runtime
        With its version, for example ``rtx-1.7.1.116``.
    device
        Compute capability of the GPU, for example ``sm89``, or `PORTABLE`.
    """
    return engine_file_name(
        package,
        package.network_for(network, settings.precision),
        runtime=runtime,
        device=device,
        precision=settings.precision,
        grids=package.input.grids,
        batch=settings.batch,
    )


def find_engine_file(
    package: ModelPackage, network: Path, settings: RuntimeSettings, runtime: str, capability: str
) -> Path:
    """Find the engine file of a network: the one for this GPU, else the portable one.

    Parameters
    ----------
    package, network, settings
        The model, which file of its network, and where its engines are.
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
    if settings.batch > 1:
        build += f" --batch {settings.batch}"
    if settings.engines is None:
        raise RuntimeUnavailable(f"no engine folder is set; build with '{build} --out DIR' and set engines.compiled")
    names = [engine_name(package, network, settings, runtime, device) for device in (capability, PORTABLE)]
    for path in (settings.engines / each for each in names):
        if path.is_file():
            return path
    raise RuntimeUnavailable(
        f"{settings.engines} holds no {names[0]}; build it with '{build} --out {settings.engines}'"
    )
