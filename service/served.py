"""Which models a node serves, and on what: from its settings."""

from dataclasses import replace
from pathlib import Path

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from engines.runtimes.base import GPU, RuntimeSettings
from engines.serving.messages import EngineSpec
from engines.serving.pool import DRIVER
from service.errors import ConfigurationError
from service.routing.narrowing import check_narrowing
from service.settings import Settings


def served_packages(settings: Settings) -> dict[str, ModelPackage]:
    """The model packages that the settings ask for.

    Raises
    ------
    ModelPackageError
        A package is wrong.
    ConfigurationError
        ``engines.models`` or ``[routing.MODEL]`` names a model that is not there, or narrows it by what it has not.
    """
    engines = settings.engines
    packages = load_packages(SHIPPED_MODELS, *engines.folders)
    if unknown := sorted(set(engines.models) - set(packages)):
        raise ConfigurationError(f"engines.models = {unknown}: no such model; there are {', '.join(sorted(packages))}")
    check_narrowing(settings, packages)
    return {name: packages[name] for name in engines.models} if engines.models else packages


def runtime_settings(settings: Settings) -> RuntimeSettings:
    """What the engines run on."""
    engines = settings.engines
    on_gpu = GPU if DRIVER.exists() else "openvino"
    return RuntimeSettings(
        runtime=on_gpu if engines.runtime == "auto" else engines.runtime,
        precision=engines.precision,
        engines=compiled_folder(settings),
        threads=engines.threads,
        hint=engines.hint,
        batch=engines.batch,
    )


def compiled_folder(settings: Settings) -> Path:
    """The folder of engine files and of the runtimes' caches."""
    return settings.engines.compiled or settings.spool.path / "engines"


def engine_spec(settings: Settings) -> EngineSpec:
    """What each engines' process serves."""
    engines, asked_for = settings.engines, runtime_settings(settings)
    cpu = replace(asked_for, runtime="openvino", precision="auto", batch=1)
    return EngineSpec(
        packages=(),
        settings=asked_for,
        fallback=None if asked_for.runtime == "openvino" else cpu,
        memory_mb=engines.memory_mb or None,
        batch_seconds=engines.batch_seconds,
        parallel=engines.parallel + settings.expects_urgent,
        hang_seconds=engines.hang_seconds,
    )
