"""INT8: what calibrates it, what is written, and that a wrong network is refused."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

from build_engines.calibration import record_inputs
from build_engines.cli import app
from build_engines.errors import BuildError
from build_engines.images import find_images
from build_engines.quantise import quantise
from engines.errors import ModelPackageError, PermanentError
from engines.packages.package import ModelPackage, load_package, load_packages
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.verify import verify
from tests.small_models import (
    answers,
    classifier_package,
    convolutional_package,
    random_image,
    volume_package,
    xray_package,
)
from tests.unit.build_engines.image_files import write_dicom_series, write_nifti

pytestmark = pytest.mark.skipif(find_spec("nncf") is None, reason="needs the extra 'quantise'")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    package = load_package(convolutional_package(tmp_path_factory.mktemp("models")))
    random = np.random.default_rng(2)
    quantise(package, [random.random(package.input_shape, dtype=np.float32) for _ in range(4)])
    return package


def network(package: ModelPackage) -> onnx.ModelProto:
    return onnx.load(package.network_for(package.networks[0], "int8"))


def test_weights_are_kept_as_int8(quantised: ModelPackage) -> None:
    weights = {each.name: each for each in network(quantised).graph.initializer}
    convolutions = [node for node in network(quantised).graph.node if node.op_type == "Conv"]
    made_by = {name: node for node in network(quantised).graph.node for name in node.output}
    assert len(convolutions) == 4
    for node in convolutions:
        restored = made_by[node.input[1]]
        assert restored.op_type == "DequantizeLinear"
        assert weights[restored.input[0]].data_type == TensorProto.INT8


def test_softmax_and_normalisations_compute_in_floating_point(quantised: ModelPackage) -> None:
    graph = network(quantised).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("Softmax", "InstanceNormalization"):
            assert made_by[node.input[0]] != "DequantizeLinear", node.name


def test_openvino_and_onnx_runtime_agree_on_a_quantised_network(quantised: ModelPackage) -> None:
    image = random_image(quantised.input_shape)
    expected = answers(quantised.network_for(quantised.networks[0], "int8"), image)["probabilities"]
    with create_engine(quantised, RuntimeSettings(precision="int8", threads=1)) as engine:
        found = engine.infer(image)["probabilities"]
    exact = answers(quantised.networks[0], image)["probabilities"]
    assert float(np.abs(found - expected).max()) < 0.05
    assert 0 < float(np.abs(found - exact).max()) < 0.2


def test_every_file_of_an_ensemble_is_quantised(tmp_path: Path) -> None:
    folder = convolutional_package(tmp_path)
    (folder / "second.onnx").write_bytes((folder / "model.onnx").read_bytes())
    toml = folder / "model.toml"
    text = toml.read_text(encoding="utf-8").replace(
        "[input]", '[network]\nfiles = ["model.onnx", "second.onnx"]\n[input]'
    )
    toml.write_text(text, encoding="utf-8")
    package = load_package(folder)
    told: list[float] = []
    paths = quantise(package, [random_image(package.input_shape)] * 2, told.append)
    assert [path.name for path in paths] == ["model.int8.onnx", "second.int8.onnx"]
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_nothing_to_calibrate_with_is_an_error(quantised: ModelPackage) -> None:
    with pytest.raises(BuildError, match="nothing to calibrate tiny-unet with; name images"):
        quantise(quantised, [])


def test_nncf_tells_nobody_that_it_is_used() -> None:
    code = """
import sys
from build_engines.quantise import load_nncf
load_nncf()
from nncf.telemetry import wrapper
assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry), wrapper.telemetry
assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is not None
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_volume_is_recorded_window_by_window_on_the_golden_grid(tmp_path: Path) -> None:
    folder = volume_package(tmp_path)
    toml = folder / "model.toml"
    text = toml.read_text(encoding="utf-8")
    toml.write_text(text.replace("patch = [8, 12, 16]", "patch = [8, 12, 16]\nfurther_patches = [[32, 32, 32]]"))
    array = np.full((12, 12, 16), -500, np.int16)
    file = write_nifti(tmp_path / "some.nii.gz", array, (2.0, 2.0, 2.0))
    package = load_package(folder)
    inputs = record_inputs(package, {}, find_images([file]))
    assert [each.shape for each in inputs] == [(1, 1, 8, 12, 16)] * 2
    np.testing.assert_allclose(inputs[0], 0.5, atol=1e-3)


