import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import openvino
import pytest
from structlog.testing import capture_logs

from engines.errors import ModelPackageError, OutOfMemory, RuntimeUnavailable
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes import openvino as openvino_engine
from engines.runtimes import openvino_compile
from engines.runtimes.base import RUNTIMES, RuntimeSettings, create_engine
from engines.runtimes.engine_file import write_engine
from engines.runtimes.openvino import KEPT_GRIDS
from engines.runtimes.openvino_compile import engine_path
from tests.small_models import convolutional_package, random_image, reference, volume_package

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(convolutional_package(tmp_path))


def test_openvino_answers_as_onnx_runtime_does_on_inputs_it_was_not_verified_with(package: ModelPackage) -> None:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        for scale in (0.1, 1.0, 30.0):
            image = random_image(package.input_shape) * scale
            np.testing.assert_allclose(
                engine.infer(image)["probabilities"], reference(package.networks[0], image), atol=1e-4
            )


def test_an_answer_is_not_overwritten_by_the_next(package: ModelPackage) -> None:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        first = engine.infer(package.golden().input)["probabilities"]
        kept = first.copy()
        engine.infer(np.zeros(package.input_shape, np.float32))
        np.testing.assert_array_equal(first, kept)


def test_an_engine_says_what_it_runs_on(package: ModelPackage) -> None:
    cpu = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    with create_engine(package, RuntimeSettings()) as engine:
        assert engine.identity.runtime == f"openvino {openvino.__version__.split('-')[0]}"
        assert (engine.identity.precision, engine.identity.device) == ("fp32", f"CPU ({' '.join(cpu.split())})")


def test_an_engine_can_be_activated_again(package: ModelPackage) -> None:
    engine = create_engine(package, RuntimeSettings(threads=1))
    for _ in range(2):
        with engine:
            assert engine.infer(package.golden().input)["probabilities"].shape == (1, 3, 8, 16, 16)


def test_infer_before_activate_is_an_error_that_names_the_model(package: ModelPackage) -> None:
    for runtime in RUNTIMES:
        with pytest.raises(RuntimeUnavailable, match="tiny-unet is not active"):
            create_engine(package, RuntimeSettings(runtime=runtime)).infer(package.golden().input)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU does not compute in bf16")
def test_bf16_is_close_to_the_reference_but_not_the_same(package: ModelPackage) -> None:
    golden = package.golden()
    with create_engine(package, RuntimeSettings(precision="bf16", threads=1)) as engine:
        error = float(np.abs(engine.infer(golden.input)["probabilities"] - golden.outputs["probabilities"]).max())
    assert 0 < error < 0.1


def test_a_precision_that_a_runtime_lacks_is_refused_with_the_choice(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match="'fp16'; choose one of fp32, bf16, int8"):
        create_engine(package, RuntimeSettings(precision="fp16")).activate()


def test_an_unknown_runtime_is_refused_with_the_choice(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match="no runtime 'cuda'; choose one of openvino, rtx, tensorrt"):
        create_engine(package, RuntimeSettings(runtime="cuda"))


def kept(package: ModelPackage, settings: RuntimeSettings, grid: tuple[int, ...] | None = None) -> Path:
    path = engine_path(package, package.networks[0], settings, grid or package.grid)
    assert path is not None
    return path


