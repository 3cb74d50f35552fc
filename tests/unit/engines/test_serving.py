"""Real processes, real networks; one of them really hangs."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from engines.errors import EngineMismatch, InferenceLost, PermanentError
from engines.packages.package import load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from engines.serving.messages import EngineSpec, SentImage
from engines.serving.pool import EnginePool
from engines.serving.process import EngineProcess
from engines.types import Radiograph, Volume
from tests.small_models import hanging_package, volume_package, xray_package
from tests.waiting import eventually

CPU = RuntimeSettings(threads=1)
PATIENCE = 4.0
"""Seconds after which an inference counts as hung: more than a busy machine needs for a tiny one."""


def image(background: float = 0.0) -> Radiograph:
    array = np.full((64, 96), background, np.float32)
    array[10:50, 20:60] = 2.0
    array[0, 0] = 0.0
    return Radiograph(array, None, "1.2.3")


HANGS = image(background=2.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    xray_package(folder)
    volume_package(folder)
    hanging_package(folder)
    return folder


def spec(models: Path, *names: str, **more: object) -> EngineSpec:
    return EngineSpec(tuple(models / name for name in names), CPU, hang_seconds=PATIENCE, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def process(models: Path) -> Iterator[EngineProcess]:
    with EngineProcess(spec(models, "tiny-cxr", "tiny-ct", "tiny-hang")) as process:
        yield process


def test_a_process_finds_what_the_engines_in_this_one_find(process: EngineProcess, models: Path) -> None:
    with open_engines(load_packages(models), CPU) as engines:
        expected = engines.run("tiny-cxr", image())
    found = process.run("tiny-cxr", image())
    np.testing.assert_array_equal(found.label_map.array, expected.label_map.array)
    assert (found.model, found.engine) == (expected.model, expected.engine)
    assert {status.model: status.verified for status in process.statuses} == {
        "tiny-cxr": True, "tiny-ct": True, "tiny-hang": True,
    }  # fmt: skip


def test_a_volume_in_a_file_is_read_by_the_process_and_not_sent(process: EngineProcess, tmp_path: Path) -> None:
    array = np.full((10, 24, 30), -1000, np.int16)
    array[2:8, 5:20, 5:20] = -500
    array.tofile(tmp_path / "volume.raw")
    mapped = np.memmap(tmp_path / "volume.raw", np.int16, "r", shape=array.shape)
    affine = np.eye(4)[[2, 1, 0, 3]] * 2.0
    affine[3, 3] = 1.0
    volume = Volume(mapped, affine, tuple(f"1.{index}" for index in range(10)))
    sent = SentImage.of(volume)
    assert sent.image.array.size == 0
    np.testing.assert_array_equal(sent.open().array, array)
    here = process.run("tiny-ct", Volume(array, affine, volume.sources))
    np.testing.assert_array_equal(process.run("tiny-ct", volume).label_map.array, here.label_map.array)
    assert here.label_map.array.any()


def test_what_cannot_be_analysed_comes_back_as_the_error_that_it_is(process: EngineProcess) -> None:
    with pytest.raises(PermanentError, match="tiny-cxr takes a Radiograph, not a Volume"):
        process.run("tiny-cxr", Volume(np.zeros((3, 4, 4), np.int16), np.eye(4), ("1", "2", "3")))


def test_engines_can_be_verified_again_while_they_serve(process: EngineProcess) -> None:
    assert all(status.verified for status in process.verify_again())


def test_a_hung_inference_is_ended_and_the_process_serves_again(process: EngineProcess) -> None:
    before = process.pid
    with capture_logs() as events, pytest.raises(InferenceLost, match=r"no answer for 4 s.*hang_seconds") as lost:
        process.run("tiny-hang", HANGS)
    assert lost.value.blamed
    assert process.run("tiny-hang", image()).label_map.array.any()
    assert process.pid != before
    assert not Path(f"/proc/{before}").exists(), "the hung process is gone"
    assert "engine.process_lost" in {event["event"] for event in events}


def test_who_only_waited_beside_a_hung_inference_is_not_blamed(process: EngineProcess) -> None:
    with ThreadPoolExecutor(2) as threads:
        hung = threads.submit(process.run, "tiny-hang", HANGS)
        time.sleep(1.0)
        beside = threads.submit(process.run, "tiny-cxr", image())
        errors = [hung.exception(), beside.exception()]
    assert [type(error) for error in errors] == [InferenceLost, InferenceLost]
    assert [error.blamed for error in errors] == [True, False]


def test_a_process_that_is_killed_comes_back_by_itself(process: EngineProcess) -> None:
    process.run("tiny-cxr", image())
    before = process.pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: process.alive and process.pid != before, "the process comes back")
    assert process.run("tiny-cxr", image()).label_map.array.any()


def test_a_process_that_is_stopped_is_noticed_though_nothing_runs(process: EngineProcess) -> None:
    process.run("tiny-cxr", image())
    before = process.pid
    os.kill(before, signal.SIGSTOP)
    eventually(lambda: process.alive and process.pid != before, "the silent process is replaced")
    assert process.run("tiny-cxr", image()).label_map.array.any()


def test_a_process_ends_with_the_node_that_started_it(models: Path) -> None:
    with EngineProcess(spec(models, "tiny-cxr")) as process:
        pid = process.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_engines_that_do_not_verify_say_so_and_leave_no_process(models: Path, tmp_path: Path) -> None:
    folder = xray_package(tmp_path)
    golden = load_packages(tmp_path)["tiny-cxr"].golden()
    np.savez(folder / "golden.npz", image=golden.input, probabilities=golden.outputs["probabilities"][:, ::-1])
    process = EngineProcess(spec(tmp_path, "tiny-cxr"))
    with pytest.raises(EngineMismatch, match="tiny-cxr on openvino"):
        process.start()
    assert process.pid is None


def test_a_pool_takes_up_a_new_model_while_it_serves(models: Path, tmp_path: Path) -> None:
    xray_package(tmp_path)
    pool = EnginePool(spec(tmp_path))
    pool.open(load_packages(tmp_path))
    try:
        with pytest.raises(PermanentError, match="no model 'tiny-ct' is served; choose one of tiny-cxr"):
            pool.run("tiny-ct", image())
        volume_package(tmp_path)
        pool.open(load_packages(tmp_path))
        assert {status.model for status in pool.statuses} == {"tiny-cxr", "tiny-ct"}
        assert pool.run("tiny-cxr", image()).label_map.array.any()
    finally:
        pool.close()


def test_a_pool_keeps_what_it_has_where_the_new_does_not_open(models: Path, tmp_path: Path) -> None:
    xray_package(tmp_path)
    pool = EnginePool(spec(tmp_path))
    pool.open(load_packages(tmp_path))
    try:
        folder = volume_package(tmp_path)
        packages = load_packages(tmp_path)
        (folder / "model.onnx").write_bytes(b"damaged")
        with pytest.raises(Exception, match=r"OpenVINO cannot use .*model\.onnx"):
            pool.open(packages)
        assert {status.model for status in pool.statuses} == {"tiny-cxr"}
        assert pool.run("tiny-cxr", image()).label_map.array.any()
    finally:
        pool.close()


def test_a_new_driver_is_noticed_and_everything_verified_anew(models: Path, tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.write_text("580.1")
    pool = EnginePool(spec(models), driver=driver)
    pool.open({"tiny-cxr": load_packages(models)["tiny-cxr"]})
    try:
        (before,) = (process.pid for process in pool._processes)
        assert not pool.driver_changed()
        driver.write_text("590.2")
        assert pool.driver_changed()
        pool.verify_again()
        assert not pool.driver_changed()
        assert [process.pid for process in pool._processes] != [before]
    finally:
        pool.close()
