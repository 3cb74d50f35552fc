from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from structlog.testing import capture_logs

from engines.engine_set import EngineSet, open_engines
from engines.errors import EngineMismatch, ModelPackageError, PermanentError, RuntimeUnavailable
from engines.package import load_packages
from engines.runtimes.base import RuntimeSettings
from engines.types import LabelMap, Radiograph
from tests.small_models import classifier_package, network, xray_package

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CPU = RuntimeSettings(threads=1)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    xray_package(tmp_path)
    classifier_package(tmp_path)
    return tmp_path


@pytest.fixture
def engines(models: Path) -> Iterator[EngineSet]:
    with open_engines(load_packages(models), CPU, clock=lambda: NOON) as engines:
        yield engines


def image() -> Radiograph:
    array = np.zeros((60, 80), np.float32)
    array[10:50, 20:60] = 2.0
    array[30, 40] = 1.0
    return Radiograph(array, None, "1.2.3")


def test_every_model_is_verified_before_it_serves(models: Path) -> None:
    with capture_logs() as events, open_engines(load_packages(models), CPU) as engines:
        assert all(model.verification.ok for model in engines.models.values())
    verified = [event for event in events if event["event"] == "engine.verified"]
    assert [event["model"] for event in verified] == ["tiny-class", "tiny-cxr"]


def test_a_cropped_model_runs_the_model_that_it_needs_first(engines: EngineSet) -> None:
    findings = engines.run("tiny-class", image())
    assert findings.classification.best.label == "Bright"
    assert findings.analysed_at == NOON


def test_a_label_map_that_is_known_is_used_and_not_made_again(engines: EngineSet) -> None:
    corner = np.zeros((60, 80), np.uint8)
    corner[0:30, 0:30] = 1
    given = engines.run("tiny-class", image(), {"tiny-cxr": LabelMap(corner, ())})
    assert given.classification.best.label == "Dark"


def test_several_threads_get_the_same_answers_as_one(engines: EngineSet) -> None:
    images = [Radiograph(np.roll(image().array, shift, axis=1), None, "1.2.3") for shift in range(-16, 17, 4)]
    alone = [engines.run("tiny-cxr", each).label_map.array for each in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: engines.run("tiny-cxr", each).label_map.array, images))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_that_is_not_served_is_refused_with_the_choice(engines: EngineSet) -> None:
    with pytest.raises(PermanentError, match="no model 'ct' is served; choose one of tiny-class, tiny-cxr"):
        engines.run("ct", image())


def test_damaged_golden_outputs_stop_the_node_from_serving(models: Path) -> None:
    path = models / "tiny-cxr" / "golden.npz"
    golden = load_packages(models)["tiny-cxr"].golden()
    np.savez(path, image=golden.input, probabilities=golden.outputs["probabilities"][:, ::-1])
    with (
        capture_logs() as events,
        pytest.raises(EngineMismatch, match="tiny-cxr"),
        open_engines(load_packages(models), CPU),
    ):
        pytest.fail("served")
    assert [event["model"] for event in events if event["event"] == "engine.refused"] == ["tiny-cxr"]


def test_a_network_with_other_tensors_than_described_is_refused(models: Path) -> None:
    description = models / "tiny-cxr" / "model.toml"
    description.write_text(description.read_text().replace('tensor = "image"', 'tensor = "pixels"'))
    golden = models / "tiny-cxr" / "golden.npz"
    with np.load(golden) as arrays:
        renamed = {"pixels": arrays["image"], "probabilities": arrays["probabilities"]}
    np.savez(golden, **renamed)
    with (
        pytest.raises(ModelPackageError, match=r"input tensors image, but model.toml.* names pixels"),
        open_engines(load_packages(models), CPU),
    ):
        pytest.fail("served")


def test_a_network_that_cannot_be_given_the_described_shape_is_refused(tmp_path: Path) -> None:
    # its last layer multiplies the 64 cells of an image of 16 × 16 pixels with 64 weights each
    shape = [1, 1, 16, 16]
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    whole = network(nodes, {"weights": np.eye(2, 64, dtype=np.float32)}, shape, [1, 2])
    folder = classifier_package(tmp_path, crop_to=None)
    onnx.save_model(whole, folder / "model.onnx")
    description = folder / "model.toml"
    description.write_text(description.read_text().replace("size = [16, 16]", "size = [24, 24]"))
    np.savez(folder / "golden.npz", image=np.zeros((1, 1, 24, 24), np.float32), probabilities=np.ones((1, 2)) / 2)
    with (
        pytest.raises((ModelPackageError, RuntimeUnavailable), match=r"tiny-class"),
        open_engines(load_packages(tmp_path), CPU),
    ):
        pytest.fail("served")


def test_where_the_gpu_runtime_cannot_be_used_openvino_serves_and_the_operator_is_told(models: Path) -> None:
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=models)
    with capture_logs() as events, open_engines(load_packages(models), settings) as engines:
        assert {model.engine.identity.device for model in engines.models.values()} == {"CPU"}
    told = [event for event in events if event["event"] == "engine.unavailable"]
    assert {event["model"] for event in told} == {"tiny-class", "tiny-cxr"}
    assert all(event["reason"] for event in told)


def test_models_whose_crop_model_is_not_served_are_refused(models: Path) -> None:
    packages = load_packages(models)
    with (
        pytest.raises(ModelPackageError, match="'tiny-cxr' is not a model here"),
        open_engines({"tiny-class": packages["tiny-class"]}, CPU),
    ):
        pytest.fail("served")


def test_a_closed_engine_says_that_it_is_not_active(models: Path) -> None:
    with open_engines(load_packages(models), CPU) as engines:
        pass
    with pytest.raises(RuntimeUnavailable, match="tiny-cxr is not active"):
        engines.run("tiny-cxr", image())
