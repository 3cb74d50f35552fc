"""Does the whole path on a device give what the host gives? For tests on GPUs and for benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from engines.errors import PermanentError
from engines.inference.analyse import analyse
from engines.inference.volume_path import volume_tensor
from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine, Outputs
from engines.types import EngineIdentity, Volume
from engines.verify import dice


@dataclass(frozen=True)
class Agreement:
    """What two ways of computing the same label map have in common.

    Attributes
    ----------
    dice
        Overlap of each segment, by its label; 1 where neither has it.
    differing
        Share of the source's voxels that have another label.
    value_error
        Largest difference of what the network was given, in HU.
    host_seconds, device_seconds
        For ``preprocess``, ``infer`` and ``postprocess``.
    """

    dice: Mapping[str, float]
    differing: float
    value_error: float
    host_seconds: Mapping[str, float]
    device_seconds: Mapping[str, float]

    @property
    def least_dice(self) -> float:
        """Of the segment that agrees least."""
        return min(self.dice.values())


def compare(package: ModelPackage, engine: Engine, volume: Volume) -> Agreement:
    """Label a volume with the same network on the device and on the host.

    Parameters
    ----------
    package
        The model.
    engine
        Of this model, active, with a whole path on the device.
    volume
        In HU.

    Raises
    ------
    PermanentError
        The engine has no whole path, or the model is none for volumes.
    """
    wanted, whole_path = package.input, engine.whole_path
    if whole_path is None or not isinstance(wanted, VolumeInput):
        raise PermanentError(f"{package.name} on {engine.identity.runtime} has no whole path on the device")
    device = whole_path(volume)
    host = analyse(package, OnHost(engine), volume, clock=lambda: datetime.now(UTC))
    labels = np.zeros_like(device.labels) if host.label_map is None else host.label_map.array
    return Agreement(
        dice={each.label: dice(labels == each.number, device.labels == each.number) for each in package.segments},
        differing=float((labels != device.labels).mean()),
        value_error=float(np.abs(volume_tensor(wanted, volume).values - device.values).max()),
        host_seconds=dict(host.seconds),
        device_seconds=dict(device.seconds),
    )


class OnHost(Engine):
    """An active engine whose patches are cut, blended and labelled by the host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        return self._engine.identity

    @property
    def batch(self) -> int:
        """See `Engine.batch`."""
        return self._engine.batch

    def activate(self) -> None:
        """Nothing: it is active."""

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        """See `Engine.infer`."""
        return self._engine.infer(tensor)

    def deactivate(self) -> None:
        """Nothing: whoever activated the engine deactivates it."""
