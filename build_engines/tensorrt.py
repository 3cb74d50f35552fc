"""From an ONNX network to an engine, with TensorRT or TensorRT for RTX."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any, Self

import onnx
import structlog

from build_engines.errors import BuildError
from build_engines.graph import load_graph, to_bfloat16, to_half
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import RuntimeSettings
from engines.runtimes.cuda import Gpu
from engines.runtimes.engine_file import read_engine, write_engine
from engines.runtimes.tensorrt import PORTABLE
from engines.runtimes.tensorrt_library import load_tensorrt, tensorrt_logger

log = structlog.get_logger()

TYPED: Mapping[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp32": lambda model: model,
    "fp16": to_half,
    "bf16": to_bfloat16,
    "int8": to_half,
}
"""How a graph says in which precision it computes. What a quantised one leaves to floating point becomes FP16."""

Told = Callable[[Sequence[str], float], None]
"""Takes the phases, the outermost first, and the part that is done, 0 to 1."""


class TensorRtCompiler:
    """The compiler of one target. A context manager, because TensorRT measures kernels on the GPU that it compiles for.

    Parameters
    ----------
    target
        ``rtx`` or ``tensorrt``.
    capability
        For ``rtx``: the one compute capability to compile for, or None for a portable engine.
    device
        For ``tensorrt``: number of the GPU.
    out
        Where TensorRT keeps what it measured (the timing cache; TensorRT for RTX measures nothing when it compiles).

    Attributes
    ----------
    runtime, device
        Runtime with its version, and what the engines are for, as their files' names have them.
    """

    def __init__(self, target: str, capability: str | None, device: int, out: Path) -> None:
        self._trt = load_tensorrt(target)
        self._capability = capability
        self._number = device
        self._out = out
        self._needs_gpu = target == "tensorrt"
        self._open = ExitStack()
        self.runtime = f"{target}-{self._trt.__version__}"
        self.device = capability or PORTABLE
        if capability is not None:
            self._compute_capability(capability)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            if self._needs_gpu:
                gpu = Gpu(self._number)
                opened.enter_context(gpu.current())
                self.device = gpu.capability
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._open.__exit__(kind, error, traceback)

    def compile(self, package: ModelPackage, network: Path, settings: RuntimeSettings, told: Told) -> bytes:
        """Compile one file of a model's network, with an optimisation profile for each of the package's grids.

        Raises
        ------
        ModelPackageError
            The network is no valid ONNX model, or does not take a grid or the batch.
        BuildError
            TensorRT refuses it, or has no such precision.
        """
        if settings.precision not in TYPED:
            raise BuildError(f"TensorRT has no precision {settings.precision!r}; choose one of {', '.join(TYPED)}")
        grids, trt = package.input.grids, self._trt
        file = package.network_for(network, settings.precision)
        model = TYPED[settings.precision](load_graph(package, file, grids, settings.batch))
        logger = tensorrt_logger(trt)
        builder = trt.Builder(logger)
        parsed = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(parsed, logger)
        if not parser.parse(model.SerializeToString()):
            reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
            if "zero point" in reasons.lower():
                reasons += "; TensorRT wants symmetric INT8: quantise it with zero points of 0"
            raise BuildError(f"TensorRT cannot read {file}: {reasons}")
        config = builder.create_builder_config()
        for profile in optimisation_profiles(builder, package, settings.batch):
            config.add_optimization_profile(profile)
        if settings.batch > 1 and hasattr(trt.BuilderFlag, "DISTRIBUTIVE_INDEPENDENCE"):
            # So that an answer does not depend on its place in the batch.
            config.set_flag(trt.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE)
        if self._capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._compute_capability(self._capability), 0)
        monitor = progress_monitor(trt, told)
        config.progress_monitor = monitor
        timings = self._read_timings(config) if self._needs_gpu else None
        with _control_c_told(monitor):
            engine = builder.build_serialized_network(parsed, config)
        if monitor.interruption is not None:
            raise monitor.interruption
        if engine is None:
            raise BuildError(f"TensorRT cannot compile {file}: {logger.last_error or 'no reason given'}")
        if timings is not None:
            self._write_timings(config)
        return bytes(engine)

    @property
    def _timings(self) -> Path:
        return self._out / f"{self.runtime}-{self.device}.timings"

    def _read_timings(self, config: Any) -> Any:
        try:
            known = read_engine(self._timings)
        except RuntimeUnavailable as error:
            log.debug("tensorrt.no_timings", reason=str(error))
            known = b""
        cache = config.create_timing_cache(known)
        config.set_timing_cache(cache, False)
        return cache

    def _write_timings(self, config: Any) -> None:
        write_engine(self._timings, bytes(config.get_timing_cache().serialize()))

    def _compute_capability(self, capability: str) -> Any:
        known: Mapping[str, Any] = {
            name.lower(): value
            for name, value in self._trt.ComputeCapability.__members__.items()
            if name.startswith("SM")
        }
        if capability not in known:
            raise BuildError(f"TensorRT for RTX has no compute capability {capability!r}; choose of {', '.join(known)}")
        return known[capability]


def optimisation_profiles(builder: Any, package: ModelPackage, batch: int) -> list[Any]:
    """Make one optimisation profile for each grid, in the order of ``input.grids``; none where there is but one grid.

    Least, best and largest shape are the same, so every kernel is chosen for exactly that shape.
    """
    grids = package.input.grids
    profiles = [builder.create_optimization_profile() for _ in grids] if len(grids) > 1 else []
    for grid, profile in zip(grids, profiles, strict=False):
        shape = (batch, package.input.channels, *grid)
        profile.set_shape(package.input.tensor, shape, shape, shape)
    return profiles


def _strongly_typed(trt: Any) -> int:
    # From TensorRT 11 on every network is, and one day the flag may be gone.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


def progress_monitor(trt: Any, told: Told) -> Any:
    """Make a monitor that tells a build's progress.

    Returns
    -------
    tensorrt.IProgressMonitor
        What ``told`` raises, such as ``KeyboardInterrupt``, ends the build and is then its attribute ``interruption``:
        an exception cannot pass through the compiler.
    """

    # A class in a function: its base class exists only once TensorRT is imported.
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interruption: BaseException | None = None
            self._phases: dict[str, _Phase] = {}
            self._furthest = 0.0
            self._lock = Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                with self._lock:
                    self._phases[phase_name] = _Phase(parent_phase, max(1, num_steps))
                    self._tell(phase_name)
            except BaseException as error:
                self.interruption = error

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                with self._lock:
                    self._phases[phase_name].done = step + 1
                    self._tell(phase_name)
            except BaseException as error:
                self.interruption = error
            return self.interruption is None

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                del self._phases[phase_name]

        def _tell(self, phase_name: str) -> None:
            names, done = _progress(self._phases, phase_name)
            # A phase may go on beside the next step of the one around it.
            self._furthest = max(self._furthest, done)
            told(names, self._furthest)

    return Monitor()


@contextmanager
def _control_c_told(monitor: Any) -> Iterator[None]:
    """Let Control-C end a build through its monitor.

    As an exception it would come up in whatever Python the compiler calls next, before that can catch it, and the
    compiler drops exceptions: the build would go on.
    """
    usual = signal.default_int_handler
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def tell(_number: int, _frame: FrameType | None) -> None:
        monitor.interruption = KeyboardInterrupt()

    signal.signal(signal.SIGINT, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _progress(phases: Mapping[str, _Phase], name: str) -> tuple[list[str], float]:
    """Name a phase and those around it, the outermost first, and how much of that one is done."""
    names: list[str] = []
    done = 0.0
    while name in phases and name not in names:
        phase = phases[name]
        done = min(1.0, (phase.done + done) / phase.steps)
        names.insert(0, name)
        name = phase.parent or ""
    return names, done
