"""What a network is given for some images, recorded while they go through the whole path of a node."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from build_engines.images import read_image
from engines.errors import PermanentError
from engines.inference.analyse import analyse
from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine, Outputs, RuntimeSettings, create_engine
from engines.types import EngineIdentity

Array = NDArray[np.float32]

Told = Callable[[int], None]
"""Takes how many images are done."""


class Recorder(Engine):
    """An engine that keeps what it is asked."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.inputs: list[Array] = []

    @property
    def identity(self) -> EngineIdentity:
        """That of the engine which answers."""
        return self._inner.identity

    def activate(self) -> None:
        """See `Engine.activate`."""
        self._inner.activate()

    def infer(self, tensor: Array) -> Outputs:
        """See `Engine.infer`."""
        self.inputs += np.split(tensor.copy(), len(tensor))
        return self._inner.infer(tensor)

    def deactivate(self) -> None:
        """See `Engine.deactivate`."""
        self._inner.deactivate()


def record_inputs(
    package: ModelPackage,
    packages: Mapping[str, ModelPackage],
    images: Sequence[tuple[str, ...]],
    told: Told | None = None,
) -> list[Array]:
    """Bring images to a network, on the grid of its golden input.

    Parameters
    ----------
    package
        The model.
    packages
        Where the model is that its images are cropped to, if there is one.
    images
        Files of each, as from `build_engines.images.find_images`.
    told
        Told about the progress.

    Returns
    -------
    list of Array
        ``[1, channel, …grid]`` each: one for an X-ray, one for each window of a volume.

    Raises
    ------
    PermanentError
        An image cannot be analysed by this model; the message names its file.
    """
    wanted = package.input
    if isinstance(wanted, VolumeInput):
        one_grid = wanted.model_copy(update={"further_patches": ()})
        package = replace(package, description=package.description.model_copy(update={"input": one_grid}))
    cropper = packages[wanted.crop_to] if wanted.crop_to else None
    settings = RuntimeSettings()
    with ExitStack() as active:
        recorder = active.enter_context(Recorder(create_engine(package, settings)))
        finder = active.enter_context(create_engine(cropper, settings)) if cropper else None
        for done, files in enumerate(images, start=1):
            try:
                image, region = read_image(files), None
                if cropper and finder:
                    region = analyse(cropper, finder, image, clock=_now).label_map
                analyse(package, recorder, image, clock=_now, region=region)
            except PermanentError as error:
                raise PermanentError(f"{files[0]}: {error}; leave it out") from error
            if told is not None:
                told(done)
    return recorder.inputs


def _now() -> datetime:
    return datetime.now(UTC)
