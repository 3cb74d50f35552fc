from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from build_engines.compile import build
from build_engines.graph import load_graph
from build_engines.recipes.packaging.activation import add_activation, run
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.verify import verify
from tests.small_models import activating_package, answers, classifier_package, convolutional_package, random_image


@pytest.fixture
def shipped() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "cxr-pneumonia")


def without_activation(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.output[1:]
    for node in [node for node in model.graph.node if node.output[0] in ("activation", "activation.weight")]:
        model.graph.node.remove(node)
    for weight in [weight for weight in model.graph.initializer if weight.name.startswith("activation.weight")]:
        model.graph.initializer.remove(weight)
    return model


def test_the_shipped_classifier_answers_bit_for_bit_as_without_the_activation_maps(shipped: ModelPackage) -> None:
    plain = without_activation(onnx.load(shipped.networks[0])).SerializeToString()
    for image in (shipped.golden().input, random_image(shipped.input_shape)):
        expected = answers(plain, image)
        assert expected.keys() == {"probabilities"}
        np.testing.assert_array_equal(answers(shipped.networks[0], image)["probabilities"], expected["probabilities"])


def test_the_shipped_maps_average_to_what_the_softmax_decides_on(shipped: ModelPackage) -> None:
    model = onnx.load(shipped.networks[0])
    (bias,) = (numpy_helper.to_array(each) for each in model.graph.initializer if each.name == "linear.bias")
    for image in (shipped.golden().input, random_image(shipped.input_shape)):
        answer = answers(shipped.networks[0], image)
        logits = answer["activation"].astype(np.float64).mean(axis=(2, 3)) + bias
        probabilities = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(probabilities, answer["probabilities"], atol=2e-3)


def test_no_place_of_a_map_speaks_for_all_classes_at_once(shipped: ModelPackage) -> None:
    maps = shipped.golden().outputs["activation"]
    assert maps is not None
    assert maps.max() > 1
    np.testing.assert_allclose(maps.sum(axis=1), 0, atol=0.02)


def test_an_export_gets_the_maps_of_the_shipped_network_from_weights_that_are_not_cast(shipped: ModelPackage) -> None:
    fresh = add_activation(without_activation(load_graph(shipped, shipped.networks[0])), "activation")
    image = random_image(shipped.input_shape)
    found, expected = (
        answers(model, image)["activation"] for model in (fresh.SerializeToString(), shipped.networks[0])
    )
    np.testing.assert_allclose(found, expected, atol=2e-3 * float(np.abs(expected).max()))


def test_a_package_gets_its_maps_from_the_tool_and_keeps_its_golden_answer(tmp_path: Path) -> None:
    folder = classifier_package(tmp_path, crop_to=None)
    expected = load_package(folder).golden()
    description = folder / "model.toml"
    text = description.read_text().replace('tensor = "probabilities"', 'tensor = "probabilities"\nactivation = "where"')
    description.write_text(f"{text}max_activation_error = 0.02\n")
    run(folder)
    package = load_package(folder)
    assert package.output_shapes() == {"probabilities": (1, 2), "where": (1, 2, 8, 8)}
    np.testing.assert_allclose(package.golden().outputs["probabilities"], expected.outputs["probabilities"], atol=1e-3)
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        assert verify(package, engine).require().activation_error < 0.002


def test_an_openvino_engine_file_gives_the_maps_too(tmp_path: Path) -> None:
    package = load_package(activating_package(tmp_path / "models"))
    (path,) = build(package, "openvino", "fp32", tmp_path / "engines")
    with create_engine(package, RuntimeSettings(engines=path.parent, threads=1)) as engine:
        assert verify(package, engine).ok


def test_what_is_common_to_the_weights_of_all_classes_is_not_in_the_maps(tmp_path: Path) -> None:
    package = load_package(classifier_package(tmp_path, crop_to=None))
    plain, shifted = onnx.load(package.networks[0]), onnx.load(package.networks[0])
    (weights,) = (each for each in shifted.graph.initializer if each.name == "weights.fp16")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float16(3), weights.name))
    image = package.golden().input
    one, other = (answers(add_activation(model, "where").SerializeToString(), image) for model in (plain, shifted))
    np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)
    np.testing.assert_allclose(one["where"], other["where"], atol=1e-5)


def test_a_network_that_ends_otherwise_is_refused_with_what_was_found(tmp_path: Path) -> None:
    model = onnx.load(convolutional_package(tmp_path) / "model.onnx")
    with pytest.raises(ValueError, match="expected Gemm, found Conv: only a network that ends in global average"):
        add_activation(model, "activation")


def test_maps_that_are_there_are_not_added_again(shipped: ModelPackage) -> None:
    with pytest.raises(ValueError, match="'activation' is an output already"):
        add_activation(onnx.load(shipped.networks[0]), "activation")
