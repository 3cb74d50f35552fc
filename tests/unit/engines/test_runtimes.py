import os
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from engines.engine_file import engine_file_name, write_engine
from engines.errors import RuntimeUnavailable
from engines.package import ModelPackage, load_package
from engines.runtimes.base import RUNTIMES, RuntimeSettings, create_engine
from engines.runtimes.tensorrt import PORTABLE, deserialise, find_engine_file, load_tensorrt, tensorrt_logger
from tests.small_models import convolutional_package, random_image, reference

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(convolutional_package(tmp_path))


@pytest.fixture(scope="module")
def rtx() -> Any:
    try:
        return load_tensorrt("rtx")
    except RuntimeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def file_name(package: ModelPackage, runtime: str, device: str, precision: str) -> str:
    return engine_file_name(
        package, package.networks[0], runtime=runtime, device=device, precision=precision, grids=[package.grid]
    )


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def test_openvino_answers_as_onnx_runtime_does_on_inputs_it_was_not_verified_with(package: ModelPackage) -> None:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        for scale in (0.1, 1.0, 30.0):
            image = random_image(package.input_shape) * scale
            np.testing.assert_allclose(
                engine.infer(image)["probabilities"], reference(package.networks[0], image), atol=1e-4
            )


def test_an_answer_is_not_overwritten_by_the_next(package: ModelPackage) -> None:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        first = engine.infer(package.golden().input)["probabilities"]
        kept = first.copy()
        engine.infer(np.zeros(package.input_shape, np.float32))
        np.testing.assert_array_equal(first, kept)


def test_an_engine_says_what_it_runs_on(package: ModelPackage) -> None:
    with create_engine(package, RuntimeSettings()) as engine:
        assert engine.identity.runtime == f"openvino {openvino.__version__.split('-')[0]}"
        assert (engine.identity.precision, engine.identity.device) == ("fp32", "CPU")


def test_an_engine_can_be_activated_again(package: ModelPackage) -> None:
    engine = create_engine(package, RuntimeSettings(threads=1))
    for _ in range(2):
        with engine:
            assert engine.infer(package.golden().input)["probabilities"].shape == (1, 3, 8, 16, 16)


def test_infer_before_activate_is_an_error_that_names_the_model(package: ModelPackage) -> None:
    for runtime in RUNTIMES:
        with pytest.raises(RuntimeUnavailable, match="tiny-unet is not active"):
            create_engine(package, RuntimeSettings(runtime=runtime)).infer(package.golden().input)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU does not compute in bf16")
def test_bf16_is_close_to_the_reference_but_not_the_same(package: ModelPackage) -> None:
    golden = package.golden()
    with create_engine(package, RuntimeSettings(precision="bf16", threads=1)) as engine:
        error = float(np.abs(engine.infer(golden.input)["probabilities"] - golden.outputs["probabilities"]).max())
    assert 0 < error < 0.1


def test_a_precision_that_a_runtime_lacks_is_refused_with_the_choice(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match="'fp16'; choose one of fp32, bf16, int8"):
        create_engine(package, RuntimeSettings(precision="fp16")).activate()
    with pytest.raises(RuntimeUnavailable, match="'bf16' here; choose one of fp32, fp16"):
        create_engine(package, RuntimeSettings(runtime="rtx", precision="bf16")).activate()


def test_an_unknown_runtime_is_refused_with_the_choice(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match="no runtime 'cuda'; choose one of openvino, rtx, tensorrt"):
        create_engine(package, RuntimeSettings(runtime="cuda"))


def test_a_damaged_openvino_engine_file_is_named(package: ModelPackage, tmp_path: Path) -> None:
    version = openvino.__version__.split("-")[0]
    path = tmp_path / file_name(package, f"openvino-{version}", "cpu", "fp32")
    path.write_bytes(b"damaged")
    with pytest.raises(RuntimeUnavailable, match=path.name):
        create_engine(package, RuntimeSettings(engines=tmp_path)).activate()


def test_the_engine_file_of_this_gpu_comes_before_the_portable_one(package: ModelPackage, tmp_path: Path) -> None:
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path)
    portable = tmp_path / file_name(package, "rtx-1.7", PORTABLE, "fp16")
    portable.touch()
    assert find_engine_file(package, package.networks[0], settings, "rtx-1.7", "sm89") == portable
    own = tmp_path / file_name(package, "rtx-1.7", "sm89", "fp16")
    own.touch()
    assert find_engine_file(package, package.networks[0], settings, "rtx-1.7", "sm89") == own


def test_an_engine_file_of_another_version_or_precision_is_not_taken(package: ModelPackage, tmp_path: Path) -> None:
    (tmp_path / file_name(package, "rtx-1.6", PORTABLE, "fp16")).touch()
    (tmp_path / file_name(package, "rtx-1.7", PORTABLE, "fp32")).touch()
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path)
    with pytest.raises(RuntimeUnavailable, match="wetread engines build tiny-unet --target rtx --precision fp16"):
        find_engine_file(package, package.networks[0], settings, "rtx-1.7", "sm89")


def test_without_an_engine_folder_the_operator_is_told_what_to_set(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"set engines\.compiled"):
        find_engine_file(package, package.networks[0], RuntimeSettings(runtime="rtx"), "rtx-1.7", "sm89")


def test_a_file_that_is_no_engine_is_refused_with_tensorrts_own_reason(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "some.engine"
    write_engine(path, b"no engine" * 100)
    with pytest.raises(RuntimeUnavailable, match=r"some\.engine on this machine \(.*Error Code"):
        deserialise(rtx.Runtime(tensorrt_logger(rtx)), path)


@pytest.mark.skipif(has_gpu(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("runtime", ["rtx", "tensorrt"])
def test_without_a_gpu_tensorrt_says_so_when_it_is_activated(package: ModelPackage, runtime: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"pip install|nvidia-smi"):
        create_engine(package, RuntimeSettings(runtime=runtime)).activate()
