from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engines.batching import free_batch
from build_engines.graph import load_graph
from engines.errors import ModelPackageError
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from tests.small_models import answers, classifier_package

SHIPPED = sorted(SHIPPED_MODELS.glob("cxr-*/"))


def with_nodes(package: ModelPackage, nodes: Sequence[onnx.NodeProto], shapes: dict[str, list[int]]) -> ModelPackage:
    """Put nodes from "image" to "changed" before the small classifier, as an exporter would for a batch of one."""
    model = onnx.load(package.networks[0])
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    pool.input[0] = "changed"
    for at, node in enumerate(nodes):
        model.graph.node.insert(at, node)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(each, np.int64), key) for key, each in shapes.items()
    )
    onnx.save_model(model, package.networks[0])
    return package


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(classifier_package(tmp_path, crop_to=None))


def batch_of(package: ModelPackage, count: int = 3) -> np.ndarray:
    return np.random.default_rng(3).random((count, *package.input_shape[1:]), dtype=np.float32)


def assert_each_is_answered_as_if_alone(package: ModelPackage) -> None:
    images = batch_of(package)
    together = answers(load_graph(package, package.networks[0], batch=3).SerializeToString(), images)
    for index, image in enumerate(images):
        alone = answers(package.networks[0], image[None])
        for tensor, answer in alone.items():
            np.testing.assert_allclose(together[tensor][index], answer[0], atol=1e-6)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_x_ray_model_answers_each_of_a_batch_as_if_alone(folder: Path) -> None:
    assert_each_is_answered_as_if_alone(load_package(folder))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_batch_of_one_is_answered_as_before_bit_for_bit(folder: Path) -> None:
    package = load_package(folder)
    freed = free_batch(model := onnx.load(package.networks[0]))
    assert freed != model
    image = package.golden().input
    for tensor, answer in answers(package.networks[0], image).items():
        np.testing.assert_array_equal(answers(freed.SerializeToString(), image)[tensor], answer)


@pytest.mark.parametrize(
    "shape", [[4, 1, 8, 8], [1, 256], [1, -1], [-1, 64]], ids=["split", "flat", "flat, length open", "batch open"]
)
def test_lengths_that_an_exporter_wrote_down_follow_the_batch(package: ModelPackage, shape: list[int]) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "there"], ["other"]),
        helper.make_node("Softmax", ["other"], ["squared"], axis=-1),
        helper.make_node("Reshape", ["squared", "back"], ["changed"]),
    ]
    assert_each_is_answered_as_if_alone(with_nodes(package, nodes, {"there": shape, "back": [1, 1, 16, 16]}))


@pytest.mark.parametrize(
    ("node", "there"),
    [
        (helper.make_node("Transpose", ["image"], ["other"], perm=[2, 0, 1, 3]), [1, 1, 16, 16]),
        (helper.make_node("ReduceMean", ["image"], ["other"], keepdims=1), [1, 1, 1, 1]),
        (helper.make_node("Softmax", ["image"], ["other"], axis=-4), [1, 1, 16, 16]),
        (helper.make_node("Reshape", ["image", "flat"], ["other"]), [1, 1, 16, 16]),
        (helper.make_node("CumSum", ["image", "flat"], ["other"]), [1, 1, 16, 16]),
    ],
    ids=["moved", "averaged over all axes", "along the first axis", "without a batch", "not known"],
)
def test_where_samples_could_touch_each_other_nothing_is_changed(
    package: ModelPackage, node: onnx.NodeProto, there: list[int]
) -> None:
    nodes = [node, helper.make_node("Reshape", ["other", "there"], ["changed"])]
    with_nodes(package, nodes, {"there": there, "flat": [256]})
    model = onnx.load(package.networks[0])
    assert free_batch(model) == model


def test_a_batch_that_is_written_into_the_graph_and_cannot_be_freed_is_refused(package: ModelPackage) -> None:
    nodes = [
        helper.make_node("Transpose", ["image"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["turned", "there"], ["rows"]),
        helper.make_node("Reshape", ["rows", "back"], ["changed"]),
    ]
    with_nodes(package, nodes, {"there": [16, 16], "back": [1, 1, 16, 16]})
    load_graph(package, package.networks[0])
    with pytest.raises(ModelPackageError, match=r"model\.onnx.*makes \[16, 16\] of \[16, 3, 1, 16\]; let all axes"):
        load_graph(package, package.networks[0], batch=3)


def test_a_grid_that_is_written_into_the_graph_is_found_out(package: ModelPackage) -> None:
    nodes = [helper.make_node("Reshape", ["image", "there"], ["changed"])]
    with_nodes(package, nodes, {"there": [1, 1, 16, 16]})
    model = onnx.load(package.networks[0])
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "rows", 16]))
    onnx.save_model(model, package.networks[0])
    load_graph(package, package.networks[0])
    with pytest.raises(ModelPackageError, match=r"makes \[1, 1, 16, 16\] of \[1, 1, 24, 16\]; let all axes"):
        load_graph(package, package.networks[0], [(16, 16), (24, 16)])
