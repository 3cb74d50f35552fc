"""Models on a GPU and on the CPU that takes its place; `tests.tensorrt_on_cpu` stands in for the GPU."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from engines.errors import OutOfMemory
from engines.packages.package import ModelPackage, load_package
from engines.runtimes.base import GPU, Outputs, RuntimeSettings
from engines.runtimes.engine_file import write_engine
from engines.runtimes.openvino import OpenVinoEngine
from engines.runtimes.tensorrt import PORTABLE, engine_name
from engines.serving.compute_device import GPU_SHARE, ComputeDevice
from engines.serving.device_memory import GpuMemory
from engines.serving.engine_set import open_engines
from engines.serving.opening import settled
from engines.types import Volume
from tests.small_models import convolutional_package
from tests.tensorrt_on_cpu import Driver, TensorRt, install

BATCH = 2
ELSEWHERE = 1000


class FullDriver(Driver):
    """The stand-in, which tells its memory too; others have `ELSEWHERE` bytes of it."""

    def mem_get_info(self) -> tuple[int, int]:
        self.require_context()
        return self.limit - self.taken - ELSEWHERE, self.limit


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    folder = convolutional_package(tmp_path / "models")
    text = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(
        text.replace("patch = [8, 16, 16]", "patch = [8, 16, 16]\nfurther_patches = [[16, 16, 16]]")
    )
    return load_package(folder)


@pytest.fixture
def driver() -> FullDriver:
    return FullDriver()


@pytest.fixture
def gpu(package: ModelPackage, driver: FullDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeSettings:
    install(monkeypatch, TensorRt(driver, package, BATCH, jit=True))
    return RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path, threads=1, batch=BATCH)


def build(package: ModelPackage, settings: RuntimeSettings) -> None:
    assert settings.engines is not None
    name = engine_name(package, package.networks[0], settings, "rtx-1.7", PORTABLE)
    write_engine(settings.engines / name, b"engine")


def volume() -> Volume:
    array = np.random.default_rng(2).integers(-1000, 0, (20, 24, 24)).astype(np.int16)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])[:, [2, 1, 0, 3]]
    return Volume(array, affine, tuple(f"1.2.{number}" for number in range(20)))


def test_a_gpu_serves_what_the_cpu_does_and_gives_all_back(
    package: ModelPackage, driver: FullDriver, gpu: RuntimeSettings
) -> None:
    packages = {package.name: package}
    build(package, gpu)
    with open_engines(packages, gpu) as engines:
        model = engines.models[package.name]
        assert (model.settings, model.refusals) == (gpu, ())
        on_gpu = engines.run(package.name, volume(), urgent=True)
    assert on_gpu.engine.device == "Imaginary GPU"
    with open_engines(packages, RuntimeSettings(threads=1)) as engines:
        on_cpu = engines.run(package.name, volume())
    assert (on_gpu.label_map.array == on_cpu.label_map.array).mean() > 0.999
    assert (driver.taken, driver.pushed) == (0, 0)


def test_the_cpu_serves_until_the_gpus_engine_is_built(package: ModelPackage, gpu: RuntimeSettings) -> None:
    with open_engines({package.name: package}, gpu) as engines:
        model = engines.models[package.name]
        assert model.engine.identity.runtime.startswith("openvino")
        assert model.engine.batch == 1
        assert "wetread engines build" in model.refusals[0]
        build(package, gpu)
        (change,) = engines.verify_again()
        assert (change.before.precision, change.after.precision) == ("fp32", "fp16")
        assert engines.run(package.name, volume()).engine.device == "Imaginary GPU"


def test_a_gpu_with_too_little_memory_leaves_the_model_to_the_cpu(
    package: ModelPackage, driver: FullDriver, gpu: RuntimeSettings
) -> None:
    build(package, gpu)
    driver.limit = 20_000
    with capture_logs() as events, open_engines({package.name: package}, gpu) as engines:
        assert engines.models[package.name].engine.identity.precision == "fp32"
        assert "memory" in engines.models[package.name].refusals[0]
    assert driver.taken == 0
    assert [event["runtime"] for event in events if event["event"] == "engine.unavailable"] == ["rtx"] * 2


def test_a_grid_that_would_fill_the_gpu_is_left_out_and_the_others_served(
    package: ModelPackage, driver: FullDriver, gpu: RuntimeSettings
) -> None:
    build(package, gpu)
    with open_engines({package.name: package}, gpu) as engines:
        takes = driver.taken
        assert engines.models[package.name].settings == gpu
    driver.limit = ELSEWHERE + int(takes / 0.95)  # it fits, and no more than a twentieth is left
    with capture_logs() as events, open_engines({package.name: package}, gpu) as engines:
        assert engines.models[package.name].settings == gpu
        assert engines.run(package.name, volume()).engine.device == "Imaginary GPU"
    assert [event["grid"] for event in events if event["event"] == "engine.grid_left_out"] == [(16, 16, 16)]


def test_a_gpu_gets_the_runtime_that_is_installed_for_it(gpu: RuntimeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.serving.opening.installed_gpu_runtime", lambda device: ("rtx", "tensorrt")[device])
    left_open, cpu = replace(gpu, runtime=GPU, device=1), RuntimeSettings()
    assert settled(left_open, cpu) == replace(gpu, runtime="tensorrt", device=1)
    assert settled(gpu, cpu) == gpu


def test_where_nothing_is_installed_for_the_gpu_the_cpu_serves_and_the_log_says_why(
    gpu: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with capture_logs() as events:
        assert settled(replace(gpu, runtime=GPU), RuntimeSettings()) == RuntimeSettings()
    assert [event["event"] for event in events] == ["engine.unavailable"]
    assert "pip install pycuda" in events[0]["reason"]


def test_the_budget_of_a_gpu_is_a_share_of_what_is_free(driver: FullDriver, gpu: RuntimeSettings) -> None:
    with ComputeDevice("GPU 0", gpu, memory_mb=None, batch_seconds=0.0) as device:
        assert device._residency._budget == int(GPU_SHARE * (driver.limit - ELSEWHERE))
    with ComputeDevice("GPU 0", gpu, memory_mb=3, batch_seconds=0.0) as device:
        assert device._residency._budget == 3_000_000


def test_what_others_have_of_a_gpu_is_taken(driver: FullDriver, gpu: RuntimeSettings) -> None:
    memory = GpuMemory(0)
    assert memory.read() == (ELSEWHERE, driver.limit - ELSEWHERE)


def test_a_gpu_that_differs_from_the_cpu_on_a_further_grid_is_refused(
    package: ModelPackage, gpu: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(engine: OpenVinoEngine, tensor: np.ndarray) -> Outputs:
        answers = infer(engine, tensor)
        if engine.batch == 1 and tensor.shape[2:] == (16, 16, 16):  # the CPU's, which is as good as the GPU's
            return {name: np.roll(array, 1, axis=1) for name, array in answers.items()}
        return answers

    infer = OpenVinoEngine.infer
    monkeypatch.setattr(OpenVinoEngine, "infer", wrong)
    build(package, gpu)
    with open_engines({package.name: package}, gpu) as engines:
        refusal, _ = engines.models[package.name].refusals
    assert "fp32 on the patch [16, 16, 16]: probability error" in refusal


def test_a_gpu_serves_where_the_cpu_has_no_room_for_the_reference(
    package: ModelPackage, gpu: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: OpenVinoEngine) -> None:
        raise OutOfMemory("something else has all of it")

    monkeypatch.setattr(OpenVinoEngine, "activate", refuse)
    build(package, gpu)
    with capture_logs() as events, open_engines({package.name: package}, gpu) as engines:
        assert engines.models[package.name].settings == gpu
    assert [event["reason"] for event in events if event["event"] == "engine.no_reference"] == [
        "something else has all of it"
    ]
