from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from structlog.testing import capture_logs

from engines.errors import EngineMismatch, ModelPackageError, OutOfMemory, PermanentError, RuntimeUnavailable
from engines.packages.package import load_package, load_packages
from engines.runtimes.base import Engine, Outputs, RuntimeSettings
from engines.runtimes.openvino import OpenVinoEngine
from engines.runtimes.openvino_compile import has_bf16
from engines.serving.device_memory import MEGABYTE, MemoryUse, ProcessMemory
from engines.serving.engine_set import EngineSet, open_engines
from engines.serving.opening import choices
from engines.serving.scheduling import DeviceQueue
from engines.types import Radiograph
from tests.small_models import answers, classifier_package, network, xray_package

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


@pytest.fixture
def active(monkeypatch: pytest.MonkeyPatch) -> set[OpenVinoEngine]:
    """The engines that hold memory."""
    active = set()
    activate, deactivate = OpenVinoEngine.activate, OpenVinoEngine.deactivate
    monkeypatch.setattr(OpenVinoEngine, "activate", lambda engine: (activate(engine), active.add(engine)))
    monkeypatch.setattr(OpenVinoEngine, "deactivate", lambda engine: (deactivate(engine), active.discard(engine)))
    return active


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


def test_what_makes_the_crop_doubtful_is_told_of_what_was_found_in_it(models: Path) -> None:
    description = models / "tiny-cxr" / "model.toml"
    ranges = "[training.ranges]\nmedian = { least = 5.0, largest = 6.0 }\n\n[verify]"
    description.write_text(description.read_text().replace("[verify]", ranges))
    with open_engines(load_packages(models), CPU) as engines:
        findings = engines.run("tiny-class", image())
    assert [note for note in findings.notes if "tiny-cxr was trained on" in note]


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
        assert all(model.engine.identity.device.startswith("CPU") for model in engines.models.values())
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


def with_int8(models: Path, limit: float = 0.001) -> None:
    """Give every package a quantised network: its own, because only the file's name matters here."""
    for folder in models.iterdir():
        (folder / "model.int8.onnx").write_bytes((folder / "model.onnx").read_bytes())
        description = folder / "model.toml"
        description.write_text(f"{description.read_text()}\n[verify.int8]\nmax_probability_error = {limit}\n")


def shift_golden(folder: Path, by: float) -> None:
    golden = load_packages(folder.parent)[folder.name].golden()
    probabilities = (golden.outputs["probabilities"] + by).astype(np.float32)
    np.savez(folder / "golden.npz", image=golden.input, probabilities=probabilities)


INT8 = RuntimeSettings(threads=1, precision="int8")


def test_a_gpu_is_tried_first_then_openvino_as_suits_the_model_then_in_fp32(tmp_path: Path) -> None:
    plain = load_package(xray_package(tmp_path))
    gpu = RuntimeSettings(runtime="rtx", precision="fp16", device=2, threads=3)
    cpu = RuntimeSettings(threads=3, device=2)
    many = replace(gpu, batch=8)
    assert choices(plain, many) == (many, gpu, cpu)
    assert choices(plain, gpu) == (gpu, cpu)
    assert choices(plain, INT8) == (INT8, CPU)
    assert choices(plain, replace(INT8, batch=2)) == (replace(INT8, batch=2), INT8, CPU)
    assert choices(plain, CPU) == (CPU,)


def test_by_itself_a_precision_is_chosen_that_the_package_has_what_it_takes_for(tmp_path: Path) -> None:
    auto = RuntimeSettings(threads=1, precision="auto")
    assert choices(load_package(xray_package(tmp_path)), auto) == (CPU,)
    folder = xray_package(tmp_path, "quantised", uid_root="88")
    (folder / "model.int8.onnx").write_bytes((folder / "model.onnx").read_bytes())
    assert choices(load_package(folder), auto) == (INT8, CPU)
    folder = xray_package(tmp_path, "halved", uid_root="89")
    description = folder / "model.toml"
    description.write_text(f"{description.read_text()}\n[verify.bf16]\nmax_probability_error = 0.2\n")
    bf16 = (replace(CPU, precision="bf16"),) if has_bf16() else ()
    assert choices(load_package(folder), auto) == (*bf16, CPU)
    on_gpu = replace(auto, runtime="rtx")
    assert choices(load_package(folder), on_gpu) == (replace(on_gpu, precision="fp16"), *bf16, CPU)


