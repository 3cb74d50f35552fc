"""The whole path of a volume on a real GPU against that on the host."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build_engines.compile import build
from build_engines.recipes.data import phantom
from engines.device.check import compare
from engines.device.components import drop_small_components
from engines.device.kernels import Kernels
from engines.device.memory import Allocations, Staging
from engines.device.whole_path import DevicePath
from engines.errors import OutOfMemory, RuntimeUnavailable
from engines.inference.postprocessing import keep_largest_component
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import Engine, RuntimeSettings, create_engine
from engines.runtimes.cuda import Gpu
from engines.types import Affine, Volume
from tests.on_device import AXIAL, GEOMETRIES, Routed, affine, noisy, unet
from tests.small_models import volume_package

ENOUGH = 0.9999


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        return Gpu(0)
    except RuntimeUnavailable as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")


def on_gpu(
    gpu: Gpu, package: ModelPackage, engine: Engine
) -> Callable[[int, Mapping[str, int], tuple[int, ...], int], None]:
    """Give what runs a CPU's network between two copies: this test is about everything but the network."""
    driver: Any = gpu.driver

    def run(image: int, outputs: Mapping[str, int], grid: tuple[int, ...], stream: int) -> None:
        tensor = np.empty((engine.batch, 1, *grid), np.float32)
        driver.Context.synchronize()
        driver.memcpy_dtoh(tensor, image)
        for name, answer in engine.infer(tensor).items():
            driver.memcpy_htod(outputs[name], np.ascontiguousarray(answer))

    return run


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_labels_are_those_of_the_host(
    gpu: Gpu, tmp_path: Path, geometry: tuple[Affine, tuple[float, ...] | None], kind: type
) -> None:
    require_agreement(gpu, load_package(volume_package(tmp_path)), geometry, kind)


@pytest.mark.parametrize("keys", ["flips = [1, 0, 2]", 'overlap = 0.5\nblend = "constant"', "range = [-1.0, 3.0]"])
def test_patches_are_scaled_mirrored_and_blended_as_on_the_host(gpu: Gpu, tmp_path: Path, keys: str) -> None:
    require_agreement(gpu, unet(tmp_path, keys), GEOMETRIES["tilted gantry"], np.int16)


def require_agreement(
    gpu: Gpu, package: ModelPackage, geometry: tuple[Affine, tuple[float, ...] | None], kind: type
) -> None:
    with create_engine(package, RuntimeSettings(threads=1, batch=2)) as engine, gpu.current():
        path = DevicePath(gpu.driver, package, on_gpu(gpu, package, engine), package.input.grids, batch=2)
        agreement = compare(package, Routed(engine, path), noisy(*geometry, kind))  # type: ignore[arg-type]
        path.close()
    assert agreement.least_dice > ENOUGH
    assert agreement.value_error < 0.01


@pytest.mark.parametrize("share", [0.31, 0.6, 0.95])
@pytest.mark.parametrize("labels", [1, 3, 200])
def test_of_each_label_the_largest_component_is_kept(gpu: Gpu, share: float, labels: int) -> None:
    """Millions of threads at once; the same again and again."""
    random, shape = np.random.default_rng(labels), (120, 200, 210)
    image = (random.integers(1, labels + 1, shape) * (random.random(shape) < share)).astype(np.uint8)
    maps = np.stack([image == 0, image > 0]).astype(np.float32)
    expected = keep_largest_component(image) > 0
    with gpu.current():
        stream = gpu.driver.Stream()
        kernels, staging = Kernels(gpu.driver, stream), Staging(gpu.driver, stream)
        for _ in range(5):
            with Allocations(gpu.driver, stream) as memory:
                given, probabilities = memory.send(staging, image), memory.send(staging, maps)
                assert given is not None
                assert probabilities is not None
                drop_small_components(kernels, memory, given, shape, probabilities, 2)
                after = np.empty_like(maps)
                staging.receive(after, probabilities)
            np.testing.assert_array_equal(after[1] > 0, expected)
            np.testing.assert_array_equal(after[0] > 0, ~expected)


def test_all_memory_is_given_back(gpu: Gpu, tmp_path: Path) -> None:
    package, volume = load_package(volume_package(tmp_path)), noisy(*GEOMETRIES["axial"])
    with create_engine(package, RuntimeSettings(threads=1)) as engine, gpu.current():
        path = DevicePath(gpu.driver, package, on_gpu(gpu, package, engine), package.input.grids)
        path(volume)
        free, _ = gpu.driver.mem_get_info()
        for _ in range(3):
            path(volume)
        assert gpu.driver.mem_get_info()[0] == free
        rest = gpu.driver.mem_alloc(free - 256 * 2**20)
        with pytest.raises(OutOfMemory):
            path(Volume(np.zeros((400, 512, 512), np.float32), volume.affine, ("",) * 400))
        rest.free()
        assert path(volume).labels.any()
        path.close()


def drawn_chest() -> Volume:
    """A chest that needs no file, with noise: 100 slices of 256 x 256."""
    shape, spacing = (100, 256, 256), (3.2, 1.5, 1.5)
    array = phantom.chest(shape, spacing).astype(np.int16)
    array += np.random.default_rng(1).integers(-20, 20, shape, np.int16)
    return Volume(array, affine(AXIAL, *spacing), tuple(str(number) for number in range(len(array))))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_lungs_are_the_same_with_tensorrt(gpu: Gpu, tmp_path: Path, precision: str) -> None:
    package = load_package(SHIPPED_MODELS / "ct-lung")
    build(package, "rtx", precision, tmp_path)
    with create_engine(package, RuntimeSettings("rtx", precision, engines=tmp_path)) as engine:  # type: ignore[arg-type]
        agreement = compare(package, engine, drawn_chest())
    assert agreement.least_dice > 0.999
    assert agreement.value_error < 0.01
