from pathlib import Path

import numpy as np
import openvino
import pytest

from engines.engine_file import engine_file_name
from engines.errors import RuntimeUnavailable
from engines.package import ModelPackage, load_package
from engines.runtimes.base import RUNTIMES, RuntimeSettings, create_engine
from tests.small_models import convolutional_package, random_image, reference

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(convolutional_package(tmp_path))


def file_name(package: ModelPackage, runtime: str, device: str, precision: str) -> str:
    return engine_file_name(
        package, package.networks[0], runtime=runtime, device=device, precision=precision, grids=[package.grid]
    )


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


def test_an_unknown_runtime_is_refused_with_the_choice(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match="no runtime 'cuda'; choose one of openvino, rtx, tensorrt"):
        create_engine(package, RuntimeSettings(runtime="cuda"))


def test_a_damaged_openvino_engine_file_is_named(package: ModelPackage, tmp_path: Path) -> None:
    version = openvino.__version__.split("-")[0]
    path = tmp_path / file_name(package, f"openvino-{version}", "cpu", "fp32")
    path.write_bytes(b"damaged")
    with pytest.raises(RuntimeUnavailable, match=path.name):
        create_engine(package, RuntimeSettings(engines=tmp_path)).activate()