def test_what_was_compiled_is_kept_and_imported_the_next_time(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RuntimeSettings(engines=tmp_path, threads=1)
    with create_engine(package, settings) as engine:
        first = engine.infer(package.golden().input)["probabilities"]

    def no_compiling(*_: Any) -> None:
        pytest.fail("compiled again")

    monkeypatch.setattr(openvino.Core, "compile_model", no_compiling)
    with create_engine(package, settings) as engine:
        np.testing.assert_array_equal(engine.infer(package.golden().input)["probabilities"], first)


@pytest.mark.parametrize("damage", [b"damaged", b"", None], ids=["not ours", "empty", "not OpenVINO's"])
def test_an_engine_file_that_cannot_be_used_is_replaced_with_a_warning(
    package: ModelPackage, tmp_path: Path, damage: bytes | None
) -> None:
    settings = RuntimeSettings(engines=tmp_path, threads=1)
    path = kept(package, settings)
    if damage is None:
        write_engine(path, b"whole, but no engine")
    else:
        path.write_bytes(damage)
    before = path.read_bytes()
    with capture_logs() as events, create_engine(package, settings) as engine:
        assert engine.infer(package.golden().input)["probabilities"].shape == (1, 3, 8, 16, 16)
    assert [(event["event"], event["file"]) for event in events] == [("engine.replaced", path.name)]
    assert path.read_bytes() != before
    with capture_logs() as events, create_engine(package, settings):
        assert not events


def test_an_engine_is_not_kept_where_nothing_can_be_written_but_it_runs(package: ModelPackage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = RuntimeSettings(engines=tmp_path / "file" / "engines", threads=1)
    with capture_logs() as events, create_engine(package, settings) as engine:
        assert engine.infer(package.golden().input)
    assert [event["event"] for event in events] == ["engine.not_kept"]


def test_engine_files_of_other_settings_have_other_names(package: ModelPackage, tmp_path: Path) -> None:
    settings = RuntimeSettings(engines=tmp_path)
    others = [
        replace(settings, threads=1),
        replace(settings, hint="throughput"),
        replace(settings, precision="bf16"),
        replace(settings, batch=2),
    ]
    names = {kept(package, each).name for each in (settings, *others)}
    assert len(names | {kept(package, settings, (16, 16, 16)).name}) == 6


def test_an_engine_file_of_another_cpu_is_not_taken(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RuntimeSettings(engines=tmp_path)
    here = kept(package, settings)
    monkeypatch.setattr(openvino_compile, "cpu_name", lambda: "Another CPU")
    assert kept(package, settings).name != here.name


@pytest.fixture
def several(tmp_path: Path) -> ModelPackage:
    folder = convolutional_package(tmp_path, name="tiny-grids")
    toml = folder / "model.toml"
    text = toml.read_text(encoding="utf-8")
    toml.write_text(
        text.replace("patch = [8, 16, 16]", "patch = [8, 16, 16]\nfurther_patches = [[4, 8, 8], [8, 8, 24]]"),
        encoding="utf-8",
    )
    return load_package(folder)


def test_each_grid_of_a_package_is_compiled_when_it_is_asked_for(several: ModelPackage, tmp_path: Path) -> None:
    with create_engine(several, RuntimeSettings(engines=tmp_path / "engines", threads=1)) as engine:
        assert len(list((tmp_path / "engines").iterdir())) == 1
        for grid in several.input.grids:
            image = random_image((1, 1, *grid))
            np.testing.assert_allclose(
                engine.infer(image)["probabilities"], on_grid(several, image), atol=1e-4, err_msg=str(grid)
            )
    assert len(list((tmp_path / "engines").iterdir())) == 3


def on_grid(package: ModelPackage, image: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers on a grid that is not the file's."""
    model = onnx.load(package.networks[0])
    for value in (*model.graph.input, *model.graph.output):
        for dimension, length in zip(value.type.tensor_type.shape.dim[2:], image.shape[2:], strict=True):
            dimension.dim_value = length
    return reference(model.SerializeToString(), image)


def test_a_grid_that_model_toml_does_not_name_is_refused(several: ModelPackage) -> None:
    with (
        create_engine(several, RuntimeSettings(threads=1)) as engine,
        pytest.raises(ModelPackageError, match=r"tiny-grids does not take the grid \[8, 8, 8\]"),
    ):
        engine.infer(random_image((1, 1, 8, 8, 8)))


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_several_threads_get_the_answers_to_their_own_inputs(
    package: ModelPackage, hint: Literal["latency", "throughput"]
) -> None:
    images = [random_image(package.input_shape) * scale for scale in (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)]
    expected = [reference(package.networks[0], image) for image in images]
    with create_engine(package, RuntimeSettings(hint=hint)) as engine, ThreadPoolExecutor(6) as pool:
        for answer, wanted in zip(pool.map(engine.infer, images * 4), expected * 4, strict=True):
            np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-4)


def test_with_the_hint_throughput_a_network_of_one_input_answers_batches() -> None:
    package = load_package(SHIPPED_MODELS / "cxr-pneumonia")
    images = [package.golden().input * scale for scale in (0.1, 0.5, 1.0, 2.0, 4.0)]
    expected = [np.mean([reference(network, image) for network in package.networks], axis=0) for image in images]
    together = np.concatenate(images)
    with create_engine(package, RuntimeSettings(hint="throughput", batch=5)) as engine, ThreadPoolExecutor(3) as pool:
        assert engine.batch == 5
        for answers in pool.map(engine.infer, [together, together[:3]] * 4):
            found = answers["probabilities"]
            np.testing.assert_allclose(found, np.concatenate(expected[: len(found)]), atol=1e-4)
    with pytest.raises(RuntimeUnavailable, match="cxr-pneumonia"):
        create_engine(package, RuntimeSettings(batch=5)).activate()


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from engines.errors import OutOfMemory
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings, create_engine

package = load_package(Path(sys.argv[1]))
with create_engine(package, RuntimeSettings(threads=1)) as engine:
    small = engine.infer(np.zeros((1, 1, 4, 8, 8), np.float32))
    large = np.zeros((1, 1, *package.input.grids[-1]), np.float32)
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + 50_000_000,) * 2)
    try:
        engine.infer(large)
    except OutOfMemory as error:
        print(error)
    again = engine.infer(np.zeros((1, 1, 4, 8, 8), np.float32))
    assert (small["probabilities"] == again["probabilities"]).all()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_a_grid_too_large_for_the_memory_is_told_and_smaller_ones_still_run(tmp_path: Path) -> None:
    folder = convolutional_package(tmp_path)
    toml = folder / "model.toml"
    text = toml.read_text(encoding="utf-8")
    further = "patch = [8, 16, 16]\nfurther_patches = [[4, 8, 8], [256, 256, 256]]"
    toml.write_text(text.replace("patch = [8, 16, 16]", further), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"model\.onnx: not enough memory \(.*(bad_alloc|Failed to allocate)", done.stdout), done.stdout


def test_where_memory_ends_the_other_grids_give_theirs_back(
    several: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int, ...]] = []

    def short_of_memory(package: ModelPackage, network: Path, settings: RuntimeSettings, grid: tuple[int, ...]) -> Any:
        compiled.append(grid)
        if compiled == [several.grid, (4, 8, 8)]:
            raise OutOfMemory("not enough memory")
        return openvino_compile.compile_model(package, network, settings, grid)

    monkeypatch.setattr(openvino_engine, "compile_model", short_of_memory)
    with create_engine(several, RuntimeSettings(threads=1)) as engine:
        assert engine.infer(random_image((1, 1, 4, 8, 8)))
        assert engine.infer(several.golden().input)
    assert compiled == [several.grid, (4, 8, 8), (4, 8, 8), several.grid]


def test_only_the_grids_used_last_stay_compiled_and_every_grid_answers(tmp_path: Path) -> None:
    folder = volume_package(tmp_path)
    description = folder / "model.toml"
    further = "further_patches = [[8, 8, 8], [8, 16, 16], [16, 16, 16]]\noverlap"
    description.write_text(description.read_text().replace("overlap", further))
    package = load_package(folder)
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        for grid in (*package.input.grids, *reversed(package.input.grids)):
            image = random_image((1, 1, *grid))
            expected = np.abs(image - 0.5) < 0.25
            np.testing.assert_array_equal(engine.infer(image)["probabilities"].argmax(axis=1)[:, None] == 1, expected)
        assert len(engine._idle) == KEPT_GRIDS
