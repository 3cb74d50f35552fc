"""Compiling, for real: TensorRT for RTX needs no GPU for it. An engine can be loaded only where there is one."""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from typer.testing import CliRunner

from build_engines.cli import app
from build_engines.compile import WAITING, build
from build_engines.errors import BuildError
from build_engines.graph import load_graph, to_bfloat16, to_half
from build_engines.tensorrt import TYPED, optimisation_profiles
from engines.errors import ModelPackageError, RuntimeUnavailable
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import Precision, RuntimeSettings, create_engine
from engines.runtimes.engine_file import read_engine
from tests.small_models import classifier_package, convolutional_package
from tests.tensorrt_on_cpu import Driver, TensorRt, install

SHIPPED = sorted(SHIPPED_MODELS.glob("*/"))
QUANTISED = [folder for folder in SHIPPED if list(folder.glob("*.int8.onnx"))]
SECOND_GRID = (16, 16, 16)


def name(folder: Path) -> str:
    return folder.name


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(convolutional_package(tmp_path / "models"))


def edited(package: ModelPackage, old: str, new: str) -> ModelPackage:
    """The package with another ``model.toml``."""
    path = package.folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return load_package(package.folder)


def two_grids(package: ModelPackage) -> ModelPackage:
    patch = f"patch = {list(package.grid)}"
    return edited(package, patch, f"{patch}\nfurther_patches = [{list(SECOND_GRID)}]")


