"""One network with several heads, over volumes and X-rays, and several networks as one model."""

from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import SimpleITK as sitk  # noqa: N813
from onnx import helper
from structlog.testing import capture_logs

from engines.errors import ModelPackageError, OutOfMemory
from engines.inference.analyse import analyse
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import DeviceAnswer, Engine, Outputs, RuntimeSettings, WholePath, create_engine
from engines.types import Findings, Image, Radiograph, Volume
from engines.verify import dice
from evaluation.images import read_volume
from tests.small_models import (
    CLASS,
    IDENTITY,
    SEGMENT,
    SHARPNESS,
    network,
    overlapping_package,
    random_image,
    volume_package,
    write,
)
from tests.small_models import answers as reference_answers

BALL = 3
LPS = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
"""Axial slices, 2 mm apart in every direction: the grid of the packages is the volume's own."""

VOLUME = """\
modality = ["CT"]
spacing_mm = [2.0, 2.0, 2.0]
window = [-1000.0, 0.0]
overlap = 0.5
"""
XRAY = """\
modality = ["DX"]
percentiles = [0.0, 100.0]
"""


def multi_task_package(
    models: Path, grid: tuple[int, ...], extra: str = "", classification: str = "", name: str = "tiny-multi"
) -> Path:
    """Outlines what is bright ("Field"), tells how bright the image is ("Dark", "Bright"), and boxes `BALL` wide."""
    spatial, shape = len(grid), [1, 1, *grid]
    description = (
        IDENTITY.format(name=name, uid_root="81")
        + '\n[input]\ntensor = "image"\n'
        + (f"{VOLUME}patch = {list(grid)}\n" if spatial == 3 else f"{XRAY}size = {list(grid)}\n")
        + extra
        + '\n[segmentation]\ntensor = "field"\n'
        + SEGMENT.format(label="Field", measurements='["volume"]' if spatial == 3 else "[]")
        + f'\n[classification]\ntensor = "classes"\n{classification}\n'
        + "".join(CLASS.format(label=label, value=value) for label, value in (("Dark", "1"), ("Bright", "2")))
        + '\n[detection]\nplaces = "places"\nscores = "scores"\n\n[[detection.classes]]\nlabel = "Ball"\n'
        + 'code = { value = "3", scheme = "SCT", meaning = "Ball" }\n'
        + "\n[verify]\nmax_probability_error = 0.02\nmin_dice = 0.99\nmax_place_error = 0.5\n"
    )
    index = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, spatial)
    ones = [1] * spatial
    weights = {
        "slope": np.array([0, 2 * SHARPNESS], np.float32).reshape(2, 1, *ones),
        "base": np.array([SHARPNESS, 0], np.float32),
        "weights": np.array([[-16.0], [16.0]], np.float32),
        "bias": np.array([8.0, -8.0], np.float32),
        "anchors": np.concatenate([index - BALL // 2, index + BALL // 2 + 1], axis=1)[None].astype(np.float32),
        "nothing": np.zeros(1, np.float32),
        "steep": np.array([40.0], np.float32),
        "least": np.array([-32.0], np.float32),
        "scales": np.array([0, -1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "slope", "base"], ["field.logits"]),
        helper.make_node("Softmax", ["field.logits"], ["field"], axis=1),
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["class.logits"], transB=1),
        helper.make_node("Softmax", ["class.logits"], ["classes"], axis=1),
        helper.make_node(
            "AveragePool",
            ["image"],
            ["mean"],
            kernel_shape=[BALL] * spatial,
            pads=[BALL // 2] * (2 * spatial),
            count_include_pad=1,
        ),
        helper.make_node("Reshape", ["mean", "scales"], ["listed"]),
        helper.make_node("Mul", ["listed", "steep"], ["sloped"]),
        helper.make_node("Add", ["sloped", "least"], ["score.logits"]),
        helper.make_node("Sigmoid", ["score.logits"], ["scores"]),
        helper.make_node("Mul", ["listed", "nothing"], ["zeros"]),
        helper.make_node("Add", ["anchors", "zeros"], ["places"]),
    ]
    outputs = {
        "field": [1, 2, *grid],
        "classes": [1, 2],
        "places": list(weights["anchors"].shape),
        "scores": [1, len(index), 1],
    }
    return write(models / name, description, network(nodes, weights, shape, outputs), random_image(shape))


def run(package: ModelPackage, image: Image, engine: Engine | None = None) -> Findings:
    with create_engine(package, RuntimeSettings(threads=1)) as own:
        return analyse(package, engine or own, image, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))


def ct(array: np.ndarray) -> Volume:
    return Volume(array, LPS, tuple(f"1.2.{number}" for number in range(len(array))))


def test_one_network_outlines_classifies_and_detects_in_a_volume_of_several_windows(tmp_path: Path) -> None:
    package = load_package(multi_task_package(tmp_path, (8, 10, 12)))
    assert package.description.tasks == ("segmentation", "classification", "detection")
    volume = ct(np.full((20, 22, 26), -1000, np.int16))
    box = (slice(13, 16), slice(5, 8), slice(20, 23))
    volume.array[box] = 0
    findings = run(package, volume)
    expected = np.zeros(volume.array.shape, np.uint8)
    expected[box] = 1
    np.testing.assert_array_equal(findings.label_map.array, expected)
    assert [measurement.value for measurement in findings.measurements] == [pytest.approx(27 * 0.008)]
    assert findings.classification.best.label == "Dark"
    [ball] = findings.detections.found
    np.testing.assert_allclose(ball.low, [39, 9, 25], atol=1e-3)
    np.testing.assert_allclose(ball.high, [45, 15, 31], atol=1e-3)


def test_one_network_outlines_classifies_and_detects_on_an_xray(tmp_path: Path) -> None:
    package = load_package(multi_task_package(tmp_path, (24, 32)))
    array = np.zeros((24, 32), np.float32)
    array[4:7, 20:23] = 1
    findings = run(package, Radiograph(array, None, "1.2.3"))
    np.testing.assert_array_equal(findings.label_map.array, array.astype(np.uint8))
    assert findings.classification.best.label == "Dark"
    [ball] = findings.detections.found
    assert (ball.low, ball.high) == (pytest.approx((3.5, 19.5), abs=1e-3), pytest.approx((6.5, 22.5), abs=1e-3))


def half_bright() -> Volume:
    """As long as two patches side by side without overlap: the upper one is bright."""
    volume = ct(np.full((16, 10, 12), -1000, np.int16))
    volume.array[8:] = 0
    return volume


@pytest.mark.parametrize(
    ("keys", "expected"), [("", 0.5), ('exclusive = false\nwindows = "max"', 1.0)], ids=["mean", "max"]
)
def test_classes_of_several_windows_become_their_mean_or_the_largest(
    tmp_path: Path, keys: str, expected: float
) -> None:
    folder = multi_task_package(tmp_path, (8, 10, 12), classification=keys)
    description = folder / "model.toml"
    description.write_text(description.read_text().replace("overlap = 0.5", "overlap = 0.0"))
    found = run(load_package(folder), half_bright()).classification
    assert [entry.probability for entry in found.classes] == pytest.approx([expected, expected], abs=0.01)
    assert found.exclusive == (keys == "")


def test_a_network_that_runs_out_of_memory_on_its_largest_grid_answers_on_a_smaller_one(tmp_path: Path) -> None:
    folder = overlapping_package(tmp_path)
    description = folder / "model.toml"
    text = description.read_text()
    description.write_text(text.replace("[8, 12, 16]", "[8, 12, 16]\nfurther_patches = [[16, 24, 32], [24, 24, 32]]"))
    package = load_package(folder)
    volume = ct(np.random.default_rng(3).integers(-1000, 1, (20, 20, 28)).astype(np.int16))
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        whole = run(package, volume, engine)
        for largest in (16 * 24 * 32, 8 * 12 * 16):
            found = run(package, volume, Short(engine, largest))
            for one, other in zip(found.label_maps, whole.label_maps, strict=True):
                np.testing.assert_array_equal(one.array, other.array)
        with pytest.raises(OutOfMemory, match=r"tiny-overlap .* \[8, 12, 16\]"):
            run(package, volume, Short(engine, 100))


class Short(Engine):
    """An engine on a device that has no room for more voxels."""

    def __init__(self, engine: Engine, voxels: int) -> None:
        self._engine, self._voxels = engine, voxels

    @property
    def identity(self):
        return self._engine.identity

    def infer(self, tensor: np.ndarray) -> Outputs:
        if tensor[0, 0].size > self._voxels:
            raise OutOfMemory("no room")
        return self._engine.infer(tensor)


class OnDevice(Short):
    """An engine with a path of its own for whole volumes."""

    def __init__(self, engine: Engine, path: WholePath) -> None:
        super().__init__(engine, 10**9)
        self._path = path

    @property
    def whole_path(self) -> WholePath:
        return self._path


def test_where_the_whole_path_has_no_room_on_the_device_the_network_alone_is_run_there(tmp_path: Path) -> None:
    package = load_package(volume_package(tmp_path))
    volume = ct(np.random.default_rng(3).integers(-1000, 1, (20, 20, 28)).astype(np.int16))

    def no_room(_: Volume) -> DeviceAnswer:
        raise OutOfMemory("no room for the volume")

    def room(_: Volume) -> DeviceAnswer:
        return DeviceAnswer(np.ones(volume.array.shape, np.uint8), np.zeros((2, 2, 2), np.float32), {"infer": 0.5})

    with create_engine(package, RuntimeSettings(threads=1)) as engine, capture_logs() as logged:
        expected = run(package, volume, engine).label_map.array
        np.testing.assert_array_equal(run(package, volume, OnDevice(engine, no_room)).label_map.array, expected)
        on_device = run(package, volume, OnDevice(engine, room))
    assert [entry["reason"] for entry in logged if entry["event"] == "inference.on_host"] == ["no room for the volume"]
    assert (on_device.label_map.array == 1).all()
    assert on_device.seconds == {"infer": 0.5}
    assert on_device.measurements[0].value == pytest.approx(volume.array.size * 0.008)


def test_the_seams_between_windows_cost_no_measurable_dice(shared_data: Path) -> None:
    package = load_package(SHIPPED_MODELS / "ct-lung")
    grids = ((112, 96, 96), (64, 96, 96))
    wanted = package.input.model_copy(update={"further_patches": grids})
    package = replace(package, description=package.description.model_copy(update={"input": wanted}))
    chest = read_volume(shared_data / "ct_lung" / "cip64" / "ct-64.nrrd")
    lungs = sitk.GetArrayFromImage(sitk.ReadImage(shared_data / "ct_lung" / "cip64" / "wholeLung-64.nrrd")) > 0
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        whole, windows = (run(package, chest, Short(engine, prod(grid))).label_map.array > 0 for grid in grids)
    assert (whole != windows).any(), "the second took windows"
    assert dice(whole, lungs) > 0.95
    assert abs(dice(windows, lungs) - dice(whole, lungs)) < 0.001
    assert dice(windows, whole) > 0.995


def test_segments_that_overlap_lie_in_label_maps_that_do_not_and_each_keeps_its_largest_part(tmp_path: Path) -> None:
    folder = overlapping_package(tmp_path)
    description = folder / "model.toml"
    description.write_text(
        description.read_text().replace("overlapping = true", "overlapping = true\nkeep_largest = true")
    )
    array = np.full((12, 16, 20), -1000, np.int16)
    array[2:10, 3:12, 3:12] = -500
    array[4:7, 5:8, 5:8] = 0
    array[4:6, 13:15, 15:18] = 0
    findings = run(load_package(folder), ct(array))
    whole, core = findings.label_maps
    assert [[segment.label for segment in each.segments] for each in findings.label_maps] == [["Whole"], ["Core"]]
    expected = np.zeros(array.shape, bool)
    expected[2:10, 3:12, 3:12] = True
    np.testing.assert_array_equal(whole.array == 1, expected)
    expected[:] = False
    expected[4:7, 5:8, 5:8] = True
    np.testing.assert_array_equal(core.array == 2, expected)


def ensemble(folder: Path) -> ModelPackage:
    """Make of a package one of two networks: its own, and one that answers otherwise."""
    second = onnx.load(folder / "model.onnx")
    for weights in second.graph.initializer:
        if weights.name == "bias.fp16":
            array = onnx.numpy_helper.to_array(weights) + np.float16(9)
            weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    (folder / "model.onnx").rename(folder / "fold_0.onnx")
    onnx.save_model(second, folder / "fold_1.onnx")
    image = random_image([1, 1, 8, 12, 16])
    folds = [reference_answers(folder / f"fold_{number}.onnx", image)["probabilities"] for number in range(2)]
    assert np.abs(folds[0] - folds[1]).max() > 0.3
    np.savez(folder / "golden.npz", image=image, probabilities=np.mean(folds, axis=0))
    text = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(f'{text}\n[network]\nfiles = ["fold_0.onnx", "fold_1.onnx"]\n')
    return load_package(folder)


def test_an_ensemble_answers_the_mean_of_its_networks(tmp_path: Path) -> None:
    alone = load_package(overlapping_package(tmp_path / "alone"))
    package = ensemble(overlapping_package(tmp_path / "both"))
    golden = package.golden()
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        found = engine.infer(golden.input)["probabilities"]
    np.testing.assert_allclose(found, golden.outputs["probabilities"], atol=1e-4)
    assert found.dtype == np.float32
    assert package.identity.digest != alone.identity.digest


def test_an_ensembles_digest_knows_each_file_and_their_order(tmp_path: Path) -> None:
    package = ensemble(overlapping_package(tmp_path))
    description = package.folder / "model.toml"
    text = description.read_text()
    description.write_text(text.replace('["fold_0.onnx", "fold_1.onnx"]', '["fold_1.onnx", "fold_0.onnx"]'))
    assert load_package(package.folder).identity.digest != package.identity.digest


def test_an_ensemble_without_one_of_its_files_is_refused_by_name(tmp_path: Path) -> None:
    package = ensemble(overlapping_package(tmp_path))
    (package.folder / "fold_1.onnx").unlink()
    with pytest.raises(ModelPackageError, match=r"has no fold_1\.onnx"):
        load_package(package.folder)


def test_places_of_an_ensemble_are_refused(tmp_path: Path) -> None:
    folder = multi_task_package(tmp_path, (8, 10, 12))
    description = folder / "model.toml"
    description.write_text(description.read_text() + '\n[network]\nfiles = ["a.onnx", "b.onnx"]\n')
    with pytest.raises(ModelPackageError, match=r"places of several networks cannot be averaged"):
        load_package(folder)


def test_flips_are_refused_for_a_detection(tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError, match=r"input\.flips turn no places back"):
        load_package(multi_task_package(tmp_path, (8, 10, 12), extra="flips = [0]\n"))
