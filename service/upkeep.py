"""What the engines of a running node need now and then: verification, missing engines built, new models taken up."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import structlog

from engines.packages.package import ModelPackage
from engines.runtimes.base import GPU
from engines.serving.opening import ON_GPU
from engines.serving.pool import DRIVER, EnginePool
from service.control import answer_requests
from service.errors import WetreadError, told_by_place
from service.settings import Settings

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""How often it looks whether there is something to do."""


class EngineUpkeep(threading.Thread):
    """Looks after the engines, in a thread of its own.

    Parameters
    ----------
    load
        Reads the model packages that the settings ask for.
    compiled
        Folder of the engine files.
    driver
        Is there where there is an NVIDIA GPU.
    """

    def __init__(
        self,
        settings: Settings,
        engines: EnginePool,
        load: Callable[[], Mapping[str, ModelPackage]],
        compiled: Path,
        driver: Path = DRIVER,
    ) -> None:
        super().__init__(name="engine-upkeep", daemon=True)
        self._settings = settings
        self._engines = engines
        self._load = load
        self._compiled = compiled
        self._driver = driver
        self._stopping = threading.Event()
        self._builder: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Look after the engines until `stop`."""
        verified = time.monotonic()
        self._build_missing()
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                answer_requests(self._settings.home, {"reload": self.reload})
                if self._built():
                    self.reload()
                if self._engines.driver_changed() or self._is_due(verified):
                    verified = time.monotonic()
                    self._engines.verify_again()
                    self._build_missing()
            except (WetreadError, OSError) as error:  # the engines that were there go on serving
                log.error("engine.upkeep_failed", reason=str(error))  # noqa: TRY400
            except Exception as error:  # without this thread nothing would ever be verified or reloaded again
                log.error("engine.upkeep_failed", reason=told_by_place(error))  # noqa: TRY400

    def stop(self) -> None:
        """End; a build that is under way is given up."""
        self._stopping.set()
        self.join()
        if self._builder is not None and self._builder.poll() is None:
            self._builder.terminate()
            self._builder.wait()

    def reload(self) -> Mapping[str, Any]:
        """Read all model packages anew and serve them, once they are verified; the earlier ones serve until then.

        Raises
        ------
        WetreadError
            A package is wrong, or an engine is; everything stays as it was.
        """
        packages = self._load()
        self._engines.open(packages)
        log.info("engines.reloaded", models=sorted(packages))
        return {
            "models": [
                {
                    "model": status.model,
                    "version": packages[status.model].identity.version,
                    "runtime": status.engine.runtime,
                    "precision": status.engine.precision,
                    "device": status.engine.device,
                    "refusals": list(status.refusals),
                }
                for status in self._engines.statuses
            ]
        }

    def _is_due(self, verified: float) -> bool:
        return time.monotonic() - verified > self._settings.engines.verify_hours * 3600

    def _build_missing(self) -> None:
        """Build in the background what the GPU has no engine of; a process of its own, so that nothing waits for it."""
        engines = self._settings.engines
        target = GPU if engines.runtime == "auto" else engines.runtime
        precision = ON_GPU if engines.precision == "auto" else engines.precision
        missing = [
            status.model
            for status in self._engines.statuses
            if status.refusals and status.engine.runtime.startswith("openvino")
        ]
        wanted = engines.build and target != "openvino" and self._driver.exists()
        if not missing or not wanted or self._builder is not None:
            return
        log.info("engines.building", models=missing, runtime=target, precision=precision)
        folders = [part for folder in engines.folders for part in ("--models", str(folder))]
        command = [
            *(sys.executable, "-P", "-m", "service.cli", "engines", "build", *missing),
            *("--target", target, "--precision", precision, "--batch", str(engines.batch)),
            *("--out", str(self._compiled), *folders),
        ]
        # not a pipe: nobody reads it before the end, and a full one would stop the build
        self._said = TemporaryFile("w+")  # noqa: SIM115
        self._builder = subprocess.Popen(
            ["nice", *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said
        )

    def _built(self) -> bool:
        """Whether a build has ended well just now."""
        builder = self._builder
        if builder is None or builder.poll() is None:
            return False
        with self._said:
            self._said.seek(0)
            said = self._said.read()
        self._builder = None
        if builder.returncode:
            log.error("engines.build_failed", reason=said.strip()[-500:])
        return builder.returncode == 0
