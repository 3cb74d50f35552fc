from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs

from engines.errors import EngineMismatch, OutOfMemory
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import Engine, Outputs, RuntimeSettings, create_engine
from engines.runtimes.openvino import OpenVinoEngine
from engines.verify import Verification, dice, verify, verify_further_grids
from tests.small_models import (
    activating_package,
    answers,
    classifier_package,
    convolutional_package,
    network,
    volume_package,
    xray_package,
)

SMALL = (volume_package, xray_package, classifier_package, activating_package, convolutional_package)


def on_openvino(package: ModelPackage) -> Verification:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        return verify(package, engine)


def damage(folder: Path, change: np.ndarray) -> None:
    golden = load_package(folder).golden()
    np.savez(
        folder / "golden.npz",
        image=golden.input,
        probabilities=(golden.outputs["probabilities"] + change).astype(np.float32),
    )


@pytest.mark.parametrize("write", SMALL)
def test_openvino_agrees_with_the_onnx_reference(tmp_path: Path, write) -> None:
    verification = on_openvino(load_package(write(tmp_path)))
    assert verification.ok
    assert verification.probability_error < 1e-4
    assert verification.require() is verification


@pytest.mark.parametrize("folder", sorted(SHIPPED_MODELS.glob("*/")), ids=lambda folder: folder.name)
def test_openvino_agrees_with_the_golden_output_of_a_shipped_model(folder: Path) -> None:
    assert on_openvino(load_package(folder)).ok


def test_a_probability_error_beyond_the_limit_is_a_mismatch(tmp_path: Path) -> None:
    folder = xray_package(tmp_path)
    change = np.zeros((1, 2, 32, 48), np.float32)
    change[0, 1, 5, 5] = 0.03
    damage(folder, change)
    verification = on_openvino(load_package(folder))
    assert verification.probability_error == pytest.approx(0.03, abs=1e-3)
    with pytest.raises(EngineMismatch, match=r"tiny-cxr on openvino .* probability error 0\.0300 \(limit 0\.02\)"):
        verification.require()


def test_a_segment_that_overlaps_too_little_is_a_mismatch_whatever_the_probabilities(tmp_path: Path) -> None:
    folder = xray_package(tmp_path)
    description = folder / "model.toml"
    text = description.read_text()
    description.write_text(text.replace("max_probability_error = 0.02", "max_probability_error = 0.99"))
    golden = load_package(folder).golden()
    field = golden.outputs["probabilities"][:, 1:] > golden.outputs["probabilities"][:, :1]
    undecided = np.where(field & (np.arange(48) < 24), -0.9, 0.0) * [[[[-1.0]], [[1.0]]]]
    damage(folder, undecided)
    verification = on_openvino(load_package(folder))
    assert verification.dice["Field"] < 0.9
    assert not verification.ok


def test_an_activation_map_beyond_its_limit_is_a_mismatch_whatever_the_probabilities(tmp_path: Path) -> None:
    folder = activating_package(tmp_path)
    golden = load_package(folder).golden()
    off = golden.outputs["activation"].copy()
    off[0, 1, 3, 5] += 0.1 * np.abs(off).max()
    np.savez(folder / "golden.npz", image=golden.input, **{**golden.outputs, "activation": off})
    verification = on_openvino(load_package(folder))
    assert verification.probability_error < 1e-4
    assert verification.activation_error == pytest.approx(0.1, abs=0.015)
    with pytest.raises(EngineMismatch, match=r"activation error 0\.\d+ \(limit 0\.02\)"):
        verification.require()


def test_nan_is_never_within_a_limit(tmp_path: Path) -> None:
    good = on_openvino(load_package(classifier_package(tmp_path)))
    bad = replace(good, probability_error=float("nan"))
    assert not bad.ok


def test_dice_of_known_masks() -> None:
    one = np.array([1, 1, 0, 0], bool)
    other = np.array([0, 1, 1, 0], bool)
    nothing = np.zeros(4, bool)
    assert dice(one, one) == 1.0
    assert dice(one, other) == 0.5
    assert dice(one, nothing) == 0.0
    assert dice(nothing, nothing) == 1.0


def replaced(folder: Path, model: onnx.ModelProto) -> ModelPackage:
    """Give a package another network, and that network's golden outputs."""
    golden = load_package(folder).golden()
    onnx.save_model(model, folder / "model.onnx")
    np.savez(folder / "golden.npz", image=golden.input, **answers(folder / "model.onnx", golden.input))
    return load_package(folder)


