"""The engines of a node: one process for each device, watched, verified again and again, exchanged without a pause."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import structlog

from engines.errors import PermanentError, RuntimeUnavailable, WetreadError
from engines.packages.package import ModelPackage
from engines.serving.messages import EngineSpec, EngineStatus
from engines.serving.process import EngineProcess
from engines.types import Findings, Image

log = structlog.get_logger()

DRIVER = Path("/proc/driver/nvidia/version")
"""Where the NVIDIA driver tells its version."""


class EnginePool:
    """Serves models on several devices; the least busy one gets an image. Use it as a context manager.

    Parameters
    ----------
    spec
        What each process serves; its ``packages`` and ``settings.device`` are filled in.
    devices
        Numbers of the GPUs; one entry, whatever its number, for the CPU.
    driver
        File that tells the GPU driver's version.
    """

    def __init__(self, spec: EngineSpec, devices: Sequence[int] = (0,), driver: Path = DRIVER) -> None:
        self._spec = spec
        self._devices = devices
        self._driver = driver
        self._driver_version = ""
        self._changing = threading.Lock()
        self._processes: list[EngineProcess] = []
        self._coming: list[EngineProcess] = []
        self._closed = False
        self.packages: Mapping[str, ModelPackage] = {}

    def open(self, packages: Mapping[str, ModelPackage]) -> None:
        """Serve these models instead of those before, without a pause; where they do not open, those before stay.

        Raises
        ------
        WetreadError
            As from `EngineProcess.start`.
        """
        spec = replace(self._spec, packages=tuple(package.folder for package in packages.values()))
        with self._changing:
            self._driver_version = self._read_driver()
            each = [replace(spec, settings=replace(spec.settings, device=device)) for device in self._devices]
            processes = self._coming = [EngineProcess(one) for one in each]
            with ExitStack() as opened:
                for process in processes:
                    if self._closed:
                        raise RuntimeUnavailable("the engines are being closed")
                    opened.enter_context(process)
                opened.pop_all()
            earlier, self._processes, self.packages = self._processes, processes, packages
            for process in earlier:
                process.drain()

    def close(self) -> None:
        """End every process, also those that are only being opened."""
        self._closed = True
        for process in self._coming:
            process.give_up()
        with self._changing:
            for process in self._processes:
                process.stop()
            self._processes = []

    def run(self, model: str, image: Image, *, probabilities: bool = False, urgent: bool = False) -> Findings:
        """Run a model over an image on the device that has least to do; see `EngineProcess.run`."""
        if model not in self.packages:
            raise PermanentError(f"no model {model!r} is served; choose one of {', '.join(sorted(self.packages))}")
        process = min(self._processes, key=lambda process: (not process.alive, process.busy))
        return process.run(model, image, probabilities=probabilities, urgent=urgent)

    @property
    def statuses(self) -> tuple[EngineStatus, ...]:
        """How each model is served on each device; a process that is being started again serves nothing."""
        return tuple(
            status if process.alive else replace(status, problem="its process is being started again")
            for process in self._processes
            for status in process.statuses
        )

    def verify_again(self) -> None:
        """Compare every engine with its golden outputs; start anew on a device that was not as it was asked for."""
        if any(process.fell_back for process in self._processes) or self.driver_changed():
            self.open(self.packages)
            return
        for process in self._processes:
            try:
                process.verify_again()
            except WetreadError as error:
                log.error("engine.verification_failed", reason=str(error))  # noqa: TRY400

    def driver_changed(self) -> bool:
        """Whether the GPU's driver is another than when the engines were opened: they are then to be verified anew."""
        return bool(self._driver_version) and self._read_driver() != self._driver_version

    def _read_driver(self) -> str:
        try:
            return self._driver.read_text()
        except OSError:
            return ""