def test_a_dicom_series_is_one_image(tmp_path: Path) -> None:
    models, series = tmp_path / "models", tmp_path / "series"
    package = load_package(volume_package(models))
    write_dicom_series(series, np.full((8, 12, 16), -250, np.int16), 2.0)
    (image,) = find_images([series])
    assert len(image) == 8
    (tensor,) = record_inputs(package, {}, [image])
    np.testing.assert_allclose(tensor, 0.75, atol=1e-3)


def test_an_xray_is_cropped_first_as_a_node_would(tmp_path: Path) -> None:
    models = tmp_path / "models"
    xray_package(models)
    classifier_package(models)
    packages = load_packages(models)
    pixels = np.zeros((32, 48), np.uint8)
    pixels[8:24, 8:24] = 255
    Image.fromarray(pixels).save(tmp_path / "some.png")
    (tensor,) = record_inputs(packages["tiny-class"], packages, find_images([tmp_path / "some.png"]))
    assert tensor.shape == (1, 1, 16, 16)
    # The crop is all bright, so nothing but one value is left of it, and that is told as nothing to look at.
    assert len(np.unique(tensor)) == 1


@pytest.mark.parametrize("name", ["no-such.nii.gz", "empty"])
def test_a_path_without_images_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PermanentError, match=name):
        find_images([tmp_path / name])


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    package = load_package(volume_package(tmp_path))
    (tmp_path / "text.nii.gz").write_text("no image", encoding="utf-8")
    with pytest.raises(PermanentError, match=r"text\.nii\.gz"):
        record_inputs(package, {}, find_images([tmp_path / "text.nii.gz"]))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["quantise", *(str(argument) for argument in arguments)])


def test_the_command_writes_the_network_and_says_whether_it_keeps_the_limits(tmp_path: Path) -> None:
    folder = convolutional_package(tmp_path / "models")
    file = write_nifti(tmp_path / "some.nii.gz", (random_image((1, 1, 8, 16, 16))[0, 0] * 1000 - 1000), (2.0, 2.0, 2.0))
    toml = folder / "model.toml"
    toml.write_text(toml.read_text(encoding="utf-8") + "[verify.int8]\nmax_probability_error = 0.5\nmin_dice = 0.5\n")
    good = run("tiny-unet", file, "--models", tmp_path / "models", "--json")
    assert good.exit_code == 0, good.output
    told = json.loads(good.stdout)
    assert (told["images"], told["inputs"], told["ok"]) == (1, 1, True)
    assert Path(told["files"][0]).is_file()
    toml.write_text(
        toml.read_text(encoding="utf-8").replace("max_probability_error = 0.5", "max_probability_error = 1e-6")
    )
    bad = run("tiny-unet", file, "--models", tmp_path / "models")
    assert bad.exit_code == 1
    assert "beyond the limits of INT8, so no node will serve it: probability error" in bad.stdout


def test_an_unknown_model_is_named() -> None:
    result = run("no-such", "/tmp")
    assert isinstance(result.exception, ModelPackageError)
    assert "there is no model 'no-such'; choose of " in str(result.exception)


def test_a_quantised_network_without_its_weights_is_refused(quantised: ModelPackage) -> None:
    path = quantised.network_for(quantised.networks[0], "int8")
    whole = path.read_bytes()
    model = onnx.load(path)
    weights = max(
        (each for each in model.graph.initializer if each.data_type == TensorProto.INT8),
        key=lambda each: len(each.dims),
    )
    weights.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weights)), weights.name))
    onnx.save_model(model, path)
    try:
        with create_engine(quantised, RuntimeSettings(precision="int8", threads=1)) as engine:
            assert not verify(quantised, engine).ok
    finally:
        path.write_bytes(whole)