def volume_on_two_grids(models: Path, *, root: bool = False, factor: float = 0.0) -> ModelPackage:
    """A pointwise network that is right on 8 slices alone.

    With n slices, ``root`` adds the root of n - 8 to its probabilities and ``factor`` that many times n - 8.
    """
    folder = volume_package(models)
    description = folder / "model.toml"
    text = description.read_text()
    description.write_text(text.replace("patch = [8, 12, 16]", "patch = [8, 12, 16]\nfurther_patches = [[4, 20, 16]]"))
    nodes = [
        helper.make_node("Shape", ["image"], ["length"], start=2, end=3),
        helper.make_node("Cast", ["length"], ["slices"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["slices", "eight"], ["more"]),
        helper.make_node("Sqrt" if root else "Mul", ["more"] if root else ["more", "factor"], ["added"]),
        helper.make_node("Conv", ["image", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["right"], axis=1),
        helper.make_node("Add", ["right", "added"], ["probabilities"]),
    ]
    weights = {
        "eight": np.array([8.0]),
        "factor": np.array([factor]),
        "weights": np.array([0.0, 20.0, 40.0]).reshape(3, 1, 1, 1, 1),
        "bias": np.array([0.0, -5.0, -20.0]),
    }
    model = network(nodes, weights, [1, 1, 8, 12, 16], [1, 3, 8, 12, 16])
    return replaced(folder, model)


def opened(package: ModelPackage, precision: str = "fp32", batch: int = 1) -> Engine:
    return create_engine(package, RuntimeSettings(threads=1, precision=precision, batch=batch))


def test_a_network_that_is_right_on_every_grid_passes(tmp_path: Path) -> None:
    package = volume_on_two_grids(tmp_path)
    with opened(package) as engine, opened(package) as reference:
        assert verify(package, engine).ok
        verify_further_grids(package, engine)
        verify_further_grids(package, engine, reference)


def test_an_answer_that_is_not_finite_on_another_grid_is_a_mismatch(tmp_path: Path) -> None:
    package = volume_on_two_grids(tmp_path, root=True)
    with opened(package) as engine:
        assert verify(package, engine).ok
        with pytest.raises(EngineMismatch, match=r"tiny-ct .* patch \[4, 20, 16\]: probabilities holds NaN"):
            verify_further_grids(package, engine)


def test_an_answer_unlike_the_references_on_another_grid_is_a_mismatch(tmp_path: Path) -> None:
    right, wrong = volume_on_two_grids(tmp_path / "one"), volume_on_two_grids(tmp_path / "two", factor=0.02)
    with opened(right) as reference, opened(wrong) as engine:
        assert verify(wrong, engine).ok
        verify_further_grids(wrong, engine)
        with pytest.raises(
            EngineMismatch, match=r"fp32 on the patch \[4, 20, 16\]: probability error 0\.0800 \(limit 0\.04\)"
        ):
            verify_further_grids(wrong, engine, reference)


def test_a_crop_that_leaves_a_segment_few_voxels_does_not_decide(tmp_path: Path) -> None:
    package = volume_on_two_grids(tmp_path)

    class OneVoxel(OpenVinoEngine):
        dark = 0.49

        def infer(self, tensor: np.ndarray) -> Outputs:
            found = np.zeros((1, 3, *tensor.shape[2:]), np.float32)
            found[:, 0] = 1.0
            found[0, :, 0, 0, 0] = 1 - self.dark, self.dark, 0.0
            return {"probabilities": found}

    engine, reference = (OneVoxel(package, package.networks[0], RuntimeSettings(threads=1)) for _ in range(2))
    reference.dark = 0.51
    verify_further_grids(package, engine, reference)


def test_a_grid_that_does_not_fit_into_memory_is_left_out_and_told(tmp_path: Path) -> None:
    package = volume_on_two_grids(tmp_path)

    class Small(OpenVinoEngine):
        def infer(self, tensor: np.ndarray) -> Outputs:
            if tensor.shape[2:] != package.grid:
                raise OutOfMemory("too large")
            return super().infer(tensor)

    with Small(package, package.networks[0], RuntimeSettings(threads=1)) as engine, capture_logs() as events:
        verify_further_grids(package, engine)
    assert [(event["event"], event["grid"]) for event in events] == [("engine.grid_left_out", (4, 20, 16))]


def test_an_answer_that_depends_on_the_rest_of_the_batch_is_a_mismatch(tmp_path: Path) -> None:
    folder = xray_package(tmp_path)
    shape = [1, 1, 32, 48]
    nodes = [
        # what is filled in is 0, and changes nothing; another image does
        helper.make_node("ReduceMax", ["image"], ["brightest"], axes=[0], keepdims=1),
        helper.make_node("Conv", ["brightest", "weights", "bias"], ["all"]),
        helper.make_node("Conv", ["image", "weights", "bias"], ["own"]),
        helper.make_node("Add", ["all", "own"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {"weights": np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), "bias": np.zeros(2)}
    package = replaced(folder, network(nodes, weights, shape, [1, 2, *shape[2:]]))
    with opened(package) as engine:
        assert verify(package, engine).ok
    with (
        opened(package, batch=4) as engine,
        pytest.raises(EngineMismatch, match=r"tiny-cxr .* probabilities depends on what else is in the batch"),
    ):
        verify(package, engine)


@pytest.mark.parametrize("write", [xray_package, convolutional_package])
def test_a_batch_of_a_network_that_keeps_its_inputs_apart_passes(tmp_path: Path, write) -> None:
    package = load_package(write(tmp_path))
    with opened(package, batch=4) as engine:
        assert verify(package, engine).ok


def test_an_answer_of_another_shape_is_a_mismatch(tmp_path: Path) -> None:
    package = load_package(classifier_package(tmp_path))

    class Fewer(OpenVinoEngine):
        def infer(self, tensor: np.ndarray) -> Outputs:
            return {name: array[:, :1] for name, array in super().infer(tensor).items()}

    with (
        Fewer(package, package.networks[0], RuntimeSettings(threads=1)) as engine,
        pytest.raises(EngineMismatch, match=r"answers probabilities with shape \[1, 1\], the reference with \[1, 2\]"),
    ):
        verify(package, engine)
