from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engines.graph import load_graph, to_half
from build_engines.signed import to_signed
from engines.errors import ModelPackageError
from engines.packages.package import ModelPackage, load_package
from tests.small_models import answers, convolutional_package


def unsigned(package: ModelPackage, of: str = "image", zero: int = 0) -> onnx.ModelProto:
    """The network, with one of its tensors quantised to 0..255, as NNCF does for what is never negative."""
    model = load_graph(package, package.networks[0])
    for name, array in (("scale8", np.float32(1 / 255)), ("zero8", np.uint8(zero))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    nodes = [
        helper.make_node("QuantizeLinear", [of, "scale8", "zero8"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale8", "zero8"], ["quantised"]),
    ]
    reader = next(node for node in model.graph.node if of in node.input)
    reader.input[list(reader.input).index(of)] = "quantised"
    for at, node in enumerate(nodes):
        model.graph.node.insert(at, node)
    model.graph.output.append(helper.make_tensor_value_info("quantised", TensorProto.FLOAT, None))
    return model


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(convolutional_package(tmp_path))


def test_nothing_of_the_range_is_cut_off_and_steps_are_twice_as_coarse(package: ModelPackage) -> None:
    image = np.linspace(0, 1, 8 * 16 * 16, dtype=np.float32).reshape(1, 1, 8, 16, 16)
    model = unsigned(package)
    for each, steps in ((model, 255), (to_signed(model), 127)):
        seen = answers(each.SerializeToString(), image)["quantised"]
        assert np.abs(seen - image).max() <= 0.5001 / steps
        assert seen.max() == pytest.approx(1.0)
        assert len(np.unique(seen)) == steps + 1


def test_no_unsigned_integer_reaches_tensorrt(package: ModelPackage) -> None:
    half = to_half(unsigned(package))
    kinds = {value.type.tensor_type.elem_type for value in half.graph.value_info}
    kinds |= {weight.data_type for weight in half.graph.initializer}
    assert TensorProto.INT8 in kinds
    assert TensorProto.UINT8 not in kinds


def test_a_zero_point_stays_for_tensorrt_to_refuse(package: ModelPackage) -> None:
    model = unsigned(package, zero=3)
    assert list(to_signed(model).graph.node) == list(model.graph.node)


def test_unsigned_weights_are_refused_by_name(package: ModelPackage) -> None:
    model = unsigned(package)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3), np.uint8), "small"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["small", "scale8", "zero8"], ["large"]))
    with pytest.raises(ModelPackageError, match="weight small is kept as UINT8"):
        to_signed(model)
