"""From an ONNX network to what OpenVINO runs on this CPU, and back from a file."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from engines.errors import OutOfMemory, RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import RuntimeSettings
from engines.runtimes.engine_file import engine_file_name, read_engine, write_engine

log = structlog.get_logger()

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is left to floating point. A quantised network says itself where it computes in integers."""

SAYS_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate")
"""OpenVINO's errors have no types; these words are in the two that it gives where memory ends."""

Grid = tuple[int, ...]


def openvino_version() -> str:
    """Give the version of the installed OpenVINO, for example ``2026.4.1``."""
    import openvino

    return str(openvino.__version__).split("-")[0]


def cpu_name() -> str:
    """Give what the CPU calls itself, for example ``AMD EPYC 9554 64-Core Processor``."""
    import openvino

    return " ".join(str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")).split())


def compile_model(package: ModelPackage, network: Path, settings: RuntimeSettings, grid: Grid) -> Any:
    """Compile a network for this CPU and one grid, or import what was compiled before.

    An engine file that cannot be used is replaced: OpenVINO can always compile.

    Returns
    -------
    openvino.CompiledModel

    Raises
    ------
    RuntimeUnavailable
        The precision is not for this runtime or this CPU, or OpenVINO refuses the network.
    ModelPackageError
        The network's input is not what ``model.toml`` describes, or the package has no quantised network.
    OutOfMemory
        There is not enough for this grid.
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
    if path is not None and path.is_file():
        try:
            with openvino_errors(path):
                return core.import_model(read_engine(path), "CPU", config)
        except RuntimeUnavailable as error:
            log.warning("engine.replaced", file=path.name, reason=str(error))
    with openvino_errors(file):
        model = core.read_model(str(file))
        shape = (settings.batch, package.input.channels, *grid)
        if len(model.inputs) == 1 and tuple(model.input().get_partial_shape().to_shape()) != shape:
            model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", config)
    if path is not None:
        _keep(path, compiled)
    return compiled


def _keep(path: Path, compiled: Any) -> None:
    try:
        write_engine(path, compiled.export_model().getvalue())
    except OSError as error:
        # A folder that cannot be written to costs half a second at the next start, and nothing else.
        log.warning("engine.not_kept", file=path.name, reason=error.strerror)


@contextmanager
def openvino_errors(what: Path | str) -> Iterator[None]:
    """Give OpenVINO's errors the types of `engines.errors`."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"{what}: not enough memory") from error
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1].strip()
        if any(words in str(error) for words in SAYS_OUT_OF_MEMORY):
            raise OutOfMemory(f"{what}: not enough memory ({reason})") from error
        raise RuntimeUnavailable(f"OpenVINO cannot use {what}: {reason}") from error


def engine_path(package: ModelPackage, file: Path, settings: RuntimeSettings, grid: Grid) -> Path | None:
    """Name the engine file of a network on one grid, None where engines are not kept.

    What was compiled is fitted to the CPU, its instructions and the threads: a file from another machine, or made with
    other settings, has another name.
    """
    if settings.engines is None:
        return None
    name = engine_file_name(
        package,
        file,
        runtime=f"openvino-{openvino_version()}",
        device=f"cpu-{_cpu_digest()}-{settings.hint}-{settings.threads or 'all'}",
        precision=settings.precision,
        grids=[grid],
        batch=settings.batch,
    )
    return settings.engines / name


def _cpu_digest() -> str:
    import openvino

    core = openvino.Core()
    kind = (cpu_name(), sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")), os.cpu_count())
    return hashlib.sha256(repr(kind).encode()).hexdigest()[:8]


def has_bf16(core: Any = None) -> bool:
    """Whether this CPU computes in bf16."""
    import openvino

    return "BF16" in (core or openvino.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _precision_hint(core: Any, settings: RuntimeSettings) -> str:
    if settings.precision not in PRECISION_HINTS:
        raise RuntimeUnavailable(
            f"OpenVINO on the CPU has no precision {settings.precision!r}; choose one of {', '.join(PRECISION_HINTS)}"
        )
    if settings.precision == "bf16" and not has_bf16(core):
        raise RuntimeUnavailable("this CPU does not compute in bf16; choose precision fp32")
    return PRECISION_HINTS[settings.precision]
