"""From a model package to the engine files that a runtime loads."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, Protocol

from filelock import FileLock, Timeout

from build_engines.errors import BuildError
from build_engines.tensorrt import TensorRtCompiler, Told
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import Precision, RuntimeSettings
from engines.runtimes.engine_file import read_engine, write_engine
from engines.runtimes.openvino_compile import compile_model, engine_path
from engines.runtimes.tensorrt import engine_name

Target = Literal["rtx", "tensorrt", "openvino"]

WAITING = "waiting for another process that builds the same"


class Progress(Protocol):
    """Is told how far a build is."""

    def __call__(self, phases: Sequence[str], done: float, /) -> None:
        """Take note.

        Parameters
        ----------
        phases
            The file of the network, then the compiler's present phase, the phase within it, and so on.
        done
            Which part of the whole build is done, 0 to 1.
        """


def build(
    package: ModelPackage,
    target: Target,
    precision: Precision,
    out: Path,
    *,
    capability: str | None = None,
    batch: int = 1,
    device: int = 0,
    progress: Progress | None = None,
) -> list[Path]:
    """Compile one model for all of its grids, unless that was done before.

    The name of an engine file holds everything that the engine depends on (`engines.runtimes.engine_file`): a file of
    that name, whole and undamaged, is not made again. Where several processes build the same, one does and the others
    wait.

    Parameters
    ----------
    package
        The model.
    target
        ``rtx`` (TensorRT for RTX, needs no GPU), ``tensorrt`` (needs the GPU that the engine is for), or ``openvino``
        (for this machine's CPU).
    precision
        ``fp32``, ``fp16``, ``bf16`` or ``int8`` on a GPU; ``fp32``, ``bf16`` or ``int8`` on the CPU. ``int8`` needs a
        quantised network in the package; what it leaves to floating point is FP16 on a GPU.
    out
        Folder of the engine files; made if it is not there.
    capability
        For ``rtx``: the one compute capability to compile for, for example ``sm89``; None for an engine that runs on
        every GPU from 8.0 on.
    batch
        How many inputs the engine takes at once.
    device
        For ``tensorrt``: number of the GPU.
    progress
        Told about the compiler's phases. Interrupting it (``KeyboardInterrupt``) ends the build.

    Returns
    -------
    list of Path
        The engine files: on a GPU one for each file of the network, on the CPU one for each of its grids too.

    Raises
    ------
    RuntimeUnavailable
        The compiler is not installed, or the target's device is not there.
    ModelPackageError
        A network is no valid ONNX model, or does not take a grid or the batch.
    BuildError
        The compiler refuses the network, the precision or the compute capability.
    """
    if capability is not None and target != "rtx":
        raise BuildError(f"{target} compiles for the device of this machine; leave the compute capability out")
    _require_writable(out)
    settings = RuntimeSettings(runtime=target, precision=precision, engines=out, batch=batch, device=device)
    if target == "openvino":
        return _with_openvino(package, settings, progress)
    paths = []
    with TensorRtCompiler(target, capability, device, out) as compiler:
        for number, network in enumerate(package.networks):
            path = out / engine_name(package, network, settings, compiler.runtime, compiler.device)
            told = _part(progress, network.name, number, len(package.networks))
            _once(path, partial(compiler.compile, package, network, settings, told), told)
            paths.append(path)
    return paths


def _require_writable(out: Path) -> None:
    """Find out before a long build, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BuildError(f"{out} cannot be written to ({error.strerror}); choose another folder") from error


def _once(path: Path, compiled: Callable[[], bytes], told: Told) -> None:
    """Write an engine file if it is not there, undamaged, in this process or in one other."""
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        told([WAITING], 0.0)
        lock.acquire()
    try:
        if not _is_whole(path):
            write_engine(path, compiled())
    finally:
        lock.release()
    told([], 1.0)


def _is_whole(path: Path) -> bool:
    try:
        read_engine(path)
    except RuntimeUnavailable:
        return False
    return True


def _part(progress: Progress | None, network: str, number: int, count: int) -> Told:
    """Tell the progress of one network as a part of the whole."""

    def told(phases: Sequence[str], done: float) -> None:
        if progress is not None:
            progress([network, *phases], (number + done) / count)

    return told


def _with_openvino(package: ModelPackage, settings: RuntimeSettings, progress: Progress | None) -> list[Path]:
    """Compile each grid by itself, as the runtime does; what is there already it imports."""
    paths = []
    every = [(network, grid) for network in package.networks for grid in package.input.grids]
    for number, (network, grid) in enumerate(every):
        told = _part(progress, network.name, number, len(every))
        told(["grid " + " × ".join(str(length) for length in grid)], 0.0)
        compile_model(package, network, settings, grid)
        path = engine_path(package, package.network_for(network, settings.precision), settings, grid)
        if path is not None:
            if not path.is_file():
                raise BuildError(f"{path.name} could not be kept in {path.parent}; see whether the disk is full")
            paths.append(path)
        told([], 1.0)
    return paths
