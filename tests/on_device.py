"""An engine whose whole path runs in the memory of a device, with any other engine as its network."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np

from engines.device.whole_path import DevicePath
from engines.inference import analyse
from engines.package import ModelPackage
from engines.runtimes.base import Engine, WholePath
from engines.types import Findings, Volume
from tests.cuda_on_cpu import CpuDriver

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Routed:
    """An engine with another whole path, or none."""

    def __init__(self, engine: Engine, whole_path: WholePath | None) -> None:
        self.whole_path, self._engine = whole_path, engine
        self.identity, self.batch, self.infer = engine.identity, engine.batch, engine.infer


def on_cpu(
    driver: CpuDriver, package: ModelPackage, engine: Engine
) -> Callable[[int, Mapping[str, int], tuple[int, ...], int], None]:
    """Give what enqueues an engine's network in the memory of the stand-in for a GPU."""

    def run(image: int, outputs: Mapping[str, int], grid: tuple[int, ...], stream: int) -> None:
        shapes = package.output_shapes(grid, engine.batch)
        answers = engine.infer(driver.view(image, (engine.batch, 1, *grid)).copy())
        for name, address in outputs.items():
            assert answers[name].shape == shapes[name]
            driver.view(address, answers[name].shape)[:] = answers[name]

    return run


def both_ways(driver: CpuDriver, package: ModelPackage, engine: Engine, volume: Volume) -> tuple[Findings, Findings]:
    """What the host, and what the device makes of a volume."""
    path = DevicePath(driver, package, on_cpu(driver, package, engine), package.input.grids, batch=engine.batch)
    host, device = (
        analyse(package, Routed(engine, way), volume, clock=lambda: NOON)  # type: ignore[arg-type]
        for way in (None, path)
    )
    path.close()
    assert not driver.held, "all device memory is given back"
    return host, device


def dice(one: np.ndarray, other: np.ndarray, number: int) -> float:
    """Overlap of one label in two label maps."""
    inside, within = one == number, other == number
    return float(2 * (inside & within).sum() / (inside.sum() + within.sum()))