def quantised(package: ModelPackage, symmetric: bool = True) -> Path:
    """Write a quantise-dequantise network beside the package's own."""

    class Golden(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter([{package.input.tensor: package.golden().input}])

        def get_next(self) -> Any:
            return next(self._images, None)

    plain, target = package.folder.parent / "plain.onnx", package.networks[0].with_suffix(".int8.onnx")
    onnx.save_model(load_graph(package, package.networks[0]), plain)
    quantize_static(
        plain, target, Golden(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["Conv"],
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )  # fmt: skip
    return target


def files(folder: Path) -> list[Path]:
    """What is in a folder, but for the locks."""
    return sorted(path for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("folder", SHIPPED, ids=name)
def test_tensorrt_for_rtx_compiles_a_shipped_model_without_a_gpu(
    rtx: Any, folder: Path, precision: Precision, tmp_path: Path
) -> None:
    package = load_package(folder)
    paths = build(package, "rtx", precision, tmp_path)
    assert len(paths) == len(package.networks)
    grids = "+".join("x".join(map(str, grid)) for grid in package.input.grids)
    for path in paths:
        assert path.name.startswith(f"{folder.name}-")
        assert f"-rtx-{rtx.__version__}-ampere+-{precision}-1x{grids}-r" in path.name
        assert len(read_engine(path)) > 50_000


@pytest.mark.parametrize("folder", QUANTISED, ids=name)
def test_tensorrt_for_rtx_compiles_the_quantised_network_of_a_shipped_model(
    rtx: Any, folder: Path, tmp_path: Path
) -> None:
    (path,) = build(load_package(folder), "rtx", "int8", tmp_path)
    assert len(read_engine(path)) > 50_000


def test_a_shipped_model_is_compiled_for_a_batch(rtx: Any, tmp_path: Path) -> None:
    for path in build(load_package(SHIPPED_MODELS / "cxr-pneumonia"), "rtx", "fp16", tmp_path, batch=4):
        assert "-fp16-4x" in path.name


def test_tensorrt_for_rtx_compiles_bfloat16(rtx: Any, package: ModelPackage, tmp_path: Path) -> None:
    (path,) = build(two_grids(package), "rtx", "bf16", tmp_path)
    assert "-bf16-1x" in path.name


@pytest.mark.parametrize("capability", ["sm80", "sm89", "sm120"])
def test_an_engine_for_one_gpu_says_which_in_its_name(
    rtx: Any, package: ModelPackage, capability: str, tmp_path: Path
) -> None:
    (path,) = build(two_grids(package), "rtx", "fp16", tmp_path, capability=capability)
    assert f"-{capability}-fp16" in path.name


@pytest.mark.parametrize("folder", SHIPPED, ids=name)
def test_lower_precision_reaches_the_convolutions_and_spares_the_softmax(rtx: Any, folder: Path) -> None:
    graph = load_graph(package := load_package(folder), package.networks[0])
    for model, kind in ((graph, "FLOAT"), (to_half(graph), "HALF"), (to_bfloat16(graph), "BF16")):
        found = precisions(parsed(rtx, model))
        assert found["CONVOLUTION"] == {kind}
        # a detector's scores come from a sigmoid, which is an activation like those before it
        assert found.get("SOFTMAX") == (None if package.description.detection else {"FLOAT"})


def test_a_quantised_network_computes_in_int8_and_otherwise_in_fp16(
    rtx: Any, package: ModelPackage, tmp_path: Path
) -> None:
    file = quantised(package)
    network = parsed(rtx, to_half(load_graph(package, file)))
    found = precisions(network)
    assert found["QUANTIZE"] == {"INT8"}
    # TensorRT makes an integer convolution of one between these, so nothing may stand between.
    assert found["DEQUANTIZE"] == found["CONVOLUTION"] == {"HALF"}
    assert found["NORMALIZATION"] == found["SOFTMAX"] == {"FLOAT"}
    makers = {network.get_layer(at).get_output(0).name: network.get_layer(at) for at in range(network.num_layers)}
    for layer in makers.values():
        if layer.type.name == "CONVOLUTION":
            assert makers[layer.get_input(0).name].type.name == "DEQUANTIZE"
    (path,) = build(package, "rtx", "int8", tmp_path / "engines")
    assert "-int8-" in path.name
    assert TYPED["int8"] is to_half


def test_a_network_that_is_quantised_as_tensorrt_cannot_is_refused_with_what_it_wants(
    rtx: Any, package: ModelPackage, tmp_path: Path
) -> None:
    quantised(package, symmetric=False)
    with pytest.raises(BuildError, match=r"model\.int8\.onnx: .*quantise it with zero points of 0"):
        build(package, "rtx", "int8", tmp_path)


def test_a_model_without_a_quantised_network_is_told_how_to_get_one(
    rtx: Any, package: ModelPackage, tmp_path: Path
) -> None:
    with pytest.raises(ModelPackageError, match="wetread engines quantise tiny-unet"):
        build(package, "rtx", "int8", tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("folder", SHIPPED, ids=name)
def test_an_engine_gives_all_outputs_of_the_package_in_fp32(rtx: Any, folder: Path, precision: str) -> None:
    package = load_package(folder)
    graph = load_graph(package, package.networks[0])
    network = parsed(rtx, {"fp32": lambda model: model, "fp16": to_half, "bf16": to_bfloat16}[precision](graph))
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    assert {output.name: tuple(output.shape) for output in outputs} == package.output_shapes()
    assert {output.dtype.name for output in outputs} == {"FLOAT"}


def test_several_grids_are_one_network_with_a_profile_each(rtx: Any, package: ModelPackage) -> None:
    package = two_grids(package)
    graph = to_half(load_graph(package, package.networks[0], package.input.grids, 2))
    network = parsed(rtx, graph)
    assert tuple(network.get_input(0).shape) == (2, 1, -1, -1, -1)
    builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))
    profiles = optimisation_profiles(builder, package, 2)
    assert [[tuple(shape) for shape in profile.get_shape("image")] for profile in profiles] == [
        [(2, 1, 8, 16, 16)] * 3,
        [(2, 1, 16, 16, 16)] * 3,
    ]


def test_one_grid_is_a_network_of_fixed_shape(rtx: Any, package: ModelPackage) -> None:
    assert tuple(parsed(rtx, load_graph(package, package.networks[0])).get_input(0).shape) == package.input_shape
    assert not optimisation_profiles(rtx.Builder(rtx.Logger(rtx.Logger.ERROR)), package, 1)


def test_each_network_of_an_ensemble_is_compiled(rtx: Any, package: ModelPackage, tmp_path: Path) -> None:
    model = onnx.load(package.networks[0])
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save_model(model, package.folder / "second.onnx")
    package = edited(package, "[input]", '[network]\nfiles = ["model.onnx", "second.onnx"]\n\n[input]')
    told: list[tuple[str, float]] = []
    paths = build(package, "rtx", "fp16", tmp_path / "e", progress=lambda phases, done: told.append((phases[0], done)))
    assert len({*paths}) == 2
    assert list(dict(told)) == ["model.onnx", "second.onnx"]
    assert [done for _, done in told] == sorted(done for _, done in told)


def parsed(rtx: Any, graph: onnx.ModelProto) -> Any:
    """The network as TensorRT has parsed it."""
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(graph.SerializeToString())
    return network


def precisions(network: Any) -> dict[str, set[str]]:
    """The types of what each kind of layer gives."""
    found: dict[str, set[str]] = defaultdict(set)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        found[layer.type.name].add(layer.get_output(0).dtype.name)
    return found


def test_progress_is_told_by_nested_phases_and_ends_complete(rtx: Any, package: ModelPackage, tmp_path: Path) -> None:
    told: list[tuple[tuple[str, ...], float]] = []
    build(package, "rtx", "fp32", tmp_path, progress=lambda phases, done: told.append((tuple(phases), done)))
    assert {phases[0] for phases, _ in told} == {"model.onnx"}
    assert max(len(phases) for phases, _ in told) > 2
    parts = [done for _, done in told]
    assert parts == sorted(parts), "it never goes back"
    assert (0 <= parts[0] < 0.2, parts[-1]) == (True, 1)


def test_an_interrupted_build_ends_leaves_no_file_and_can_be_repeated(
    rtx: Any, package: ModelPackage, tmp_path: Path
) -> None:
    told: list[Sequence[str]] = []

    def interrupt(phases: Sequence[str], done: float) -> None:
        told.append(phases)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(package, "rtx", "fp16", tmp_path / "engines", progress=interrupt)
    assert len(told) < 10
    assert not files(tmp_path / "engines")
    assert build(package, "rtx", "fp16", tmp_path / "engines") == files(tmp_path / "engines")


INTERRUPTED = """\
import signal, sys
from pathlib import Path
from build_engines.compile import build
from engines.packages.package import load_package
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
told = []
def interrupt(phases, done):
    told.append(phases)
    if len(told) == 5:
        signal.raise_signal(signal.SIGINT)
try:
    build(load_package(Path(sys.argv[1])), "rtx", "fp16", Path(sys.argv[2]), progress=interrupt)
except KeyboardInterrupt:
    print("interrupted after", len(told))
"""


def test_control_c_ends_a_build(rtx: Any, package: ModelPackage, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    command = [sys.executable, "-c", INTERRUPTED, str(package.folder), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "interrupted after 5"
    assert not files(out)


INTERRUPTED_BETWEEN = """\
import signal, sys
from pathlib import Path
from build_engines import tensorrt
from build_engines.compile import build
from engines.packages.package import load_package
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
made = tensorrt.progress_monitor
def monitor(trt, told):
    monitor = made(trt, told)
    class Interrupted(type(monitor)):
        def phase_finish(self, phase_name):
            signal.raise_signal(signal.SIGINT)
            super().phase_finish(phase_name)
    monitor.__class__ = Interrupted
    return monitor
tensorrt.progress_monitor = monitor
try:
    build(load_package(Path(sys.argv[1])), "rtx", "fp16", Path(sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_control_c_is_not_lost_where_the_compiler_would_drop_it(
    rtx: Any, package: ModelPackage, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    command = [sys.executable, "-c", INTERRUPTED_BETWEEN, str(package.folder), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "interrupted"
    assert not files(out)


def test_what_was_built_is_not_built_again(rtx: Any, package: ModelPackage, tmp_path: Path) -> None:
    out = tmp_path / "new" / "engines"
    (first,) = build(package, "rtx", "fp16", out)
    written = first.stat()
    assert build(package, "rtx", "fp16", out) == [first] == files(out)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


@pytest.mark.parametrize("key", ["weights", "version", "revision", "capability", "precision", "grids", "batch"])
def test_what_an_engine_depends_on_makes_it_anew(
    rtx: Any, package: ModelPackage, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "engines"
    (first,) = build(package, "rtx", "fp16", out)
    capability, precision, batch = None, "fp16", 1
    if key == "weights":
        model = onnx.load(package.networks[0])
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        onnx.save_model(model, package.networks[0])
    elif key == "version":
        monkeypatch.setattr(rtx, "__version__", "9.9")
    elif key == "revision":
        monkeypatch.setattr("engines.runtimes.engine_file.ENGINE_REVISION", 99)
    elif key == "capability":
        capability = "sm89"
    elif key == "precision":
        precision = "fp32"
    elif key == "grids":
        package = two_grids(package)
    else:
        batch = 3
    (second,) = build(package, "rtx", precision, out, capability=capability, batch=batch)  # type: ignore[arg-type]
    assert first != second
    assert files(out) == sorted([first, second])


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_engine_file_is_never_loaded_and_is_replaced(
    rtx: Any, package: ModelPackage, tmp_path: Path, damage: str
) -> None:
    (path,) = build(package, "rtx", "fp16", tmp_path / "engines")
    whole = read_engine(path)
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "changed": content[:-1] + b"?", "empty": b""}[damage])
    with pytest.raises(RuntimeUnavailable, match="is damaged or was cut short"):
        read_engine(path)
    assert build(package, "rtx", "fp16", path.parent) == [path]
    assert len(read_engine(path)) == len(whole)


BUILDER = """\
import sys
from pathlib import Path
from build_engines.compile import build
from engines.packages.package import load_package
build(
    load_package(Path(sys.argv[1])), "rtx", "fp16", Path(sys.argv[2]),
    progress=lambda phases, done: print(*phases, sep="|", flush=True),
)
"""


def test_of_two_processes_one_builds_and_the_other_waits(rtx: Any, package: ModelPackage, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    (path,) = build(package, "rtx", "fp16", out)
    path.unlink()
    with FileLock(next(out.glob(".*.lock"))):
        # Both come to the lock before it is free.
        builders = [
            subprocess.Popen([sys.executable, "-c", BUILDER, package.folder, out], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for builder in builders:
            assert builder.stdout is not None
            assert builder.stdout.readline().strip() == f"model.onnx|{WAITING}"
        assert not path.exists()
    told = [builder.communicate(timeout=60)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sorted("Building engine" in each for each in told) == [False, True]
    assert files(out) == [path]
    read_engine(path)


def test_an_unknown_compute_capability_is_refused_with_the_choice(
    rtx: Any, package: ModelPackage, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"'sm90'; choose of .*sm89"):
        build(package, "rtx", "fp16", tmp_path, capability="sm90")


def test_an_operator_that_tensorrt_lacks_is_refused_with_its_reason(
    rtx: Any, package: ModelPackage, tmp_path: Path
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
    with pytest.raises(RuntimeUnavailable, match="no precision 'fp16'"):
        build(package, "openvino", "fp16", tmp_path)


@pytest.mark.parametrize("target", ["rtx", "openvino"])
def test_a_folder_that_cannot_be_written_to_is_named(package: ModelPackage, tmp_path: Path, target: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match=r"file/engines.*choose another folder"):
        build(package, target, "fp32", tmp_path / "file" / "engines")


def test_a_compute_capability_is_for_rtx_only(package: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="leave the compute capability out"):
        build(package, "openvino", "fp32", tmp_path, capability="sm80")


def test_openvinos_engine_files_are_what_the_runtime_loads_one_for_each_grid(
    package: ModelPackage, tmp_path: Path
) -> None:
    package = two_grids(package)
    paths = build(package, "openvino", "fp32", tmp_path / "engines")
    assert len(paths) == 2
    written = [path.stat().st_mtime_ns for path in paths]
    settings = RuntimeSettings(engines=tmp_path / "engines", threads=0)
    with create_engine(package, settings) as engine:
        for grid in package.input.grids:
            answer = engine.infer(np.zeros((1, 1, *grid), np.float32))["probabilities"]
            assert answer.shape == (1, 3, *grid)
    assert files(tmp_path / "engines") == sorted(paths)
    assert written == [path.stat().st_mtime_ns for path in paths]


def test_the_command_line_builds_for_a_batch_and_tells_programs_the_files(rtx: Any, tmp_path: Path) -> None:
    classifier_package(tmp_path / "models", crop_to=None)
    command = ["build", "tiny-class", "--target", "rtx", "--precision", "fp16", "--batch", "2", "--json"]
    folders = ["--models", str(tmp_path / "models"), "--out", str(tmp_path / "engines")]
    found = CliRunner().invoke(app, [*command, *folders])
    # Here nobody has sent the log elsewhere, so it comes before.
    (entry,) = json.loads(found.stdout.splitlines()[-1])
    assert entry["model"] == "tiny-class"
    assert [Path(path) for path in entry["files"]] == files(tmp_path / "engines")
    assert "2x16x16" in entry["files"][0]


@pytest.fixture
def driver(rtx: Any, package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A GPU of 8.9 that is not there; what compiles for it in TensorRT's place is TensorRT for RTX."""
    driver = Driver()
    install(monkeypatch, TensorRt(driver, package, 1, jit=False))
    monkeypatch.setitem(sys.modules, "tensorrt", rtx)
    return driver


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
def test_tensorrt_compiles_for_its_gpu_and_keeps_what_it_measured(
    rtx: Any, driver: Driver, package: ModelPackage, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    (path,) = build(package, "tensorrt", "fp16", out)
    timings = out / f"tensorrt-{rtx.__version__}-sm89.timings"
    assert f"-tensorrt-{rtx.__version__}-sm89-fp16-1x8x16x16-r" in path.name
    assert files(out) == sorted([path, timings])
    assert driver.pushed == 0
    whole = read_engine(timings)
    timings.write_bytes(timings.read_bytes()[:-1])
    path.unlink()
    assert build(package, "tensorrt", "fp16", out) == [path], "what is damaged is not used"
    assert read_engine(timings) == whole


def test_a_gpu_is_given_back_when_a_network_cannot_be_compiled_for_it(
    driver: Driver, package: ModelPackage, tmp_path: Path
) -> None:
    package.networks[0].write_bytes(b"no model")
    with pytest.raises(ModelPackageError, match="export the model again"):
        build(package, "tensorrt", "fp16", tmp_path)
    assert driver.pushed == 0


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has an NVIDIA driver")
def test_without_a_gpu_tensorrt_cannot_compile_and_says_so(package: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"pip install|nvidia-smi"):
        build(package, "tensorrt", "fp16", tmp_path)
