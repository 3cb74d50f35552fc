"""What `wetread bench infer` compares is the same network."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.inference.subjects import SUBJECTS, available, half, on_grid
from engines.packages.package import SHIPPED_MODELS, load_package
from tests.small_models import volume_package

XRAY = SHIPPED_MODELS / "cxr-lung"


@pytest.mark.parametrize("name", ["OpenVINO fp32", "ONNX Runtime fp32", "torch fp32"])
def test_every_subject_in_fp32_gives_the_golden_answer(name: str) -> None:
    package = load_package(XRAY)
    [subject] = [subject for subject in SUBJECTS if subject.name == name]
    engine = available(subject, package, threads=1)
    if isinstance(engine, str):
        assert "pip install" in engine
        pytest.skip(engine)
    golden = package.golden()
    with engine:
        answer = engine.infer(golden.input)["probabilities"]
    # The golden answer is kept in steps of 1/1024.
    assert np.abs(answer - golden.outputs["probabilities"]).max() < 1e-3


def test_a_subject_that_cannot_be_had_says_why() -> None:
    package = load_package(XRAY)
    [subject] = [subject for subject in SUBJECTS if subject.name == "ONNX Runtime int8"]
    if package.networks[0].with_suffix(".int8.onnx").is_file():
        pytest.skip("cxr-lung ships a quantised network")
    reason = available(subject, package, threads=1)
    assert isinstance(reason, str)
    assert "quantise" in reason


def test_a_network_is_read_on_another_grid(tmp_path: Path) -> None:
    package = load_package(volume_package(tmp_path))
    model = on_grid(package.networks[0], package, (4, 4, 4))
    lengths = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert lengths == [1, 1, 4, 4, 4]


def test_emulated_fp16_rounds_and_stays_close() -> None:
    torch = pytest.importorskip("torch", reason="the peer PyTorch needs the extra 'train'")
    from benchmarks.inference.torch_graph import TorchGraph, folded

    package = load_package(XRAY)
    golden = package.golden()
    graph = TorchGraph(half(package, folded(package.networks[0]))).eval()
    with torch.inference_mode():
        answer = graph(torch.from_numpy(golden.input.copy()))["probabilities"].float().numpy()
    error = np.abs(answer - golden.outputs["probabilities"]).max()
    assert 1e-3 < error < 0.1


def test_an_operator_that_is_not_known_is_named() -> None:
    pytest.importorskip("torch", reason="the peer PyTorch needs the extra 'train'")
    from benchmarks.inference.torch_graph import TorchGraph

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"])], "g", [value], [answer])
    with pytest.raises(ValueError, match="Erf"):
        TorchGraph(onnx.helper.make_model(graph))
