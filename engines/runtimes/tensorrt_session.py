"""A deserialised TensorRT engine with all that it needs on the GPU."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelPackageError, OutOfMemory, RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.cuda_graph import CudaGraph
from engines.runtimes.tensorrt_jit import JitCache
from engines.runtimes.tensorrt_lane import Buffers, Lane, Pending, new_buffers
from engines.runtimes.tensorrt_library import deserialise, refusal, tensorrt_logger

Grid = tuple[int, ...]


class Session:
    """A deserialised engine. The GPU's context must be current in every call, and no two calls may run at once.

    Each grid has an execution context of its own, made when it is first asked for. They share one block of scratch
    memory, as large as the largest of them needs, because they never run at once. What does not fit into memory leaves
    nothing behind, so that a smaller grid has all of it.

    Parameters
    ----------
    trt, driver
        The modules of TensorRT and pycuda.
    package, batch
        The model, and how many inputs the engine was built for.
    path
        The engine file.
    jit
        Where TensorRT for RTX keeps the kernels that it compiles; None for TensorRT.
    """

    def __init__(self, trt: Any, driver: Any, package: ModelPackage, path: Path, batch: int, jit: Path | None) -> None:
        self._trt = trt
        self._driver = driver
        self._package = package
        self._batch = batch
        self._path = path
        self._jit_path = jit
        self._input, self._outputs = package.input.tensor, tuple(package.described_outputs)
        self._lanes: dict[Grid, Lane] = {}
        self._scratch: Any = None
        self._scratch_size = 0
        self._runtime: Any = None
        self._engine: Any = None
        self._config: Any = None
        self._jit: JitCache | None = None
        self._kept: set[Grid] = set()
        self._stream: Any = None
        self._ran: Any = None

    def open(self) -> None:
        """Load the engine.

        Raises
        ------
        RuntimeUnavailable
            TensorRT refuses the file.
        OutOfMemory
            The GPU's memory does not hold the engine's weights.
        ModelPackageError
            The engine's tensors are not those that ``model.toml`` describes.
        """
        trt = self._trt
        self._runtime = trt.Runtime(tensorrt_logger(trt))
        self._engine = deserialise(self._runtime, self._path)
        self._check_tensors()
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if self._jit_path is not None:
            self._jit = JitCache(trt, self._config, self._jit_path)
        self._stream = self._driver.Stream()
        self._ran = self._driver.Event(self._driver.event_flags.DISABLE_TIMING)

    def start(self, tensor: NDArray[np.float32], slot: int = 0) -> Pending:
        """Copy inputs to the GPU and enqueue the network; the copy runs beside what was enqueued before.

        Parameters
        ----------
        tensor
            ``[n, channel, …grid]``, n at most the batch.
        slot
            Of `BUFFERS`; its former answer must have been waited for.
        """
        with self._or_nothing():
            lane = self._lane(tensor.shape[2:])
            buffers = self._buffers(lane, slot)
        stream, filled = buffers.stream, buffers.host[self._input]
        filled[: len(tensor)] = tensor
        filled[len(tensor) :] = 0.0
        self._driver.memcpy_htod_async(buffers.device[self._input], filled, stream)
        # The network before may still use the scratch memory.
        stream.wait_for_event(self._ran)
        self._enqueue_buffers(lane, buffers)
        self._ran.record(stream)
        for name in self._outputs:
            self._driver.memcpy_dtoh_async(buffers.host[name], buffers.device[name], stream)
        return Pending(buffers, self._outputs, len(tensor))

    def run_on_device(
        self, input_address: int, output_addresses: Mapping[str, int], grid: Grid, stream_handle: int
    ) -> None:
        """Enqueue the network on tensors that are on the GPU already, of a whole batch each.

        Parameters
        ----------
        input_address, output_addresses
            Device pointers to float32 tensors, aligned to 256 bytes; of every output by name.
        grid
            One of the package's ``input.grids``.
        stream_handle
            The CUDA stream. Whoever calls sees to it that no other stream runs this session before it is done.
        """
        addresses = {self._input: input_address, **output_addresses}
        with self._or_nothing():
            lane = self._lane(grid)
        self._enqueue(lane, addresses, stream_handle)

    def synchronise(self) -> None:
        """Wait for all that was enqueued by `start`."""
        for lane in self._lanes.values():
            for buffers in lane.buffers:
                buffers.stream.synchronize()

    def save_jit(self) -> None:
        """Keep what was compiled on this machine, if grids have run that had not before."""
        new = self._lanes.keys() - self._kept
        if self._jit is not None and new:
            self._jit.save()
            self._kept |= new

    def close(self) -> None:
        """Give everything back."""
        try:
            self._forget()
        finally:
            self._lanes.clear()
            # TensorRT wants contexts gone before their engine, and pycuda frees only in a live context.
            self._jit = self._config = self._engine = self._runtime = self._stream = self._ran = None

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except (OutOfMemory, self._driver.MemoryError):
            self._forget()
            raise

    def _lane(self, grid: Grid) -> Lane:
        if grid not in self._lanes:
            self._lanes[grid] = self._new_lane(grid)
        return self._lanes[grid]

    def _new_lane(self, grid: Grid) -> Lane:
        if grid not in self._package.input.grids:
            raise ModelPackageError(f"{self._package.name} does not take the grid {list(grid)}; name it in model.toml")
        profile = self._package.input.grids.index(grid)
        self._reserve(self._engine.get_device_memory_size_for_profile_v2(profile))
        context = self._engine.create_execution_context(self._config)
        if context is None:
            raise self._refusal(f"cannot prepare {self._path.name} for the grid {list(grid)}")
        context.set_optimization_profile_async(profile, self._stream.handle)
        self._stream.synchronize()
        context.set_input_shape(self._input, (self._batch, self._package.input.channels, *grid))
        if self._scratch is not None:
            context.set_device_memory(int(self._scratch), self._scratch_size)
        lane = Lane(context, {name: tuple(context.get_tensor_shape(name)) for name in (self._input, *self._outputs)})
        try:
            self._check_shapes(grid, lane.shapes)
        except ModelPackageError:
            # An error keeps what its functions knew, and a context must not outlive the engine.
            del lane, context
            raise
        return lane

    def _reserve(self, size: int) -> None:
        """Have so much scratch memory. It moves when it grows, so everything that knows its address goes first."""
        if size <= self._scratch_size:
            return
        self._forget()
        self._scratch = self._driver.mem_alloc(size)
        self._scratch_size = size

    def _forget(self) -> None:
        if self._lanes:
            # Of the whole GPU: `run_on_device` runs on a stream that is not known here.
            self._driver.Context.synchronize()
        for lane in self._lanes.values():
            for buffers in lane.buffers:
                buffers.free()
        self._lanes.clear()
        if self._scratch is not None:
            self._scratch.free()
        self._scratch, self._scratch_size = None, 0

    def _buffers(self, lane: Lane, slot: int) -> Buffers:
        while len(lane.buffers) <= slot:
            lane.buffers.append(new_buffers(self._driver, lane.shapes))
        return lane.buffers[slot]

    def _enqueue_buffers(self, lane: Lane, buffers: Buffers) -> None:
        """Enqueue the network, from the third time on as a graph where there is none in the runtime itself.

        The first inference settles what TensorRT puts off until then, so the second is the first to be captured.
        """
        if buffers.graph is not None:
            buffers.graph.launch()
            return
        addresses = {name: int(memory) for name, memory in buffers.device.items()}
        handle = buffers.stream.handle
        self._enqueue(lane, addresses, handle)
        buffers.inferences += 1
        if buffers.inferences == 2 and self._jit is None:
            buffers.graph = CudaGraph.capture(handle, lambda: bool(lane.context.execute_async_v3(handle)))

    def _enqueue(self, lane: Lane, addresses: Mapping[str, int], stream_handle: int) -> None:
        for name, address in addresses.items():
            lane.context.set_tensor_address(name, address)
        if not lane.context.execute_async_v3(stream_handle):
            raise self._refusal("could not start the inference")

    def _refusal(self, what: str) -> OutOfMemory | RuntimeUnavailable:
        return refusal(self._runtime.logger.last_error, f"TensorRT {what}")

    def _check_tensors(self) -> None:
        expected = (self._input, *self._outputs)
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        profiles = self._engine.num_optimization_profiles
        if names != set(expected) or profiles != len(self._package.input.grids):
            raise ModelPackageError(
                f"{self._path} has the tensors {', '.join(sorted(names))} and {profiles} grids, but model.toml names "
                f"{', '.join(expected)} and {len(self._package.input.grids)}; build the engine again"
            )
        for name in expected:
            kind = self._engine.get_tensor_dtype(name)
            if kind != self._trt.float32:
                raise ModelPackageError(f"{self._path}: tensor {name!r} is {kind}, not float32; build the engine again")

    def _check_shapes(self, grid: Grid, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, described in self._package.output_shapes(grid, self._batch).items():
            found = shapes[name]
            if any(length < 0 for length in found):
                raise ModelPackageError(
                    f"{self._path}: the lengths of {name!r} {list(found)} depend on the image; export the network with "
                    "a fixed number of results"
                )
            if len(found) != len(described) or any(
                other not in (None, one) for one, other in zip(found, described, strict=True)
            ):
                raise ModelPackageError(
                    f"{self._path}: tensor {name!r} is {list(found)}, but model.toml describes {list(described)}; "
                    "build the engine again"
                )
