"""OpenVINO on the CPU: the default, and what every machine can run."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelPackageError, OutOfMemory, RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine, Outputs, RuntimeSettings
from engines.runtimes.openvino_compile import Grid, compile_model, cpu_name, openvino_errors, openvino_version
from engines.types import EngineIdentity

KEPT_GRIDS = 2
"""How many grids stay compiled. Another one is read from its engine file in a tenth of a second."""


class OpenVinoEngine(Engine):
    """A network on OpenVINO.

    Each grid is compiled when it is asked for, that of the golden input when the engine is activated. A grid keeps the
    memory of its layers, so only the `KEPT_GRIDS` used last are kept; where memory ends, the other gives its own back.

    Parameters
    ----------
    package, network
        The model, and which file of its network.
    settings
        ``precision`` ``bf16`` needs a CPU that has it and is refused elsewhere; ``int8`` needs a quantised network in
        the package. Where ``engines`` is a folder, what was compiled is kept there and imported the next time. With
        ``hint`` ``throughput`` each input of a batch is a request of its own, so networks that were exported for one
        input take a batch too; as many run at once as OpenVINO thinks best for this CPU.
    """

    def __init__(self, package: ModelPackage, network: Path, settings: RuntimeSettings) -> None:
        self._package = package
        self._network = network
        self._batch = settings.batch
        self._settings = replace(settings, batch=1) if settings.hint == "throughput" else settings
        self._device = "CPU"
        self._active = False
        self._lock = Lock()
        self._taking = Lock()
        self._idle: dict[Grid, SimpleQueue[Any]] = {}

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return EngineIdentity(f"openvino {openvino_version()}", self._settings.precision, self._device)

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self._batch

    def activate(self) -> None:
        """See `Engine.activate`."""
        self._device = f"CPU ({cpu_name()})"
        with self._lock:
            self._idle[self._package.grid] = self._compile(self._package.grid)
            self._active = True

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        try:
            return self._infer(tensor)
        except OutOfMemory:
            if not self._release_all_but(tensor.shape[2:]):
                raise
            return self._infer(tensor)

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        with self._lock:
            self._active = False
            self._idle.clear()

    def _infer(self, tensor: NDArray[np.float32]) -> Outputs:
        idle, together = self._requests(tensor.shape[2:]), self._settings.batch
        parts = [tensor[start : start + together] for start in range(0, len(tensor), together)]
        with self._taking:  # or two callers might wait for each other's
            requests = [idle.get() for _ in parts]
        try:
            with openvino_errors(f"{self._package.name} on OpenVINO"):
                for request, part in zip(requests, parts, strict=True):
                    request.start_async([filled(part, together)])
                for request in requests:
                    request.wait()
                results = [request.results for request in requests]
                return {
                    name: _joined([each[name] for each in results])[: len(tensor)]
                    for name in self._package.described_outputs
                }
        finally:
            for request in requests:
                with suppress(RuntimeError, MemoryError):  # told already
                    request.wait()
                idle.put(request)

    def _requests(self, grid: Grid) -> SimpleQueue[Any]:
        with self._lock:
            if not self._active:
                raise RuntimeUnavailable(f"the engine of {self._package.name} is not active; activate it first")
            # The most recently used last.
            self._idle[grid] = self._idle.pop(grid) if grid in self._idle else self._compile(grid)
            for oldest in list(self._idle)[:-KEPT_GRIDS]:
                del self._idle[oldest]
            return self._idle[grid]

    def _release_all_but(self, grid: Grid) -> bool:
        with self._lock:
            others = self._idle.keys() - {grid}
            for other in others:
                del self._idle[other]
            return bool(others)

    def _compile(self, grid: Grid) -> SimpleQueue[Any]:
        package, batch = self._package, self._settings.batch
        if grid not in package.input.grids:
            raise ModelPackageError(f"{package.name} does not take the grid {list(grid)}; name it in model.toml")
        compiled = compile_model(package, self._network, self._settings, grid)
        shape = (batch, package.input.channels, *grid)
        _check_tensors(package, self._network, "input", compiled.inputs, {package.input.tensor: shape})
        _check_tensors(package, self._network, "output", compiled.outputs, package.output_shapes(grid, batch))
        idle = SimpleQueue[Any]()
        with openvino_errors(f"{package.name} on OpenVINO"):
            best: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            for _ in range(max(best, self._batch // batch)):
                idle.put(compiled.create_infer_request())
        return idle


def filled(tensor: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Fill inputs up to a whole batch with zeros."""
    if len(tensor) == batch:
        return np.ascontiguousarray(tensor, np.float32)
    whole = np.zeros((batch, *tensor.shape[1:]), np.float32)
    whole[: len(tensor)] = tensor
    return whole


def _joined(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _check_tensors(
    package: ModelPackage, network: Path, section: str, ports: Any, expected: Mapping[str, tuple[int | None, ...]]
) -> None:
    import openvino

    found = {name: port.get_partial_shape() for port in ports for name in port.get_names()}
    if len(ports) != len(expected) or not expected.keys() <= found.keys():
        raise ModelPackageError(
            f"{network} has {section} tensors {', '.join(sorted(found)) or '(none)'}, but model.toml names "
            f"{', '.join(expected)}; correct it, or export the model with these alone"
        )
    for name, shape in expected.items():
        described = openvino.PartialShape([-1 if length is None else length for length in shape])
        if not found[name].compatible(described):
            raise ModelPackageError(
                f"{network}: {section} tensor {name!r} has shape {found[name]}, but model.toml describes {described}; "
                "correct model.toml or export the model again"
            )
