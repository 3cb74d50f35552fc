import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from build_engines.compile import BuildError, build
from build_engines.graph import load_graph, to_half
from engines.errors import RuntimeUnavailable
from engines.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.runtimes.tensorrt import load_tensorrt
from tests.small_models import convolutional_package


@pytest.fixture(scope="module")
def rtx_version() -> str:
    """The version of TensorRT for RTX; where it is not installed the test is skipped, but never in CI."""
    try:
        return str(load_tensorrt("rtx").__version__)
    except RuntimeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(convolutional_package(tmp_path / "models"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("folder", sorted(SHIPPED_MODELS.glob("*/")), ids=lambda folder: folder.name)
def test_tensorrt_for_rtx_compiles_a_shipped_model_without_a_gpu(
    rtx_version: str, folder: Path, precision: str, tmp_path: Path
) -> None:
    package = load_package(folder)
    path = build(package, "rtx", precision, tmp_path)
    digest = package.identity.digest[:12]
    assert path.name == f"{folder.name}-{digest}-rtx-{rtx_version}-ampere+-{precision}.engine"
    assert path.stat().st_size > 50_000


@pytest.mark.parametrize("capability", ["sm80", "sm89", "sm120"])
def test_an_engine_for_one_gpu_says_which_in_its_name(
    rtx_version: str, package: ModelPackage, capability: str, tmp_path: Path
) -> None:
    path = build(package, "rtx", "fp16", tmp_path, capability=capability)
    assert f"-{capability}-fp16" in path.name


@pytest.mark.parametrize("folder", sorted(SHIPPED_MODELS.glob("*/")), ids=lambda folder: folder.name)
def test_half_precision_reaches_the_convolutions_and_spares_the_softmax(rtx_version: str, folder: Path) -> None:
    graph = load_graph(package := load_package(folder), package.networks[0])
    full, half = precisions(parsed(graph)), precisions(parsed(to_half(graph)))
    assert full["CONVOLUTION"] == {"FLOAT"}
    assert half["CONVOLUTION"] == {"HALF"}
    assert full["SOFTMAX"] == half["SOFTMAX"] == {"FLOAT"}


@pytest.mark.parametrize("halved", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("folder", sorted(SHIPPED_MODELS.glob("*/")), ids=lambda folder: folder.name)
def test_an_engine_gives_all_outputs_of_the_package_in_fp32(rtx_version: str, folder: Path, halved: bool) -> None:
    package = load_package(folder)
    graph = load_graph(package, package.networks[0])
    network = parsed(to_half(graph) if halved else graph)
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    assert {output.name: tuple(output.shape) for output in outputs} == package.output_shapes()
    assert {output.dtype.name for output in outputs} == {"FLOAT"}


def parsed(graph: onnx.ModelProto) -> Any:
    """The network as TensorRT has parsed it."""
    trt = load_tensorrt("rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graph.SerializeToString())
    return network


def precisions(network: Any) -> dict[str, set[str]]:
    """The types of what each kind of layer gives."""
    found: dict[str, set[str]] = defaultdict(set)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        found[layer.type.name].add(layer.get_output(0).dtype.name)
    return found


def test_progress_is_told_by_phase_and_ends_complete(rtx_version: str, package: ModelPackage, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    build(package, "rtx", "fp32", tmp_path, progress=lambda phase, done: told.append((phase, done)))
    assert len({phase for phase, _ in told}) > 1
    assert all(0 <= done <= 1 for _, done in told)
    assert told[-1][1] == 1


def test_only_the_engine_file_is_left_in_the_folder(rtx_version: str, package: ModelPackage, tmp_path: Path) -> None:
    out = tmp_path / "new" / "engines"
    first = build(package, "rtx", "fp16", out)
    assert build(package, "rtx", "fp16", out) == first
    assert list(out.iterdir()) == [first]


def test_an_unknown_compute_capability_is_refused_with_the_choice(
    rtx_version: str, package: ModelPackage, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"'sm90'; choose of .*sm89"):
        build(package, "rtx", "fp16", tmp_path, capability="sm90")


def test_an_operator_that_tensorrt_lacks_is_refused_with_its_reason(
    rtx_version: str, package: ModelPackage, tmp_path: Path
) -> None:
    model = onnx.load(package.networks[0])
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.input[0] = "angle"
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Det", ["logits"], ["unused"], name="determinant")
    )
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Identity", ["logits"], ["angle"]))
    onnx.save_model(model, package.networks[0])
    with pytest.raises(BuildError, match=r"cannot read .*Det"):
        build(package, "rtx", "fp32", tmp_path)


def test_a_precision_that_the_target_lacks_is_refused(package: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="rtx has no precision 'bf16'"):
        build(package, "rtx", "bf16", tmp_path)
    with pytest.raises(RuntimeUnavailable, match="no precision 'fp16'"):
        build(package, "openvino", "fp16", tmp_path)


def test_a_compute_capability_is_for_rtx_only(package: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="leave the compute capability out"):
        build(package, "openvino", "fp32", tmp_path, capability="sm80")


def test_an_openvino_engine_file_is_what_the_runtime_loads(package: ModelPackage, tmp_path: Path) -> None:
    golden = package.golden()
    path = build(package, "openvino", "fp32", tmp_path / "engines")
    package.networks[0].write_bytes(b"not read any more")
    with create_engine(package, RuntimeSettings(engines=path.parent, threads=1)) as engine:
        np.testing.assert_allclose(
            engine.infer(golden.input)["probabilities"], golden.outputs["probabilities"], atol=1e-4
        )
