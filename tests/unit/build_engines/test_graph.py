from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from build_engines.graph import KEPT_IN_FP32, load_graph, to_bfloat16, to_half
from engines.errors import ModelPackageError
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from tests.small_models import (
    activating_package,
    answers,
    classifier_package,
    convolutional_package,
    nearest,
    reference,
    volume_package,
    xray_package,
)

SMALL = (volume_package, xray_package, classifier_package, activating_package, convolutional_package)


@pytest.fixture(params=SMALL, ids=lambda write: write.__name__)
def package(request: pytest.FixtureRequest, tmp_path: Path) -> ModelPackage:
    return load_package(request.param(tmp_path))


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {weight.name: weight.data_type for weight in model.graph.initializer}


def test_weights_kept_as_fp16_become_fp32_weights_without_casts(package: ModelPackage) -> None:
    model = load_graph(package, package.networks[0])
    assert "Cast" not in {node.op_type for node in model.graph.node}
    assert {weight.data_type for weight in model.graph.initializer} == {TensorProto.FLOAT}
    np.testing.assert_array_equal(
        reference(model.SerializeToString(), package.golden().input), package.golden().outputs["probabilities"]
    )


def test_a_half_network_is_close_to_the_reference_when_it_really_computes_in_fp16(package: ModelPackage) -> None:
    image = package.golden().input
    half = ReferenceEvaluator(to_half(load_graph(package, package.networks[0])))
    names = list(package.described_outputs)
    found = dict(zip(names, half.run(names, {package.description.input.tensor: image}), strict=True))
    expected = answers(package.networks[0], image)
    assert {answer.dtype for answer in found.values()} == {np.dtype(np.float32)}
    assert np.abs(found["probabilities"] - expected["probabilities"]).max() < 0.02
    if "activation" in found:
        assert np.abs(found["activation"] - expected["activation"]).max() < 0.02 * 8


@pytest.mark.parametrize(
    ("name", "part"),
    [("cxr-lung", ...), ("cxr-pneumonia", ...), ("ct-lung", np.s_[..., 40:56, 56:72, 32:48])],
)
def test_a_shipped_network_keeps_its_limit_when_it_really_computes_in_fp16(name: str, part: Any) -> None:
    package = load_package(SHIPPED_MODELS / name)
    image = {package.description.input.tensor: package.golden().input[part]}
    full = load_graph(package, package.networks[0])
    (expected, *maps), (answer, *half_maps) = (
        ReferenceEvaluator(model).run(None, image) for model in (full, to_half(full))
    )
    limits = package.description.verify
    assert np.abs(answer - expected).max() < limits.max_probability_error
    for one, other in zip(maps, half_maps, strict=True):
        assert np.abs(one - other).max() < limits.max_activation_error * np.abs(one).max()


def test_a_half_network_keeps_fp32_at_its_ends_and_where_range_matters(package: ModelPackage) -> None:
    model = to_half(load_graph(package, package.networks[0]))
    kinds = types(model)
    assert kinds[package.description.input.tensor] == kinds["probabilities"] == TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type in KEPT_IN_FP32:
            assert {kinds[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
        if node.op_type in ("Conv", "Relu", "Gemm"):
            assert {kinds[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}


def test_several_grids_leave_the_lengths_open_and_each_of_them_is_checked(tmp_path: Path) -> None:
    package = load_package(convolutional_package(tmp_path))
    model = load_graph(package, package.networks[0], [package.grid, (16, 32, 16)], batch=2)
    (image,), (output,) = model.graph.input, model.graph.output
    lengths = [[dim.dim_value or "open" for dim in each.type.tensor_type.shape.dim] for each in (image, output)]
    assert lengths[0] == [2, 1, "open", "open", "open"]
    assert lengths[1][:2] == [2, 3]
    # The network halves and doubles again, so an odd length comes back shorter than it was.
    with pytest.raises(ModelPackageError, match=r"model\.onnx.*\[1, 1, 9, 16, 16\].*be dynamic"):
        load_graph(package, package.networks[0], [package.grid, (9, 16, 16)])


def test_bfloat16_takes_the_same_places_as_fp16(package: ModelPackage) -> None:
    graph = load_graph(package, package.networks[0])
    half, brain = to_half(graph), to_bfloat16(graph)
    assert [node.op_type for node in half.graph.node] == [node.op_type for node in brain.graph.node]
    casts = {node.attribute[0].i for node in brain.graph.node if node.op_type == "Cast"}
    assert casts <= {TensorProto.FLOAT, TensorProto.BFLOAT16}
    weights = {weight.data_type for weight in brain.graph.initializer}
    assert TensorProto.BFLOAT16 in weights
    assert TensorProto.FLOAT16 not in weights


def test_an_output_of_another_shape_than_described_is_refused_with_both(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    onnx.save_model(nearest([0.0, 0.5, 1.0], package.input_shape), package.networks[0])
    with pytest.raises(ModelPackageError, match=r"is \[1, 3, 32, 48\] for image .*describes \[1, 2, 32, 48\]"):
        load_graph(package, package.networks[0])


def test_an_output_that_nobody_described_is_named(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    model = onnx.load(package.networks[0])
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 32, 48]))
    onnx.save_model(model, package.networks[0])
    with pytest.raises(ModelPackageError, match=r"its outputs are probabilities, logits, but model.toml names prob"):
        load_graph(package, package.networks[0])


def test_a_tensor_that_two_nodes_need_is_cast_once(tmp_path: Path) -> None:
    model = to_half(load_graph(package := load_package(convolutional_package(tmp_path)), package.networks[0]))
    casts = [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))


def test_a_weight_that_fp16_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    model = load_graph(package, package.networks[0])
    for weight in model.graph.initializer:
        if weight.name == "bias":
            weight.CopyFrom(numpy_helper.from_array(np.array([1e6, 0], np.float32), "bias"))
    with pytest.raises(ModelPackageError, match="weight bias holds 1e\\+06"):
        to_half(model)


def test_constants_are_weights_like_all_others(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    model = onnx.load(package.networks[0])
    value = numpy_helper.from_array(np.array(0.5, np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["half"], value=value))
    model.graph.node.insert(1, helper.make_node("Mul", ["image", "half"], ["scaled"]))
    next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "scaled"
    onnx.save_model(model, package.networks[0])
    kinds = types(to_half(load_graph(package, package.networks[0])))
    assert kinds["half/half"] == kinds["scaled/half"] == TensorProto.FLOAT16


def test_a_file_that_is_no_onnx_model_is_refused(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    package.networks[0].write_bytes(b"no model")
    with pytest.raises(ModelPackageError, match=r"model\.onnx.*export the model again"):
        load_graph(package, package.networks[0])


def test_a_network_of_another_shape_than_described_is_refused(tmp_path: Path) -> None:
    package = load_package(volume_package(tmp_path / "one"))
    other = load_package(xray_package(tmp_path / "two"))
    package.networks[0].write_bytes(other.networks[0].read_bytes())
    with pytest.raises(ModelPackageError, match=r"model\.onnx"):
        load_graph(package, package.networks[0])


def test_a_network_with_two_inputs_is_refused(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    model = onnx.load(package.networks[0])
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    onnx.save_model(model, package.networks[0])
    with pytest.raises(ModelPackageError, match="needs one input"):
        load_graph(package, package.networks[0])
