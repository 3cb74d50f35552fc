"""All engines of a node: opened, verified against their golden outputs, warm, and resident until closed."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from engines.description import RadiographInput
from engines.errors import EngineMismatch, PermanentError, RuntimeUnavailable
from engines.inference import Clock, analyse
from engines.package import ModelPackage, check_crops
from engines.runtimes.base import Engine, RuntimeSettings, create_engine
from engines.types import Findings, Image, LabelMap
from engines.verify import Verification, verify

FALLBACK = "openvino"
"""Runs everywhere; tried where the configured runtime cannot be used or gives wrong answers."""


def utc_now() -> datetime:
    """Give the present time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready: its package, its active engine, and the proof that they agree."""

    package: ModelPackage
    engine: Engine
    verification: Verification


class EngineSet:
    """The models that a node serves. Made by `open_engines`; several threads may run them."""

    def __init__(self, models: Mapping[str, ServedModel], clock: Clock) -> None:
        self.models = models
        self._clock = clock

    def run(
        self,
        name: str,
        image: Image,
        label_maps: Mapping[str, LabelMap] | None = None,
        *,
        probabilities: bool = False,
    ) -> Findings:
        """Run a model over an image, and before it the model that it is cropped to, if need be.

        Parameters
        ----------
        name
            Of the model.
        image
            See `engines.inference.analyse`.
        label_maps
            What other models have already found in this image, by model name; they are not run again.
        probabilities
            Whether to keep the probabilities of the segments too; see `engines.inference.analyse`.

        Raises
        ------
        PermanentError
            No such model is served, or the image cannot be analysed.
        """
        if name not in self.models:
            raise PermanentError(f"no model {name!r} is served; choose one of {', '.join(sorted(self.models))}")
        model = self.models[name]
        region = self._region(model.package, image, label_maps or {})
        return analyse(
            model.package, model.engine, image, clock=self._clock, region=region, probabilities=probabilities
        )

    def _region(self, package: ModelPackage, image: Image, label_maps: Mapping[str, LabelMap]) -> LabelMap | None:
        if not isinstance(package.input, RadiographInput) or package.input.crop_to is None:
            return None
        name = package.input.crop_to
        return label_maps[name] if name in label_maps else self.run(name, image).label_map


@contextmanager
def open_engines(
    packages: Mapping[str, ModelPackage], settings: RuntimeSettings, clock: Clock = utc_now
) -> Iterator[EngineSet]:
    """Open every model on the configured runtime, or on OpenVINO where that cannot be, and keep them resident.

    The verification is each engine's first inference, so that no patient waits for what happens only once.

    Parameters
    ----------
    packages
        By name, as from `engines.package.load_packages`.
    settings
        What to run on.
    clock
        Gives ``Findings.analysed_at``.

    Raises
    ------
    ModelPackageError
        A model is cropped to one that is not among the packages, or a network is not as ``model.toml`` describes it.
    RuntimeUnavailable, EngineMismatch
        A model runs on no runtime, or gives wrong answers on OpenVINO too. Nothing is served then: a node that
        silently lacks a model is worse than one that does not start.
    """
    check_crops(packages)
    with ExitStack() as stack:
        models = {name: _open(package, settings, stack) for name, package in packages.items()}
        yield EngineSet(models, clock)


def _open(package: ModelPackage, settings: RuntimeSettings, stack: ExitStack) -> ServedModel:
    fallback = replace(settings, runtime=FALLBACK, precision="fp32")
    if settings != fallback:
        # The event with the reason is in the log; from here on the fallback's own errors count.
        with suppress(RuntimeUnavailable, EngineMismatch):
            return _open_on(package, settings, stack)
    return _open_on(package, fallback, stack)


def _open_on(package: ModelPackage, settings: RuntimeSettings, stack: ExitStack) -> ServedModel:
    log = structlog.get_logger().bind(model=package.name, runtime=settings.runtime, precision=settings.precision)
    with ExitStack() as opened:
        try:
            engine = opened.enter_context(create_engine(package, settings))
            verification = verify(package, engine).require()
        except RuntimeUnavailable as error:
            log.warning("engine.unavailable", reason=str(error))
            raise
        except EngineMismatch as error:
            log.error("engine.refused", reason=str(error))  # noqa: TRY400  the traceback says nothing more
            raise
        stack.push(opened.pop_all())
    log.info("engine.verified", device=engine.identity.device, probability_error=verification.probability_error)
    return ServedModel(package, engine, verification)
