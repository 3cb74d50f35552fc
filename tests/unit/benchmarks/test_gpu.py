"""The parts of the GPU benchmark that need no GPU: records, limits of time, counted work, tables, the peers' code."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu.__main__ import Planned, run, write
from benchmarks.gpu.step import Step, interleaved
from benchmarks.gpu.table import markdown
from benchmarks.gpu.work import Work, least_ms, work_of

OPTIONS = argparse.Namespace(device="cpu", tiny=True)


def test_a_step_that_hangs_is_ended_and_what_it_had_found_stays(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    record = tmp_path / "steps" / "hangs.json"
    code = f"import pathlib, time; pathlib.Path({str(record)!r}).write_text('{{\"found\": 1}}'); time.sleep(60)"
    told = run(Planned("hangs", 3.0, ("-c", code)), 3.0, tmp_path, OPTIONS)
    assert told["ended"] == "ended after 3 s"
    write(tmp_path, {"hangs": told})
    assert json.loads((tmp_path / "gpu.json").read_text())["records"]["hangs"] == {"found": 1}
    assert "| hangs | ended after 3 s |" in (tmp_path / "gpu.md").read_text()


def test_an_error_is_kept_and_the_step_goes_on(tmp_path: Path) -> None:
    step = Step("trial", tmp_path, 60.0)
    with step.trying("the impossible"):
        raise RuntimeError("no such thing")
    step.note(afterwards=True)
    kept = json.loads((tmp_path / "trial.json").read_text())
    assert kept["errors"]["the impossible"]["error"] == "RuntimeError: no such thing"
    assert kept["afterwards"] is True


def test_a_subject_that_fails_leaves_the_others_in_turn(tmp_path: Path) -> None:
    step, turns = Step("trial", tmp_path, 60.0), list[str]()

    def fails() -> None:
        turns.append("b")
        raise ValueError("broken")

    interleaved({"a": lambda: turns.append("a"), "b": fails, "c": lambda: turns.append("c")}, 2, step, "case", "cpu")
    assert turns == ["a", "b", "c", "a", "c"]
    assert step.record["cases"]["case"].keys() == {"a", "c"}
    assert step.record["cases"]["case"]["a"]["rounds"] == 2
    assert "broken" in step.record["errors"]["case: b"]["error"]


def test_the_work_of_a_convolution_is_counted_by_hand() -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 8, 8])
    weight = numpy_helper.from_array(np.zeros((6, 2, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=2)
    graph = helper.make_graph([node], "g", [image], [answer], [weight])
    work = work_of(helper.make_model(graph))
    assert work == Work(2 * (6 * 8 * 8) * (2 * 3 * 3), 4 * 64 + 6 * 18 + 6 * 64)


def test_the_work_of_a_transposed_convolution_counts_from_its_input() -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5, 5])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 10, 10])
    weight = numpy_helper.from_array(np.zeros((4, 3, 2, 2), np.float32), "w")
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    graph = helper.make_graph([node], "g", [image], [answer], [weight])
    assert work_of(helper.make_model(graph)).operations == 2 * (4 * 5 * 5) * (3 * 2 * 2)


def test_the_roofline_is_the_slower_of_computing_and_moving() -> None:
    assert least_ms(Work(2 * 10**9, 1), 2, tflop_per_s=1.0, gb_per_s=100.0) == 2.0
    assert least_ms(Work(1, 10**9), 2, tflop_per_s=1.0, gb_per_s=100.0) == 20.0


def test_the_table_names_each_subject_its_ratio_and_its_part_of_the_roofline() -> None:
    def timed(milliseconds: float) -> dict[str, object]:
        span = {"median": milliseconds, "min": milliseconds, "max": milliseconds}
        return {"wall_ms": span, "gpu_ms": span, "peak_mb": 12.0}

    cases = {"network, on the device": {"wetread rtx fp16": timed(2.0), "torch AMP fp16": timed(6.0)}}
    facts = {"copy_gb_per_s": 1000.0, "matmul_tflop_per_s": {"fp32": 1.0, "tf32": 1.0, "fp16": 1.0, "bf16": 1.0}}
    model = {"cases": cases, "work": {"operations": 10**9, "values": 10}, "errors": {"int8": {"error": "no\nfile"}}}
    records = {"facts": facts, "model-ct-lung": model}
    text = markdown({"steps": {name: {"ended": "finished"} for name in records}, "records": records})
    assert "| torch AMP fp16 | 6.00 (6.00–6.00) | 6.00 (6.00–6.00) | 3.00 | 17% | 12 |" in text
    assert "| wetread rtx fp16 | 2.00 (2.00–2.00) | 2.00 (2.00–2.00) | 1.00 | 50% | 12 |" in text
    assert "- model-ct-lung, int8: no file" in text


def test_the_network_of_random_weights_is_a_package_and_pytorch_labels_like_the_node(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the peer PyTorch needs the extra 'train'")
    from benchmarks.gpu.models import chest, labels_of
    from benchmarks.gpu.nnunet import make, write_package
    from benchmarks.gpu.torch_path import TorchPath
    from engines.packages.package import load_package
    from engines.runtimes.base import RuntimeSettings, create_engine
    from engines.verify import dice

    torch.set_num_threads(1)
    network, patch = make(tiny=True)
    write_package(tmp_path / "tiny", network, patch, "cpu")
    package, volume = load_package(tmp_path / "tiny"), chest(tiny=True)
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        ours = labels_of(package, engine, volume)
    theirs = TorchPath(package, network.eval(), "cpu")(volume)
    assert len(np.unique(ours)) > 1
    assert dice(ours > 0, theirs > 0) > 0.999


def test_the_large_network_is_of_the_size_that_nnunet_plans() -> None:
    torch = pytest.importorskip("torch", reason="the peer PyTorch needs the extra 'train'")
    from benchmarks.gpu.nnunet import NnUnet

    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in NnUnet().parameters())
    assert 30e6 < count < 32e6


def test_a_step_without_a_gpu_says_so_and_ends_well(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the peer PyTorch needs the extra 'train'")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    subprocess.run([sys.executable, "-m", "benchmarks.gpu.models", "--out", str(tmp_path)], check=True)
    assert "no GPU" in json.loads((tmp_path / "model-ct-lung.json").read_text())["no_gpu"]
