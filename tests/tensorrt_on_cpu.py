"""A stand-in for ``pycuda.driver``, TensorRT's runtime and cuda-bindings, in host memory.

What it proves: the bookkeeping of `engines.runtimes.tensorrt`: which memory is allocated, how large, and that all of
it is given back; which context and addresses each grid has; the order of copies and inferences on streams; what
becomes of errors. Streams are lazy: what is enqueued is done when somebody waits for it, so an answer that is read too
early, or a buffer that is filled again too soon, gives wrong numbers. What it does not prove: anything about TensorRT
or a GPU.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest

from build_engines.graph import load_graph
from engines.packages.package import ModelPackage

NOISE = 0xAB
SCRATCH_PER_VOXEL = 8


class Driver:
    """What the runtime uses of ``pycuda.driver``; ``limit`` is how many bytes of device memory there are."""

    class Error(Exception): ...

    class MemoryError(Error): ...

    event_flags = SimpleNamespace(DISABLE_TIMING=2)

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self.held: dict[int, np.ndarray] = {}
        self.pushed = self.retained = 0
        self.streams: list[Stream] = []
        self.log: list[str] = []
        self.broken = ""
        self.engines = 0
        self.enqueued = self.latest = 0

    def init(self) -> None: ...

    def Device(self, number: int) -> "Driver":  # noqa: N802
        if number > 1:
            raise self.Error("invalid device ordinal")
        return self

    def name(self) -> str:
        return "Imaginary GPU"

    def compute_capability(self) -> tuple[int, int]:
        return 8, 9

    def retain_primary_context(self) -> "Driver":
        self.retained += 1
        return self

    def push(self) -> None:
        self.pushed += 1

    def pop(self) -> None:
        self.pushed -= 1

    @property
    def Context(self) -> "Driver":  # noqa: N802
        return self

    def synchronize(self) -> None:
        self.require_context()
        if self.broken == "synchronize":
            raise self.Error("cuCtxSynchronize failed: an illegal memory access was encountered")
        for stream in self.streams:
            stream.run_to(stream.mark)

    def require_context(self) -> None:
        assert self.pushed > 0, "no CUDA context is current"

    @property
    def taken(self) -> int:
        return sum(memory.nbytes for memory in self.held.values())

    def keep_order(self, stream: "Stream") -> None:
        """See that the networks run as they were enqueued: they have the same scratch memory."""
        self.enqueued += 1
        number = self.enqueued

        def check() -> None:
            assert number == self.latest + 1, "a network ran before the one that was enqueued before it"
            self.latest = number

        stream.add(check)

    def mem_alloc(self, size: int) -> "Allocation":
        self.require_context()
        if self.taken + size > self.limit:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        memory = np.full(size, NOISE, np.uint8)
        self.held[memory.ctypes.data] = memory
        return Allocation(self, memory.ctypes.data)

    def pagelocked_empty(self, shape: Sequence[int], kind: Any) -> np.ndarray:
        self.require_context()
        return np.full(shape, np.nan, kind)

    def memcpy_htod_async(self, memory: "Allocation", source: np.ndarray, stream: "Stream") -> None:
        self.require_context()
        if self.broken == "copy":
            raise self.Error("cuMemcpyHtoDAsync failed: an illegal memory access was encountered")
        self.log.append("copy in")
        stream.add(lambda: self.view(int(memory), source.shape).__setitem__(..., source))

    def memcpy_dtoh_async(self, target: np.ndarray, memory: "Allocation", stream: "Stream") -> None:
        self.require_context()
        stream.add(lambda: target.__setitem__(..., self.view(int(memory), target.shape)))

    def view(self, address: int, shape: Sequence[int]) -> np.ndarray:
        memory = self.held[address].view(np.float32)
        return memory[: int(np.prod(shape))].reshape(shape)

    def Stream(self) -> "Stream":  # noqa: N802
        self.require_context()
        stream = Stream(self, len(self.streams) + 1)
        self.streams.append(stream)
        return stream

    def Event(self, flags: int) -> "Event":  # noqa: N802
        return Event()

    def module_from_file(self, path: str) -> Any:
        raise self.Error("no kernels here")


class Allocation:
    def __init__(self, driver: Driver, address: int) -> None:
        self._driver, self._address = driver, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver.require_context()
        del self._driver.held[self._address]


def _nothing() -> None: ...


class Stream:
    """Does what was enqueued when it is waited for, one after the other."""

    def __init__(self, driver: Driver, handle: int) -> None:
        self.driver, self.handle = driver, handle
        self._enqueued: list[Callable[[], Any]] = []
        self._done = 0
        self.captured: list[Callable[[], Any]] | None = None

    def add(self, work: Callable[[], Any]) -> None:
        (self._enqueued if self.captured is None else self.captured).append(work)

    def run_to(self, mark: int) -> None:
        while self._done < mark and self.captured is None:
            work, self._enqueued[self._done] = self._enqueued[self._done], _nothing
            self._done += 1
            work()

    @property
    def mark(self) -> int:
        return len(self._enqueued)

    def synchronize(self) -> None:
        self.driver.require_context()
        self.driver.log.append("wait")
        # A GPU may do the work of streams in any order that events allow; here what came last is done first.
        for stream in (*reversed(self.driver.streams), self):
            stream.run_to(stream.mark)

    def wait_for_event(self, event: "Event") -> None:
        if event.recorded is not None:
            stream, mark = event.recorded
            self.add(lambda: stream.run_to(mark))


class Event:
    def __init__(self) -> None:
        self.recorded: tuple[Stream, int] | None = None

    def record(self, stream: Stream) -> None:
        self.recorded = stream, stream.mark


class TensorRt(ModuleType):
    """What the runtime uses of TensorRT's module; with ``jit`` of that of TensorRT for RTX."""

    float32 = "float32"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self, driver: Driver, package: ModelPackage, batch: int, *, jit: bool) -> None:
        super().__init__("tensorrt_rtx_bindings" if jit else "tensorrt")
        self.__version__ = "1.7" if jit else "11.0"
        self.driver, self.package, self.batch, self.jit = driver, package, batch, jit
        self.fails = ""
        self.kind = self.float32
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.contexts: list[Used] = []
        self.configs: list[Config] = []

    def scratch(self, profile: int) -> int:
        return SCRATCH_PER_VOXEL * self.batch * int(np.prod(self.package.input.grids[profile]))

    def Runtime(self, logger: Any) -> "Runtime":  # noqa: N802
        return Runtime(self, logger)


