"""All engines of a node: opened, verified against their golden outputs, warm, and resident until closed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from types import MappingProxyType

import structlog

from engines.errors import PermanentError, RuntimeUnavailable, TransientError
from engines.inference.analyse import Clock, analyse
from engines.packages.package import ModelPackage, check_crops
from engines.runtimes.base import RuntimeSettings
from engines.serving.opening import Opener, ServedModel
from engines.serving.recent import Recent, digest
from engines.serving.scheduling import BATCH_SECONDS, OnStart, Running
from engines.types import EngineIdentity, Findings, Image

log = structlog.get_logger()


def utc_now() -> datetime:
    """Give the present time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Change:
    """A model that is served by another engine than before, or, where ``after`` is None, not any more."""

    model: str
    before: EngineIdentity | None
    after: EngineIdentity | None
    reasons: tuple[str, ...]


class EngineSet:
    """The models that a node serves. Made by `open_engines`; several threads may run them.

    Parameters
    ----------
    opener
        Opens them, and verifies them again.
    clock
        Gives ``Findings.analysed_at``.
    """

    def __init__(self, packages: Mapping[str, ModelPackage], opener: Opener, clock: Clock) -> None:
        self._opener = opener
        self._clock = clock
        self._changing = Lock()
        self._models = {name: opener.open(package) for name, package in packages.items()}
        self._recent = Recent()
        self._cropped_to = {package.input.crop_to for package in packages.values()}

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Every model by name, as it is served now."""
        return MappingProxyType(self._models)

    @property
    def running(self) -> Running | None:
        """What has run longest of all that the devices do now, so that somebody can see that it hangs."""
        return self._opener.running

    def run(self, name: str, image: Image, *, probabilities: bool = False, urgent: bool = False) -> Findings:
        """Run a model over an image, and before it the model that it is cropped to, if need be.

        What a model that others are cropped to has just found in an image is not found again.

        Parameters
        ----------
        name
            Of the model.
        image
            See `engines.inference.analyse.analyse`.
        probabilities
            Whether to keep the probabilities of the segments too; see `engines.inference.analyse.analyse`.
        urgent
            Whether it comes before all routine work on the device.

        Raises
        ------
        PermanentError
            No such model is served, or the image cannot be analysed.
        TransientError
            The model is not served just now, its engine was exchanged meanwhile, or memory is short.
        """
        if name not in self._models:
            raise PermanentError(f"no model {name!r} is served; choose one of {', '.join(sorted(self._models))}")
        model = self._models[name]
        if model.problem:
            raise RuntimeUnavailable(f"{name} is not served at present: {model.problem}")

        def found() -> Findings:
            return self._analyse(model, image, probabilities, urgent)

        if name not in self._cropped_to or probabilities:
            return found()
        return self._recent.find((model.package.identity, model.engine.identity, digest(image)), found)

    def _analyse(self, model: ServedModel, image: Image, probabilities: bool, urgent: bool) -> Findings:
        cropping = self._cropping(model.package, image, urgent)
        findings = analyse(
            model.package,
            model.engine.asked(urgent=urgent),
            image,
            clock=self._clock,
            region=cropping.label_map if cropping else None,
            probabilities=probabilities,
        )
        # What makes the crop doubtful makes doubtful what was found in it.
        return replace(findings, notes=(*cropping.notes, *findings.notes)) if cropping else findings

    def verify_again(self) -> tuple[Change, ...]:
        """Compare every engine with its golden outputs once more, as routine work while it serves.

        What comes earlier in the order of preference is tried again too: its engine may have been built meanwhile. An
        engine that is exchanged ends what it is at with `RuntimeUnavailable`, to be tried again on the new one. A model
        that gives right answers on no runtime is served no more until it is verified again; one that cannot be verified
        just now, for want of memory say, is served as before.
        """
        with self._changing:
            changes = [self._verify_again(model) for model in tuple(self._models.values())]
        return tuple(change for change in changes if change)

    def _verify_again(self, before: ServedModel) -> Change | None:
        name = before.package.name
        try:
            after = self._opener.open(before.package, before)
        except TransientError as error:
            log.warning("engine.not_verified", model=name, reason=str(error))
            return None
        except PermanentError as error:
            after = replace(before, problem=str(error))
        self._models[name] = after
        if after.engine is before.engine and bool(after.problem) == bool(before.problem):
            return None
        if not before.problem:
            before.engine.deactivate()
        was, now = (None if model.problem else model.engine.identity for model in (before, after))
        reasons = (after.problem,) if after.problem else after.refusals
        log.warning(
            "engine.exchanged", model=name, before=was and was.runtime, after=now and now.runtime, reasons=reasons
        )
        return Change(name, was, now, reasons)

    def _cropping(self, package: ModelPackage, image: Image, urgent: bool) -> Findings | None:
        """What the model finds that this one is cropped to, if it is."""
        if package.input.crop_to is None:
            return None
        return self.run(package.input.crop_to, image, urgent=urgent)


@contextmanager
def open_engines(
    packages: Mapping[str, ModelPackage],
    settings: RuntimeSettings,
    clock: Clock = utc_now,
    *,
    memory_mb: int | None = None,
    batch_seconds: float = BATCH_SECONDS,
    on_start: OnStart = lambda _: None,
) -> Iterator[EngineSet]:
    """Open every model on the first runtime that can serve it (`engines.serving.opening`), and keep them resident.

    The verification is each engine's first inference, so that no patient waits for what happens only once.

    Parameters
    ----------
    packages
        By name, as from `engines.packages.package.load_packages`.
    settings
        What to run on.
    clock
        Gives ``Findings.analysed_at``.
    memory_mb
        What the engines may take of the memory of the configured device; the least recently used makes room. None: no
        limit on a CPU, on a GPU what is free when it is opened, less a tenth.
    batch_seconds
        How long a routine inference waits for others to share its batch.
    on_start
        See `engines.serving.scheduling.OnStart`.

    Raises
    ------
    ModelPackageError
        A model is cropped to one that is not among the packages, or a network is not as ``model.toml`` describes it.
    RuntimeUnavailable, EngineMismatch, OutOfMemory
        A model runs on no runtime, or gives wrong answers on OpenVINO too. Nothing is served then: a node that
        silently lacks a model is worse than one that does not start.
    """
    check_crops(packages)
    with Opener(settings, memory_mb=memory_mb, batch_seconds=batch_seconds, on_start=on_start) as opener:
        yield EngineSet(packages, opener, clock)
