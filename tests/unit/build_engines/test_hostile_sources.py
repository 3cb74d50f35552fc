"""Nonsense for ``wetread engines import`` and ``build``: one clear line, and nothing half-written."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import xray_package

KEYS = ("modality=DX", "size=16,16", "task=classification", "labels=A,B")


def network(path: Path, weight: float = -8.0) -> Path:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 16, 16])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2])
    weights = numpy_helper.from_array(np.array([[weight], [8.0]], np.float32), "weights")
    graph = helper.make_graph(nodes, "network", [image], [answer], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def refusal(*arguments: str | Path, small_files: bool = False) -> str:
    """What the command says on standard error; with ``small_files``, no file can grow, as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    command = [sys.executable, "-m", "service.cli", "engines", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit if small_files else None)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    return line


def importing(source: Path, out: Path, *keys: str) -> list[str | Path]:
    return ["import", "onnx", source, "--out", out, "--name", "one", *(f"--set={key}" for key in (*KEYS, *keys))]


def test_weights_that_are_no_numbers_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    source = network(tmp_path / "nan.onnx", weight=float("nan"))
    assert "holds NaN or infinity" in refusal(*importing(source, tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("size=1000000000,16", "input is wrong: size.1 = 1000000000"),
        ("labels=\x1b[31mA,B", "label"),
        ("labels=" + "x" * 500 + ",B", "at most 64"),
    ],
)
def test_answers_that_make_no_package_are_refused_and_leave_nothing(tmp_path: Path, key: str, said: str) -> None:
    assert said in refusal(*importing(network(tmp_path / "one.onnx"), tmp_path / "out", key))
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_leaves_no_package(tmp_path: Path) -> None:
    source = network(tmp_path / "one.onnx")
    assert "File too large" in refusal(*importing(source, tmp_path / "out"), small_files=True)
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_leaves_no_engine(tmp_path: Path) -> None:
    xray_package(tmp_path / "models")
    build = ("build", "tiny-cxr", "--models", tmp_path / "models", "--target", "openvino", "--precision", "fp32")
    said = refusal(*build, "--out", tmp_path / "engines", small_files=True)
    assert "could not be kept" in said
    assert not list((tmp_path / "engines").iterdir())
