"""What one grid of a TensorRT engine has on the GPU, and an answer that is still being worked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.runtimes.base import Outputs
from engines.runtimes.cuda_graph import CudaGraph

BUFFERS = 2
"""While one input is inferred, the next is copied."""


@dataclass
class Buffers:
    """Room for one input and its outputs, on the host and on the GPU, and the stream that goes between them.

    The host's memory is page-locked: only from there do copies run beside the computation, and at the bus's full speed.
    """

    host: Mapping[str, NDArray[np.float32]]
    device: Mapping[str, Any]
    stream: Any
    inferences: int = 0
    graph: CudaGraph | None = None

    def free(self) -> None:
        """Give the GPU's memory back."""
        if self.graph is not None:
            self.graph.close()
        for memory in self.device.values():
            memory.free()


@dataclass
class Lane:
    """One grid of the engine: an execution context with the grid's optimisation profile, and buffers of its size."""

    context: Any
    shapes: Mapping[str, tuple[int, ...]]
    buffers: list[Buffers] = field(default_factory=list)


@dataclass(frozen=True)
class Pending:
    """An answer that the GPU still works at."""

    buffers: Buffers
    outputs: tuple[str, ...]
    count: int

    def wait(self) -> Outputs:
        """Wait for the answer; the arrays are the caller's."""
        self.buffers.stream.synchronize()
        return {name: self.buffers.host[name][: self.count].copy() for name in self.outputs}


def new_buffers(driver: Any, shapes: Mapping[str, tuple[int, ...]]) -> Buffers:
    """Allocate room for tensors of these shapes, or nothing.

    Raises
    ------
    pycuda.driver.MemoryError
        There is not enough.
    """
    host = {name: driver.pagelocked_empty(shape, np.float32) for name, shape in shapes.items()}
    device: dict[str, Any] = {}
    try:
        for name, array in host.items():
            device[name] = driver.mem_alloc(array.nbytes)
    except driver.MemoryError:
        for memory in device.values():
            memory.free()
        raise
    return Buffers(host, device, driver.Stream())
