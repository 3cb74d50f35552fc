"""From a model package to an engine that serves it: the first of several runtimes that gives the right answers."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import structlog

from engines.errors import EngineMismatch, RuntimeUnavailable, TransientError, WetreadError
from engines.packages.description import Limits
from engines.packages.package import ModelPackage
from engines.runtimes.base import GPU, Precision, RuntimeSettings
from engines.runtimes.openvino_compile import has_bf16
from engines.runtimes.tensorrt_library import installed_gpu_runtime
from engines.serving.compute_device import ComputeDevice
from engines.serving.queued_engine import QueuedEngine
from engines.serving.scheduling import OnStart, Running
from engines.verify import Verification, verify, verify_further_grids

FALLBACK = "openvino"
"""Runs everywhere; tried where the configured runtime cannot be used or gives wrong answers."""

ON_GPU: Precision = "fp16"
"""What the precision ``auto`` is on a GPU; engines that are missing there are built in it."""

log = structlog.get_logger()


def settled(settings: RuntimeSettings, fallback: RuntimeSettings | None) -> RuntimeSettings:
    """Give what to run on, with the runtime of the GPU found out where the settings leave it open.

    Parameters
    ----------
    settings
        ``runtime`` may be `GPU`.
    fallback
        What to run on where there is no runtime for the GPU.
    """
    if settings.runtime != GPU or fallback is None:
        return settings
    try:
        return replace(settings, runtime=installed_gpu_runtime(settings.device))
    except RuntimeUnavailable as error:
        log.warning("engine.unavailable", runtime=GPU, reason=str(error))
        return fallback


def choices(package: ModelPackage, settings: RuntimeSettings) -> tuple[RuntimeSettings, ...]:
    """Give what a model is tried on, one after the other.

    As configured; the same without a batch, for a network that takes one input at a time or does not keep them apart;
    OpenVINO; OpenVINO in FP32. The precision ``auto`` is each that `precisions` gives.
    """
    asked = [replace(settings, precision=precision) for precision in precisions(package, settings)]
    cpu = replace(settings, runtime=FALLBACK, batch=1)
    on_cpu = [replace(cpu, precision=precision) for precision in precisions(package, replace(cpu, precision="auto"))]
    return tuple(
        dict.fromkeys(
            (
                *asked,
                *(replace(each, batch=1) for each in asked),
                *(on_cpu if settings.runtime != FALLBACK else ()),
                replace(cpu, precision="fp32"),
            )
        )
    )


def precisions(package: ModelPackage, settings: RuntimeSettings) -> tuple[Precision, ...]:
    """Give the precisions to try, the fastest first: the configured one, or for ``auto`` those that suit the model.

    On a GPU that is FP16. On a CPU it is INT8 where the package has a quantised network, and bf16 where its
    ``[verify.bf16]`` says how good that has to be and the CPU has it.
    """
    if settings.precision != "auto":
        return (settings.precision,)
    if settings.runtime != FALLBACK:
        return (ON_GPU,)
    found: list[Precision] = ["int8"] if package.quantised else []
    if package.description.verify.bf16 != Limits() and has_bf16():
        found.append("bf16")
    return (*found, "fp32")


@dataclass(frozen=True)
class ServedModel:
    """A model: its package, its engine, and the proof that they agree.

    Attributes
    ----------
    settings
        What the engine runs on.
    verification
        The latest.
    refusals
        Why what comes before ``settings`` in the order of `choices` was not taken, in words.
    problem
        Why the model is not served any more, in words; "" where it is.
    """

    package: ModelPackage
    settings: RuntimeSettings
    engine: QueuedEngine
    verification: Verification
    refusals: tuple[str, ...] = ()
    problem: str = ""


class Opener:
    """Opens models on devices, which it opens when they are first wanted. Use it as a context manager.

    Parameters
    ----------
    settings
        What to run on; see `choices`.
    memory_mb, batch_seconds, on_start
        See `engines.serving.compute_device.ComputeDevice`.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        *,
        memory_mb: int | None,
        batch_seconds: float,
        on_start: OnStart = lambda _: None,
    ) -> None:
        self._settings = settings
        self._memory_mb = memory_mb
        self._batch_seconds = batch_seconds
        self._on_start = on_start
        self._devices: dict[str, ComputeDevice] = {}
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let what runs end, fail what waits, and give all memory back."""
        self._opened.close()

    @property
    def running(self) -> Running | None:
        """Of what the devices do now, that which has run longest."""
        running = [device.queue.running for device in tuple(self._devices.values())]
        return min((each for each in running if each), key=lambda each: each.since, default=None)

    def open(self, package: ModelPackage, before: ServedModel | None = None) -> ServedModel:
        """Open and verify a model.

        Parameters
        ----------
        package
            The model.
        before
            How it has been served until now, if it has: that engine is not opened again, but verified again.

        Raises
        ------
        EngineMismatch
            Nothing serves, and the engine of ``before`` gives wrong answers.
        ModelPackageError, RuntimeUnavailable, EngineMismatch, OutOfMemory
            Otherwise, of the last that was tried.
        """
        refusals: list[str] = []
        wrong: EngineMismatch | None = None
        tried = choices(package, self._settings)
        for settings in tried:
            told = log.bind(model=package.name, runtime=settings.runtime, precision=settings.precision)
            told.debug("engine.opening")
            kept = before if before and before.settings == settings and not before.problem else None
            try:
                model = self._kept(kept) if kept else self._opened_on(package, settings)
            except WetreadError as error:
                if isinstance(error, EngineMismatch):
                    wrong = error if kept else wrong
                    told.error("engine.refused", reason=str(error))
                else:
                    told.warning("engine.unavailable", reason=str(error))
                if settings == tried[-1]:
                    if wrong and wrong is not error:
                        raise wrong from error
                    raise
                batch = f", batch {settings.batch}" if settings.batch > 1 else ""
                refusals.append(f"{settings.runtime} {settings.precision}{batch}: {error}")
            else:
                told.info(
                    "engine.verified",
                    device=model.engine.identity.device,
                    probability_error=model.verification.probability_error,
                )
                return replace(model, refusals=tuple(refusals))
        raise AssertionError("the last choice serves or raises")

    @staticmethod
    def _kept(model: ServedModel) -> ServedModel:
        return replace(model, verification=verify(model.package, model.engine).require())

    def _opened_on(self, package: ModelPackage, settings: RuntimeSettings) -> ServedModel:
        engine = self._device(settings).engine(package, settings)
        with ExitStack() as opened:
            opened.callback(engine.deactivate)
            # The engine's first inference: no patient waits for what happens only once.
            verification = verify(package, engine).require()
            if len(package.input.grids) > 1:
                with ExitStack() as beside:
                    reference = None if settings.runtime == FALLBACK else self._reference(package, settings, beside)
                    verify_further_grids(package, engine, reference)
            opened.pop_all()
        return ServedModel(package, settings, engine, verification)

    def _reference(self, package: ModelPackage, settings: RuntimeSettings, opened: ExitStack) -> QueuedEngine | None:
        """Give the same model on the CPU in FP32, None where there is no room for it."""
        settings = replace(settings, runtime=FALLBACK, precision="fp32", batch=1)
        try:
            engine = opened.enter_context(self._device(settings).engine(package, settings))
            verify(package, engine).require()
        except TransientError as error:
            log.warning("engine.no_reference", model=package.name, reason=str(error))
            return None
        return engine

    def _device(self, settings: RuntimeSettings) -> ComputeDevice:
        name = "the CPU" if settings.runtime == FALLBACK else f"GPU {settings.device}"
        if name not in self._devices:
            # The budget is that of the configured device; on a CPU beside a GPU, nobody has set one.
            memory_mb = self._memory_mb if settings.runtime == self._settings.runtime else None
            self._devices[name] = self._opened.enter_context(
                ComputeDevice(
                    name,
                    settings,
                    memory_mb=memory_mb,
                    batch_seconds=self._batch_seconds,
                    on_start=self._on_start,
                )
            )
        return self._devices[name]