class Runtime:
    def __init__(self, trt: TensorRt, logger: Any) -> None:
        self._trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, content: bytes) -> "CudaEngine | None":
        self._trt.driver.require_context()
        if self._trt.fails:
            self.logger.log(self._trt.ILogger.ERROR, self._trt.fails)
            return None
        return CudaEngine(self._trt, self.logger)


class CudaEngine:
    def __init__(self, trt: TensorRt, logger: Any) -> None:
        self.trt, self.logger = trt, logger
        self.names = [trt.package.input.tensor, *trt.package.described_outputs]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(trt.package.input.grids)
        trt.driver.engines += 1

    def __del__(self) -> None:
        self.trt.driver.engines -= 1
        assert not any(context.alive for context in self.trt.contexts), "an engine went before its contexts"

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.trt.kind

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return self.trt.scratch(profile)

    def create_runtime_config(self) -> "Config":
        self.trt.configs.append(Config())
        return self.trt.configs[-1]

    def create_execution_context(self, config: "Config") -> "Context":
        self.trt.driver.require_context()
        assert config.strategy == "user managed"
        return Context(self.trt, self.logger)


class Config:
    def __init__(self) -> None:
        self.strategy = ""
        self.cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> "Cache":
        return Cache()

    def set_runtime_cache(self, cache: "Cache") -> None:
        self.cache = cache


class Cache:
    content = b""

    def deserialize(self, content: bytes) -> bool:
        self.content = content
        return content.startswith(b"kernels")

    def serialize(self) -> bytes | None:
        return b"kernels" + self.content


