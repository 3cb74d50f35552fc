"""The whole path of a volume on a device against that on the host, both on the CPU.

The kernels are compiled as C++ (`tests.cuda_on_cpu` says what that proves, and what not); the networks are real.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import pytest

from engines.device.check import compare
from engines.device.whole_path import DevicePath
from engines.errors import ModelPackageError, OutOfMemory, PermanentError
from engines.inference.analyse import analyse
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import DeviceAnswer, Engine, Outputs, RuntimeSettings, create_engine
from engines.types import Affine, Volume
from tests.cuda_on_cpu import COMPILER, CpuDriver
from tests.on_device import GEOMETRIES, NOON, Routed, both_ways, noisy, on_cpu, real_ct, require_the_same, unet
from tests.small_models import overlapping_package, volume_package

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, which compiles the kernels for the CPU")


@pytest.fixture(scope="module")
def pointwise(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(volume_package(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def pointwise_engine(pointwise: ModelPackage) -> Iterator[Engine]:
    with create_engine(pointwise, RuntimeSettings(threads=1)) as engine:
        yield engine


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_labels_are_those_of_the_host(
    pointwise: ModelPackage, pointwise_engine: Engine, geometry: tuple[Affine, tuple[float, ...] | None], kind: type
) -> None:
    host, device = both_ways(CpuDriver(), pointwise, pointwise_engine, noisy(*geometry, kind))
    assert host.label_map is not None
    assert device.label_map is not None
    assert device.label_map.array.dtype == np.uint8
    require_the_same(host.label_map.array, device.label_map.array, labels=2)
    for one, other in zip(host.input_statistics, device.input_statistics, strict=True):
        assert other.value == pytest.approx(one.value, abs=0.01)


WAYS = {
    "gaussian windows": "overlap = 0.5",
    "constant windows": 'overlap = 0.3\nblend = "constant"',
    "flips": "flips = [0, 2]",
    "every flip": 'flips = [1, 0, 2]\nblend = "constant"',
    "a range": "range = [-1.0, 3.0]",
    "mean and deviation": "mean = [-400.0]\ndeviation = [250.0]",
    "other axes": 'axes = "RAH"\nflips = [1]',
    "other spacings": "spacing_mm = [3.1, 2.2, 1.7]",
    "one patch that is larger": "spacing_mm = [9.0, 6.0, 6.0]\nflips = [0]",
    "larger along one axis": "spacing_mm = [9.0, 2.0, 2.0]",
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("keys", WAYS.values(), ids=WAYS.keys())
def test_patches_are_scaled_mirrored_and_blended_as_on_the_host(tmp_path: Path, keys: str, batch: int) -> None:
    package = unet(tmp_path, keys)
    with create_engine(package, RuntimeSettings(threads=1, batch=batch)) as engine:
        host, device = both_ways(CpuDriver(), package, engine, noisy(*GEOMETRIES["tilted gantry"]))
    assert host.label_map is not None
    assert device.label_map is not None
    require_the_same(host.label_map.array, device.label_map.array, labels=2)


def test_the_check_tells_how_far_device_and_host_agree(pointwise: ModelPackage, pointwise_engine: Engine) -> None:
    driver, volume = CpuDriver(), noisy(*GEOMETRIES["axial"])
    path = DevicePath(driver, pointwise, on_cpu(driver, pointwise, pointwise_engine), pointwise.input.grids)

    def half(volume: Volume) -> DeviceAnswer:
        answer = path(volume)
        answer.labels[:, :17] = 0
        answer.values[3, 4, 5] += 8
        return answer

    same, other = (compare(pointwise, Routed(pointwise_engine, way), volume) for way in (path, half))  # type: ignore[arg-type]
    assert (same.dice.keys(), same.least_dice, same.differing) == ({"Dark", "Bright"}, 1, 0)
    assert same.value_error < 0.01
    assert 0 < other.least_dice < 0.9
    assert other.differing > 0.01
    assert other.value_error == pytest.approx(8, abs=0.1)
    with pytest.raises(PermanentError, match=r"tiny-ct on openvino .* has no whole path"):
        compare(pointwise, pointwise_engine, volume)


def test_the_values_are_what_the_network_was_given(pointwise: ModelPackage, pointwise_engine: Engine) -> None:
    driver, volume = CpuDriver(), noisy(*GEOMETRIES["oblique"])
    path = DevicePath(driver, pointwise, on_cpu(driver, pointwise, pointwise_engine), pointwise.input.grids, batch=1)
    answer = path(volume)
    seen: list[np.ndarray] = []

    class Watched(Routed):
        def watch(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
            seen.append(tensor)
            return dict(pointwise_engine.infer(tensor))

    watched = Watched(pointwise_engine, None)
    watched.infer = watched.watch
    analyse(pointwise, watched, volume, clock=lambda: NOON)  # type: ignore[arg-type]
    low, high = pointwise.input.window
    first = (answer.values[tuple(slice(0, length) for length in pointwise.input.patch)] - low) / (high - low)
    np.testing.assert_allclose(first, seen[0][0, 0], atol=1e-5)
    assert answer.seconds.keys() == {"preprocess", "infer", "postprocess"}


def test_a_smaller_patch_is_taken_where_the_largest_does_not_fit(tmp_path: Path) -> None:
    package = unet(tmp_path, "patch = [8, 16, 16]\nfurther_patches = [[24, 32, 32]]")
    volume = noisy(*GEOMETRIES["axial"])
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        plenty = CpuDriver()
        both_ways(plenty, package, engine, volume)
        few = CpuDriver(limit=plenty.most - 1)
        _, device = both_ways(few, package, engine, volume)
        [tried, taken] = (driver.started.count("cut_patch") for driver in (plenty, few))
        assert taken > tried
        small = package.description.model_copy(
            update={"input": package.input.model_copy(update={"further_patches": ()})}
        )
        host = analyse(
            ModelPackage(package.folder, small, package.identity),
            Routed(engine, None),  # type: ignore[arg-type]
            volume,
            clock=lambda: NOON,
        )
    assert host.label_map is not None
    assert device.label_map is not None
    require_the_same(host.label_map.array, device.label_map.array, labels=2)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_whatever_allocation_fails_all_memory_is_given_back(
    pointwise: ModelPackage, pointwise_engine: Engine, share: float
) -> None:
    volume, plenty = noisy(*GEOMETRIES["averaged, odd sizes"]), CpuDriver()
    both_ways(plenty, pointwise, pointwise_engine, volume)
    driver = CpuDriver(limit=int(plenty.most * share))
    path = DevicePath(driver, pointwise, on_cpu(driver, pointwise, pointwise_engine), pointwise.input.grids)
    with pytest.raises(OutOfMemory, match="the GPU has no 1 MiB left"):
        path(volume)
    assert not driver.held
    driver.limit = plenty.limit
    assert path(volume).labels.any(), "the path can be used again"


def test_the_host_takes_over_where_the_device_holds_patches_but_not_the_volume(
    pointwise: ModelPackage, pointwise_engine: Engine
) -> None:
    volume, driver = noisy(*GEOMETRIES["tilted gantry"]), CpuDriver(limit=150_000)
    host, device = both_ways(driver, pointwise, pointwise_engine, volume)
    assert "lowest_int16" in driver.started
    assert "cut_patch" not in driver.started
    assert host.label_map is not None
    assert device.label_map is not None
    np.testing.assert_array_equal(device.label_map.array, host.label_map.array)


def test_memory_is_given_back_when_the_network_fails(pointwise: ModelPackage) -> None:
    driver = CpuDriver()

    def fails(*_: object) -> None:
        raise driver.Error("an illegal memory access was encountered")

    with pytest.raises(CpuDriver.Error, match="illegal memory access"):
        DevicePath(driver, pointwise, fails, pointwise.input.grids)(noisy(*GEOMETRIES["axial"]))
    assert not driver.held


def test_what_is_missing_in_a_batch_is_zero(tmp_path: Path) -> None:
    package, driver, empty = unet(tmp_path, "flips = [0]"), CpuDriver(), []
    with create_engine(package, RuntimeSettings(threads=1, batch=5)) as engine:
        run = on_cpu(driver, package, engine)

        def watched(image: int, outputs: dict[str, int], grid: tuple[int, ...], stream: int) -> None:
            def look() -> None:
                slots = driver.view(image, (5, prod(grid)))
                empty.append([bool((slot == 0).all()) for slot in slots])

            driver.streams[stream].enqueue(look)
            run(image, outputs, grid, stream)

        DevicePath(driver, package, watched, package.input.grids, batch=5)(noisy(*GEOMETRIES["axial"]))
    patches = driver.started.count("cut_patch")
    assert patches % 5
    assert empty[0] == [False] * 5
    assert empty[-1] == [False] * (patches % 5) + [True] * (5 - patches % 5)


def test_a_network_without_memory_for_any_patch_says_so(pointwise: ModelPackage) -> None:
    driver = CpuDriver()

    def fails(*_: object) -> None:
        raise driver.MemoryError("cuMemAlloc failed: out of memory")

    with pytest.raises(OutOfMemory, match=r"tiny-ct does not fit.*too little memory for the grid \[8, 12, 16\]"):
        DevicePath(driver, pointwise, fails, pointwise.input.grids)(noisy(*GEOMETRIES["axial"]))
    assert not driver.held


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_is_refused(
    pointwise: ModelPackage, pointwise_engine: Engine, value: float
) -> None:
    driver = CpuDriver()
    run = on_cpu(driver, pointwise, pointwise_engine)

    def broken(image: int, outputs: dict[str, int], grid: tuple[int, ...], stream: int) -> None:
        run(image, outputs, grid, stream)
        answer = outputs["probabilities"]
        driver.streams[stream].enqueue(lambda: np.put(driver.view(answer, (3, *grid)), 1234, value))

    with pytest.raises(PermanentError, match="the answer of tiny-ct on the GPU holds NaN or infinity"):
        DevicePath(driver, pointwise, broken, pointwise.input.grids)(noisy(*GEOMETRIES["axial"]))
    assert not driver.held


def test_a_model_that_cannot_stay_on_the_device_is_refused(tmp_path: Path) -> None:
    package = load_package(overlapping_package(tmp_path))
    with pytest.raises(ModelPackageError, match="tiny-overlap cannot stay on the GPU"):
        DevicePath(CpuDriver(), package, lambda *_: None, package.input.grids)


def test_the_lungs_of_a_real_ct_are_those_of_the_host(shared_data: Path) -> None:
    """Every fourth row and column, in windows: the network is by far the slowest part."""
    shipped = load_package(SHIPPED_MODELS / "ct-lung")
    windows = shipped.input.model_copy(update={"further_patches": ((64, 96, 96),)})
    described = shipped.description.model_copy(update={"input": windows})
    package = ModelPackage(shipped.folder, described, shipped.identity)
    volume = real_ct(shared_data, every=4)
    with create_engine(package, RuntimeSettings()) as engine:
        host, device = both_ways(CpuDriver(), package, Small(engine, 64 * 96 * 96), volume)
    assert host.label_map is not None
    assert device.label_map is not None
    require_the_same(host.label_map.array, device.label_map.array, labels=2)


class Small(Routed):
    """An engine with memory for small grids only."""

    def __init__(self, engine: Engine, most: int) -> None:
        super().__init__(engine, None)
        self._most, self.infer = most, self._infer

    def _infer(self, tensor: np.ndarray) -> Outputs:
        if tensor.size > self._most:
            raise OutOfMemory("too large")
        return self._engine.infer(tensor)
