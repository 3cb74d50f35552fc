"""OpenVINO on the CPU: the default, and what every machine can run."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelPackageError, RuntimeUnavailable
from engines.package import ModelPackage
from engines.runtimes.base import Engine, Outputs, RuntimeSettings, engine_file_name
from engines.types import EngineIdentity

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine(Engine):
    """A model on OpenVINO.

    Parameters
    ----------
    package
        The model.
    settings
        ``precision`` is a hint to OpenVINO; ``bf16`` needs a CPU that has it and is refused elsewhere. Where
        ``engines`` holds an engine file of this OpenVINO version it is imported, otherwise ``model.onnx`` is compiled.
    """

    def __init__(self, package: ModelPackage, settings: RuntimeSettings) -> None:
        self._package = package
        self._settings = settings
        self._lock = Lock()
        self._request: Any = None

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return EngineIdentity(f"openvino {openvino_version()}", self._settings.precision, "CPU")

    def activate(self) -> None:
        """See `Engine.activate`."""
        compiled = compile_model(self._package, self._settings)
        tensor = self._package.description.input.tensor
        _check_tensors(self._package, "input", compiled.inputs, {tensor: self._package.input_shape})
        _check_tensors(self._package, "output", compiled.outputs, self._package.output_shapes)
        self._request = compiled.create_infer_request()

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        with self._lock:
            if self._request is None:
                raise RuntimeUnavailable(f"the engine of {self._package.name} is not active; activate it first")
            results = self._request.infer([np.ascontiguousarray(tensor, np.float32)])
            return {name: results[name] for name in self._package.output_shapes}

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        with self._lock:
            self._request = None


def openvino_version() -> str:
    """Give the version of the installed OpenVINO, for example ``2026.4.1``."""
    import openvino

    return str(openvino.__version__).split("-")[0]


def compile_model(package: ModelPackage, settings: RuntimeSettings) -> Any:
    """Compile a model for this CPU, or import it where an engine file is there.

    Returns
    -------
    openvino.CompiledModel

    Raises
    ------
    RuntimeUnavailable
        The precision is not for this runtime or this CPU, or OpenVINO refuses the model or the engine file.
    """
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_PRECISION_HINT": _precision_hint(core, settings), "PERFORMANCE_HINT": "LATENCY"}
    if settings.threads:
        config["INFERENCE_NUM_THREADS"] = str(settings.threads)
    name = engine_file_name(package, f"openvino-{openvino_version()}", "cpu", settings.precision)
    path = settings.engines / name if settings.engines else None
    try:
        if path is not None and path.is_file():
            return core.import_model(path.read_bytes(), "CPU", config)
        return core.compile_model(str(package.onnx), "CPU", config)
    except RuntimeError as error:
        what = path if path is not None and path.is_file() else package.onnx
        raise RuntimeUnavailable(f"OpenVINO cannot load {what}: {error}") from error


def _precision_hint(core: Any, settings: RuntimeSettings) -> str:
    if settings.precision not in PRECISION_HINTS:
        raise RuntimeUnavailable(
            f"OpenVINO on the CPU has no precision {settings.precision!r}; choose one of {', '.join(PRECISION_HINTS)}"
        )
    if settings.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeUnavailable("this CPU does not compute in bf16; choose precision fp32")
    return PRECISION_HINTS[settings.precision]


def _check_tensors(package: ModelPackage, section: str, ports: Any, expected: Mapping[str, tuple[int, ...]]) -> None:
    import openvino

    found = {name: port.get_partial_shape() for port in ports for name in port.get_names()}
    if len(ports) != len(expected) or not expected.keys() <= found.keys():
        raise ModelPackageError(
            f"{package.onnx} has {section} tensors {', '.join(sorted(found)) or '(none)'}, but model.toml's "
            f"[{section}] names {', '.join(expected)}; correct it, or export the model with these alone"
        )
    for name, shape in expected.items():
        if not found[name].compatible(openvino.PartialShape(list(shape))):
            raise ModelPackageError(
                f"{package.onnx}: {section} tensor {name!r} has shape {found[name]}, but model.toml describes "
                f"{list(shape)}; correct model.toml or export the model again"
            )