@dataclass
class Used:
    """What became of an execution context."""

    profile: int = -1
    scratch: int = 0
    scratch_size: int = 0
    inferences: int = 0
    alive: bool = True
    given: np.ndarray | None = None


class Context:
    """An execution context; its network is ONNX Runtime's."""

    def __init__(self, trt: TensorRt, logger: Any) -> None:
        self._trt, self._logger, self.used = trt, logger, Used()
        self.addresses: dict[str, int] = {}
        trt.contexts.append(self.used)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.used.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        package = self._trt.package
        assert shape == (self._trt.batch, package.input.channels, *package.input.grids[self.used.profile])
        model = load_graph(package, package.networks[0], [package.input.grids[self.used.profile]], self._trt.batch)
        self._network = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self._shapes = {name: shape} | {each.name: tuple(each.shape) for each in self._network.get_outputs()}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._trt.shapes.get(name, self._shapes[name])

    def set_device_memory(self, address: int, size: int) -> None:
        self.used.scratch, self.used.scratch_size = address, size

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        driver = self._trt.driver
        driver.require_context()
        if driver.broken == "inference":
            self._logger.log(self._trt.ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 8 bytes.)")
            return False
        assert self.used.scratch in driver.held, "the scratch memory is gone"
        assert driver.held[self.used.scratch].nbytes >= self._trt.scratch(self.used.profile)
        driver.log.append("enqueue")
        addresses, stream = dict(self.addresses), driver.streams[handle - 1]
        if stream.captured is None:
            driver.keep_order(stream)
        stream.add(lambda: self._run(addresses))
        return True

    def _run(self, addresses: dict[str, int]) -> None:
        driver, source = self._trt.driver, self._trt.package.input.tensor
        self.used.given = driver.view(addresses[source], self._shapes[source]).copy()
        self.used.inferences += 1
        names = [name for name in addresses if name != source]
        answers = self._network.run(names, {source: driver.view(addresses[source], self._shapes[source])})
        for name, answer in zip(names, answers, strict=True):
            driver.view(addresses[name], answer.shape)[...] = answer

    def __del__(self) -> None:
        self.used.alive = False


class CudaBindings(ModuleType):
    """What `engines.runtimes.cuda_graph` uses of ``cuda.bindings.driver``."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    launched = 0
    alive = 0
    refuses: ClassVar[bool] = False

    def __init__(self, driver: Driver) -> None:
        super().__init__("cuda.bindings.driver")
        self._driver = driver

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self._driver.streams[stream - 1].captured = []
        return (0,)

    def cuStreamEndCapture(self, stream: int) -> tuple[int, Any]:  # noqa: N802
        captured, self._driver.streams[stream - 1].captured = self._driver.streams[stream - 1].captured, None
        return (1, None) if self.refuses else (0, captured)

    def cuGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:  # noqa: N802
        self.alive += 1
        return 0, graph

    def cuGraphDestroy(self, graph: Any) -> tuple[int]:  # noqa: N802
        return (0,)

    def cuGraphLaunch(self, graph: Any, stream: int) -> tuple[int]:  # noqa: N802
        self.launched += 1
        self._driver.keep_order(self._driver.streams[stream - 1])
        for work in graph:
            self._driver.streams[stream - 1].add(work)
        return (0,)

    def cuGraphExecDestroy(self, graph: Any) -> tuple[int]:  # noqa: N802
        self.alive -= 1
        return (0,)


def install(patch: pytest.MonkeyPatch, trt: TensorRt, *, graphs: CudaBindings | None = None) -> None:
    """Let them be imported in place of the real ones."""
    pycuda = ModuleType("pycuda")
    patch.setitem(sys.modules, "pycuda", pycuda)
    patch.setitem(sys.modules, "pycuda.driver", trt.driver)  # type: ignore[arg-type]
    patch.setitem(sys.modules, trt.__name__, trt)
    patch.setitem(sys.modules, "cuda.bindings.driver", graphs)  # type: ignore[arg-type]
