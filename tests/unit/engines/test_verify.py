from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.errors import EngineMismatch
from engines.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.verify import Verification, dice, verify
from tests.small_models import (
    activating_package,
    classifier_package,
    convolutional_package,
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
