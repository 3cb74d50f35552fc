"""What the node and an engines' process say to each other."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.runtimes.base import RuntimeSettings
from engines.serving.scheduling import BATCH_SECONDS
from engines.types import EngineIdentity, Image

PULSE_SECONDS = 1.0
"""How often the process says that it lives, and what it is doing."""


@dataclass(frozen=True)
class EngineSpec:
    """What a process is to serve.

    Attributes
    ----------
    packages
        Folders of the model packages.
    settings
        What to run on; ``device`` is the process's own.
    fallback
        What to run on where the process does not come up so, None for nothing else.
    memory_mb
        How much memory all engines together may take; the least recently used is put away. None for no limit.
    batch_seconds
        How long a small input may wait for others to be run with it.
    parallel
        How many images are worked on at a time: one is prepared while the network is at another.
    hang_seconds
        After so long a single inference counts as hung.
    """

    packages: tuple[Path, ...]
    settings: RuntimeSettings
    fallback: RuntimeSettings | None = None
    memory_mb: int | None = None
    batch_seconds: float = BATCH_SECONDS
    parallel: int = 2
    hang_seconds: float = 300.0


@dataclass(frozen=True)
class EngineStatus:
    """How one model is served.

    ``problem`` says what is wrong with the engine that serves now, ``refusals`` why engines that come before it in the
    order of preference were not taken; both empty where all is well.
    """

    model: str
    engine: EngineIdentity
    problem: str = ""
    refusals: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether it reproduces the golden outputs."""
        return not self.problem


@dataclass(frozen=True, eq=False)
class SentImage:
    """An image. An array that lies in a file is not sent: ``file`` says where it is, and the image's own is empty."""

    image: Image
    file: Path | None = None
    dtype: str = ""
    offset: int = 0
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, image: Image) -> Self:
        """Make an image ready for sending."""
        array = image.array
        if not (isinstance(array, np.memmap) and array.filename is not None and array.flags.c_contiguous):
            return cls(image)
        nothing = np.empty((array.shape[0],) + (0,) * (array.ndim - 1), array.dtype)
        file = Path(os.fspath(array.filename)).absolute()
        return cls(replace(image, array=nothing), file, array.dtype.str, int(array.offset), array.shape)

    def open(self) -> Image:
        """Give the image as it was."""
        if self.file is None:
            return self.image
        return replace(self.image, array=np.memmap(self.file, self.dtype, "r", self.offset, self.shape))


@dataclass(frozen=True, eq=False)
class Request:
    """Run a model over an image (`EngineSet.run`)."""

    number: int
    model: str
    image: SentImage
    probabilities: bool
    urgent: bool


@dataclass(frozen=True)
class VerifyAgain:
    """Compare every engine with its golden outputs once more; the answer are the statuses."""

    number: int


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a request: a value or an error."""

    number: int
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Opened:
    """All engines are verified and serve, or an error says why not."""

    statuses: tuple[EngineStatus, ...] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class Pulse:
    """The process lives. ``requests`` are those whose inference runs, together, for ``seconds`` now."""

    requests: tuple[int, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Logged:
    """Something for the log."""

    level: str
    event: str
    fields: Mapping[str, Any]
