"""OpenVINO on the CPU: the default, and what every machine can run."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.engine_file import engine_file_name, read_engine, write_engine
from engines.errors import ModelPackageError, RuntimeUnavailable
from engines.package import ModelPackage
from engines.runtimes.base import Engine, Outputs, RuntimeSettings
from engines.types import EngineIdentity

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is left to floating point. A quantised network says itself where it computes in integers."""


class OpenVinoEngine(Engine):
    """A network on OpenVINO.

    Each grid is compiled when it is first asked for, that of the golden input when the engine is activated.

    Parameters
    ----------
    package, network
        The model, and which file of its network.
    settings
        ``precision`` ``bf16`` needs a CPU that has it and is refused elsewhere; ``int8`` needs a quantised network in
        the package. Where ``engines`` is a folder, what was compiled is kept there and imported the next time.
    """

    def __init__(self, package: ModelPackage, network: Path, settings: RuntimeSettings) -> None:
        self._package = package
        self._network = network
        self._settings = settings
        self._lock = Lock()
        self._requests: dict[tuple[int, ...], Any] = {}

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return EngineIdentity(f"openvino {openvino_version()}", self._settings.precision, "CPU")

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self._settings.batch

    def activate(self) -> None:
        """See `Engine.activate`."""
        with self._lock:
            self._requests[self._package.grid] = self._request(self._package.grid)

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        count, grid = len(tensor), tensor.shape[2:]
        with self._lock:
            if not self._requests:
                raise RuntimeUnavailable(f"the engine of {self._package.name} is not active; activate it first")
            if grid not in self._requests:
                self._requests[grid] = self._request(grid)
            results = self._requests[grid].infer([filled(tensor, self._settings.batch)])
            return {name: results[name][:count] for name in self._package.described_outputs}

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        with self._lock:
            self._requests.clear()

    def _request(self, grid: tuple[int, ...]) -> Any:
        package, batch = self._package, self._settings.batch
        if grid not in package.input.grids:
            raise ModelPackageError(f"{package.name} does not take the grid {list(grid)}; name it in model.toml")
        compiled = compile_model(package, self._network, self._settings, grid)
        shape = (batch, package.input.channels, *grid)
        _check_tensors(package, self._network, "input", compiled.inputs, {package.input.tensor: shape})
        _check_tensors(package, self._network, "output", compiled.outputs, package.output_shapes(grid, batch))
        return compiled.create_infer_request()


def filled(tensor: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Fill inputs up to a whole batch with zeros."""
    if len(tensor) == batch:
        return np.ascontiguousarray(tensor, np.float32)
    whole = np.zeros((batch, *tensor.shape[1:]), np.float32)
    whole[: len(tensor)] = tensor
    return whole


def openvino_version() -> str:
    """Give the version of the installed OpenVINO, for example ``2026.4.1``."""
    import openvino

    return str(openvino.__version__).split("-")[0]


def compile_model(package: ModelPackage, network: Path, settings: RuntimeSettings, grid: tuple[int, ...]) -> Any:
    """Compile a network for this CPU and one grid, or import what was compiled before.

    Returns
    -------
    openvino.CompiledModel

    Raises
    ------
    RuntimeUnavailable
        The precision is not for this runtime or this CPU, or OpenVINO refuses the network or the engine file.
    ModelPackageError
        The network's input is not what ``model.toml`` describes, or it cannot take this grid or batch.
    """
    import openvino

    core = openvino.Core()
    config = {
        "INFERENCE_PRECISION_HINT": _precision_hint(core, settings),
        "PERFORMANCE_HINT": settings.hint.upper(),
    }
    if settings.threads:
        config["INFERENCE_NUM_THREADS"] = str(settings.threads)
    file = package.network_for(network, settings.precision)
    path = engine_path(package, file, settings, grid)
    try:
        if path is not None and path.is_file():
            return core.import_model(read_engine(path), "CPU", config)
        model = core.read_model(str(file))
        shape = (settings.batch, package.input.channels, *grid)
        if len(model.inputs) == 1 and tuple(model.input().get_partial_shape().to_shape()) != shape:
            model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        what = path if path is not None and path.is_file() else file
        raise RuntimeUnavailable(f"OpenVINO cannot load {what}: {error}") from error
    if path is not None:
        write_engine(path, compiled.export_model().getvalue())
    return compiled


def engine_path(package: ModelPackage, file: Path, settings: RuntimeSettings, grid: tuple[int, ...]) -> Path | None:
    """Name the engine file of a network on one grid, None where engines are not kept."""
    if settings.engines is None:
        return None
    name = engine_file_name(
        package,
        file,
        runtime=f"openvino-{openvino_version()}",
        device="cpu",
        precision=settings.precision,
        grids=[grid],
        batch=settings.batch,
    )
    return settings.engines / name


def _precision_hint(core: Any, settings: RuntimeSettings) -> str:
    if settings.precision not in PRECISION_HINTS:
        raise RuntimeUnavailable(
            f"OpenVINO on the CPU has no precision {settings.precision!r}; choose one of {', '.join(PRECISION_HINTS)}"
        )
    if settings.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeUnavailable("this CPU does not compute in bf16; choose precision fp32")
    return PRECISION_HINTS[settings.precision]


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