def test_a_network_that_takes_one_input_at_a_time_is_served_so(models: Path) -> None:
    folder = models / "tiny-class"
    nodes = [
        # what exporters make of a group normalisation
        helper.make_node("Constant", [], ["one group"], value=numpy_helper.from_array(np.array([1, 4, 64]))),
        helper.make_node("Reshape", ["image", "one group"], ["group"]),
        helper.make_node("Flatten", ["group"], ["row"]),
        helper.make_node("Gemm", ["row", "weights"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {"weights": np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)}
    whole = network(nodes, weights, [1, 1, 16, 16], [1, 2])
    onnx.save_model(whole, folder / "model.onnx")
    golden = load_packages(models)["tiny-class"].golden().input
    np.savez(folder / "golden.npz", image=golden, **answers(folder / "model.onnx", golden))
    with open_engines(load_packages(models), RuntimeSettings(threads=1, batch=4)) as engines:
        assert {name: model.engine.batch for name, model in engines.models.items()} == {"tiny-class": 1, "tiny-cxr": 4}
        (refusal,) = engines.models["tiny-class"].refusals
        assert refusal.startswith("openvino fp32, batch 4: ")


def test_a_model_says_why_it_does_not_run_on_what_was_asked_for(models: Path) -> None:
    with open_engines(load_packages(models), INT8) as engines:
        model = engines.models["tiny-cxr"]
        assert model.settings == CPU
        assert model.engine.identity.precision == "fp32"
        (refusal,) = model.refusals
        assert refusal.startswith("openvino int8: ")
        assert "model.int8.onnx" in refusal
        assert model.problem == ""


def test_a_precision_that_is_beyond_its_limits_gives_way_to_the_next(models: Path, active: set[OpenVinoEngine]) -> None:
    with_int8(models)
    shift_golden(models / "tiny-cxr", by=0.01)  # more than int8 may err, less than fp32 may
    with capture_logs() as events, open_engines(load_packages(models), INT8) as engines:
        served = {name: model.engine.identity.precision for name, model in engines.models.items()}
        assert served == {"tiny-class": "int8", "tiny-cxr": "fp32"}
        assert sorted(engine.identity.precision for engine in active) == ["fp32", "int8"]
        (refusal,) = engines.models["tiny-cxr"].refusals
        assert "probability error 0.0100 (limit 0.001)" in refusal
    assert [event["model"] for event in events if event["event"] == "engine.refused"] == ["tiny-cxr"]


def test_an_engine_that_fails_later_is_exchanged_while_it_serves(models: Path) -> None:
    with_int8(models)
    with open_engines(load_packages(models), INT8) as engines:
        before = engines.models["tiny-cxr"]
        assert engines.verify_again() == ()
        shift_golden(models / "tiny-cxr", by=0.01)
        with capture_logs() as events:
            (change,) = engines.verify_again()
        assert (change.model, change.before.precision, change.after.precision) == ("tiny-cxr", "int8", "fp32")
        assert "limit 0.001" in change.reasons[0]
        assert [event["model"] for event in events if event["event"] == "engine.exchanged"] == ["tiny-cxr"]
        assert engines.run("tiny-cxr", image()).engine.precision == "fp32"
        # what was still at work on the wrong engine is told to try again
        with pytest.raises(RuntimeUnavailable, match="tiny-cxr is not active: its engine was closed or replaced"):
            before.engine.infer(before.package.golden().input)


def test_a_model_that_is_right_on_no_runtime_is_served_no_more_until_it_is_right_again(models: Path) -> None:
    with open_engines(load_packages(models), CPU) as engines:
        kept = (models / "tiny-cxr" / "golden.npz").read_bytes()
        shift_golden(models / "tiny-cxr", by=0.5)
        (change,) = engines.verify_again()
        assert (change.model, change.after) == ("tiny-cxr", None)
        assert "probability error 0.5" in engines.models["tiny-cxr"].problem
        with pytest.raises(RuntimeUnavailable, match=r"tiny-cxr is not served at present: .* probability error 0\.5"):
            engines.run("tiny-class", image())  # which is cropped to it
        assert engines.verify_again() == ()

        (models / "tiny-cxr" / "golden.npz").write_bytes(kept)
        (change,) = engines.verify_again()
        assert (change.model, change.before) == ("tiny-cxr", None)
        assert change.after is not None
        assert engines.run("tiny-class", image()).classification.best.label == "Bright"


def test_a_model_that_cannot_be_verified_just_now_is_served_as_before(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutOfMemory("something else has all of it")

    with open_engines(load_packages(models), CPU) as engines:
        with monkeypatch.context() as patch, capture_logs() as events:
            patch.setattr(OpenVinoEngine, "infer", refuse)
            assert engines.verify_again() == ()
        assert [event["model"] for event in events if event["event"] == "engine.not_verified"] == [
            "tiny-class",
            "tiny-cxr",
        ]
        assert engines.run("tiny-class", image()).classification.best.label == "Bright"


def test_an_engine_that_gives_wrong_answers_serves_no_more_even_where_nothing_takes_its_place(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutOfMemory("something else has all of it")

    with_int8(models)
    with open_engines(load_packages(models), INT8) as engines:
        shift_golden(models / "tiny-cxr", by=0.01)
        monkeypatch.setattr(OpenVinoEngine, "activate", refuse)
        (change,) = engines.verify_again()
        assert (change.model, change.after) == ("tiny-cxr", None)
        with pytest.raises(RuntimeUnavailable, match=r"tiny-cxr is not served at present: .* int8 differs"):
            engines.run("tiny-cxr", image())


def test_what_comes_first_is_taken_as_soon_as_it_is_there(models: Path) -> None:
    with open_engines(load_packages(models), INT8) as engines:
        network = models / "tiny-cxr" / "model.onnx"
        network.with_suffix(".int8.onnx").write_bytes(network.read_bytes())
        (change,) = engines.verify_again()
        assert (change.model, change.before.precision, change.after.precision) == ("tiny-cxr", "fp32", "int8")
        assert engines.models["tiny-cxr"].refusals == change.reasons == ()
        assert engines.run("tiny-cxr", image()).engine.precision == "int8"


def test_images_are_analysed_while_the_engines_are_verified_again(engines: EngineSet) -> None:
    images = [Radiograph(np.roll(image().array, shift, axis=1), None, "1.2.3") for shift in range(-16, 17, 4)]
    alone = [engines.run("tiny-cxr", each).label_map.array for each in images]
    with ThreadPoolExecutor(4) as pool:
        again = [pool.submit(engines.verify_again) for _ in range(3)]
        together = list(pool.map(lambda each: engines.run("tiny-cxr", each).label_map.array, images * 3))
    assert [each.result() for each in again] == [(), (), ()]
    for number, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[number % len(images)])


def test_an_urgent_image_is_urgent_on_the_device_and_so_is_what_it_needs_first(
    engines: EngineSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    infer = DeviceQueue.infer

    def spy(self: DeviceQueue, model: str, engine: Engine, tensor: np.ndarray, *, urgent: bool = False) -> Outputs:
        asked.append((model, urgent))
        return infer(self, model, engine, tensor, urgent=urgent)

    monkeypatch.setattr(DeviceQueue, "infer", spy)
    engines.run("tiny-class", image(), urgent=True)
    engines.run("tiny-cxr", replace(image(), source="another"))
    assert asked == [("tiny-cxr", True), ("tiny-class", True), ("tiny-cxr", False)]
    assert engines.running is None


def test_models_that_do_not_fit_together_take_turns(
    models: Path, active: set[OpenVinoEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a small engine takes is lost in the noise of the process: here each takes 40 MB while it is active.
    monkeypatch.setattr(ProcessMemory, "read", lambda _: MemoryUse(40 * MEGABYTE * len(active), None))
    with capture_logs() as events, open_engines(load_packages(models), CPU, memory_mb=60) as engines:
        for source in ("one", "another"):
            assert engines.run("tiny-class", replace(image(), source=source)).classification.best.label == "Bright"
            assert len(active) == 1
    evicted = [event["model"] for event in events if event["event"] == "engine.evicted"]
    assert evicted == ["tiny-class", "tiny-cxr", "tiny-class", "tiny-cxr"]
    assert active == set()


def test_what_is_under_way_as_the_engines_close_is_answered_or_told_to_try_again(models: Path) -> None:
    told = []

    def run_until_closed() -> int:
        for number in count():
            try:
                assert engines.run("tiny-class", image()).classification.best.label == "Bright"
            except RuntimeUnavailable as error:
                told.append(str(error))
                return number
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        with open_engines(load_packages(models), CPU) as engines:
            running = [pool.submit(run_until_closed) for _ in range(4)]
            for _ in range(3):
                engines.run("tiny-cxr", image(), urgent=True)
        done = [each.result(30) for each in running]
    assert len(told) == len(done) == 4
    assert all("is not active" in reason for reason in told)
