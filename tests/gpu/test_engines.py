"""The shipped models on a real GPU: compiled, run, and compared with their golden answers."""

from pathlib import Path

import numpy as np
import pytest

from build_engines.compile import build
from engines.errors import RuntimeUnavailable
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import Precision, RuntimeSettings, create_engine
from engines.runtimes.cuda import Gpu
from engines.verify import verify

MODELS = sorted(folder.name for folder in SHIPPED_MODELS.iterdir() if (folder / "model.toml").is_file())
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> None:
    try:
        Gpu(0)
    except RuntimeUnavailable as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_a_compiled_model_passes_its_golden_check(model: str, precision: Precision, tmp_path: Path) -> None:
    package = load_package(SHIPPED_MODELS / model)
    if precision == "int8" and not package.networks[0].with_suffix(".int8.onnx").is_file():
        pytest.skip(f"{model} ships no quantised network")
    build(package, "rtx", precision, tmp_path)
    with create_engine(package, RuntimeSettings("rtx", precision, engines=tmp_path)) as engine:
        assert verify(package, engine).require().ok


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(tmp_path: Path) -> None:
    package = load_package(SHIPPED_MODELS / "cxr-lung")
    golden = package.golden().input
    build(package, "rtx", "fp16", tmp_path, batch=3)
    with create_engine(package, RuntimeSettings("rtx", "fp16", engines=tmp_path, batch=3)) as engine:
        alone = engine.infer(golden)["probabilities"]
        among = engine.infer(np.concatenate([golden[..., ::-1], golden, 1 - golden]))["probabilities"]
    assert np.array_equal(alone[0], among[1])


def test_an_engine_can_be_activated_again_and_leaves_no_memory_behind(tmp_path: Path) -> None:
    package = load_package(SHIPPED_MODELS / "cxr-lung")
    build(package, "rtx", "fp16", tmp_path)
    gpu, free = Gpu(0), []
    for _ in range(4):
        with create_engine(package, RuntimeSettings("rtx", "fp16", engines=tmp_path)) as engine:
            engine.infer(package.golden().input)
        with gpu.current():
            free.append(gpu.driver.mem_get_info()[0])
    # What the libraries take once is taken by the second round.
    assert free[1] - free[-1] < 32e6
