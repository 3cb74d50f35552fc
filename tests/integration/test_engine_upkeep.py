"""The thread that looks after a node's engines, with real engines and a real compiler."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from engines.runtimes.engine_file import read_engine
from engines.serving.pool import EnginePool
from service.served import compiled_folder, engine_spec, served_packages
from service.settings import Settings, parse
from service.upkeep import EngineUpkeep
from tests.small_models import xray_package
from tests.waiting import eventually


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    xray_package(tmp_path / "models")
    engines = {
        "folders": [tmp_path / "models"], "models": ["tiny-cxr"], "runtime": "rtx", "precision": "fp16", "threads": 1,
    }  # fmt: skip
    return parse({"engines": engines, "spool": {"path": tmp_path / "spool"}}, "test")


@pytest.fixture
def pool(settings: Settings) -> Iterator[EnginePool]:
    pool = EnginePool(engine_spec(settings))
    pool.open(served_packages(settings))
    yield pool
    pool.close()


def upkeep(settings: Settings, pool: EnginePool, driver: Path) -> EngineUpkeep:
    return EngineUpkeep(settings, pool, lambda: served_packages(settings), compiled_folder(settings), driver)


def test_on_a_new_gpu_missing_engines_are_built_in_the_background_while_the_cpu_serves(
    settings: Settings, pool: EnginePool, tmp_path: Path
) -> None:
    driver = tmp_path / "version"
    driver.write_text("580.1")
    (status,) = pool.statuses
    assert status.engine.runtime.startswith("openvino")
    assert status.verified
    assert status.refusals, "the operator is told why the GPU does not serve"
    keeper = upkeep(settings, pool, driver)
    with capture_logs() as events:
        keeper.start()
        try:
            eventually(
                lambda: [event for event in events if event["event"] == "engines.reloaded"], "the pool is reloaded"
            )
        finally:
            keeper.stop()
    (engine,) = compiled_folder(settings).glob("tiny-cxr-*-rtx-*-fp16-*.engine")
    assert read_engine(engine)
    assert [event["models"] for event in events if event["event"] == "engines.building"] == [["tiny-cxr"]]


def test_where_there_is_no_gpu_nothing_is_built(settings: Settings, pool: EnginePool, tmp_path: Path) -> None:
    keeper = upkeep(settings, pool, tmp_path / "no driver")
    keeper.start()
    time.sleep(1.0)
    keeper.stop()
    assert not list(compiled_folder(settings).glob("*-rtx-*"))


def test_a_build_that_is_switched_off_does_not_begin(settings: Settings, pool: EnginePool, tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.write_text("580.1")
    off = settings.model_copy(update={"engines": settings.engines.model_copy(update={"build": False})})
    keeper = upkeep(off, pool, driver)
    keeper.start()
    time.sleep(1.0)
    keeper.stop()
    assert not list(compiled_folder(settings).glob("*-rtx-*"))
