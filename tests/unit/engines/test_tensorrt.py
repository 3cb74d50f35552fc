"""The runtimes of NVIDIA GPUs: what can be known without one, and the bookkeeping with `tests.tensorrt_on_cpu`."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from build_engines.graph import load_graph
from engines.errors import ModelPackageError, OutOfMemory, RuntimeUnavailable
from engines.packages.package import ModelPackage, load_package
from engines.runtimes import tensorrt as module
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.runtimes.engine_file import read_engine, write_engine
from engines.runtimes.tensorrt import PORTABLE, TensorRtEngine, TensorRtRtxEngine, engine_name, find_engine_file
from engines.runtimes.tensorrt_library import best_gpu_runtime, deserialise, tensorrt_logger
from engines.serving.pool import DRIVER
from engines.types import Volume
from tests.small_models import convolutional_package, random_image
from tests.tensorrt_on_cpu import Cache, CudaBindings, Driver, TensorRt, install

SMALL, LARGE = (8, 16, 16), (16, 16, 16)
BATCH = 2
FP16 = RuntimeSettings(runtime="rtx", precision="fp16")


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    folder = convolutional_package(tmp_path / "models")
    text = (folder / "model.toml").read_text()
    patch = f"patch = {list(SMALL)}"
    assert patch in text
    (folder / "model.toml").write_text(text.replace(patch, f"{patch}\nfurther_patches = [{list(LARGE)}]"))
    return load_package(folder)


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def trt(package: ModelPackage, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> TensorRt:
    stand_in = TensorRt(driver, package, BATCH, jit=False)
    install(monkeypatch, stand_in)
    return stand_in


@pytest.fixture
def rtx_stand_in(package: ModelPackage, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> TensorRt:
    stand_in = TensorRt(driver, package, BATCH, jit=True)
    install(monkeypatch, stand_in)
    return stand_in


@pytest.fixture
def engine(package: ModelPackage, trt: TensorRt, tmp_path: Path) -> TensorRtEngine:
    settings = RuntimeSettings(runtime="tensorrt", precision="fp16", engines=tmp_path, batch=BATCH)
    write_engine(tmp_path / engine_name(package, package.networks[0], settings, "tensorrt-11.0", "sm89"), b"engine")
    return TensorRtEngine(package, package.networks[0], settings)


@pytest.fixture
def rtx_engine(package: ModelPackage, rtx_stand_in: TensorRt, tmp_path: Path) -> TensorRtRtxEngine:
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path, batch=BATCH)
    write_engine(tmp_path / engine_name(package, package.networks[0], settings, "rtx-1.7", PORTABLE), b"engine")
    return TensorRtRtxEngine(package, package.networks[0], settings)


@pytest.fixture
def answer(package: ModelPackage) -> Callable[[np.ndarray], np.ndarray]:
    """What ONNX Runtime answers to one input."""
    sessions: dict[tuple[int, ...], onnxruntime.InferenceSession] = {}

    def answered(image: np.ndarray) -> np.ndarray:
        grid = image.shape[1:]
        if grid not in sessions:
            model = load_graph(package, package.networks[0], [grid]).SerializeToString()
            sessions[grid] = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        found: np.ndarray = sessions[grid].run(None, {"image": image[None]})[0][0]
        return found

    return answered


def image(grid: tuple[int, ...], seed: int = 7, count: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, *grid), dtype=np.float32)


def has_gpu() -> bool:
    return DRIVER.exists()


def test_every_grid_and_any_number_of_inputs_is_answered_as_the_network_does(
    engine: TensorRtEngine, answer: Callable[[np.ndarray], np.ndarray]
) -> None:
    with engine:
        for grid, count in ((SMALL, 1), (LARGE, 2), (SMALL, 2), (LARGE, 1)):
            tensor = image(grid, count, count)
            found = engine.infer(tensor)["probabilities"]
            assert found.shape == (count, 3, *grid)
            np.testing.assert_allclose(found, np.stack([answer(each) for each in tensor]), atol=1e-6)


def test_what_is_missing_in_a_batch_is_zeros(engine: TensorRtEngine, trt: TensorRt) -> None:
    with engine:
        engine.infer(image(SMALL, count=2))
        engine.infer(image(SMALL))
        (context,) = trt.contexts
        assert context.given is not None
        assert context.given[0].any()
        assert not context.given[1].any()


def test_an_answer_is_not_overwritten_by_the_next(engine: TensorRtEngine) -> None:
    with engine:
        first = engine.infer(image(SMALL))["probabilities"]
        kept = first.copy()
        engine.infer(image(SMALL, seed=8))
        np.testing.assert_array_equal(first, kept)


def test_many_inputs_get_their_own_answers_and_are_copied_while_the_one_before_is_inferred(
    engine: TensorRtEngine, driver: Driver, answer: Callable[[np.ndarray], np.ndarray]
) -> None:
    tensors = [image(SMALL if number < 5 else LARGE, number) for number in range(7)]
    with engine:
        found = list(engine.infer_many(tensors[:3]))
        steps = [step for step in driver.log if step != "enqueue"]
        assert steps[steps.index("copy in") :][:4] == ["copy in", "copy in", "wait", "copy in"]
        found += list(engine.infer_many(tensors[3:]))
    for tensor, each in zip(tensors, found, strict=True):
        np.testing.assert_allclose(each["probabilities"][0], answer(tensor[0]), atol=1e-6)


def test_many_inputs_that_nobody_waits_for_leave_the_engine_usable(engine: TensorRtEngine) -> None:
    with engine:
        answers = engine.infer_many([image(SMALL), image(SMALL), image(SMALL)])
        next(answers)
        answers.close()
        assert engine.infer(image(SMALL))["probabilities"].shape == (1, 3, *SMALL)


def test_each_grid_has_its_own_context_and_profile_and_all_share_the_largest_scratch(
    engine: TensorRtEngine, trt: TensorRt
) -> None:
    with engine:
        engine.infer(image(LARGE))
        engine.infer(image(SMALL))
        engine.infer(image(LARGE))
        large, small = trt.contexts
        assert (large.profile, small.profile) == (1, 0)
        assert large.scratch == small.scratch
        assert large.scratch_size == 8 * BATCH * np.prod(LARGE)
        assert (large.inferences, small.inferences) == (2, 1)
        del large, small


def test_a_larger_grid_moves_the_scratch_for_all(engine: TensorRtEngine, trt: TensorRt, driver: Driver) -> None:
    with engine:
        for grid in (SMALL, LARGE, SMALL):
            engine.infer(image(grid))
        scratches = [size for size in (memory.nbytes for memory in driver.held.values()) if size == 8 * 2 * 4096]
        assert len(scratches) == 1
        assert [context.profile for context in trt.contexts] == [0, 1, 0]


def test_all_memory_and_the_gpu_are_given_back(engine: TensorRtEngine, driver: Driver, trt: TensorRt) -> None:
    for _ in range(2):
        with engine:
            list(engine.infer_many([image(LARGE), image(SMALL), image(LARGE)]))
            assert driver.held
        assert not driver.held
        assert (driver.pushed, driver.engines) == (0, 0)


def test_a_grid_that_does_not_fit_leaves_nothing_behind_and_a_smaller_one_still_runs(
    engine: TensorRtEngine, driver: Driver
) -> None:
    small = 2 * 2048 * (8 + 4 * 4)
    with engine:
        for limit in (small, small + 2 * 4096 * 8, 2 * 4096 * (8 + 4)):
            driver.limit = limit
            with pytest.raises(OutOfMemory, match=r"Imaginary GPU has too little memory .*nvidia-smi"):
                engine.infer(image(LARGE))
            assert not driver.held
            assert engine.infer(image(SMALL))["probabilities"].shape == (1, 3, *SMALL)


def test_an_inference_that_tensorrt_has_no_memory_for_is_out_of_memory(engine: TensorRtEngine, driver: Driver) -> None:
    with engine:
        driver.broken = "inference"
        with pytest.raises(OutOfMemory, match="OutOfMemory"):
            engine.infer(image(SMALL))
        driver.broken = ""
        engine.infer(image(SMALL))


def test_other_errors_of_cuda_name_the_gpu_and_what_to_look_at(engine: TensorRtEngine, driver: Driver) -> None:
    with engine:
        driver.broken = "copy"
        with pytest.raises(RuntimeUnavailable, match=r"Imaginary GPU failed .*illegal memory.*dmesg"):
            engine.infer(image(SMALL))
    assert driver.pushed == 0


def test_a_gpu_that_is_lost_is_told_and_its_engine_let_go(engine: TensorRtEngine, driver: Driver) -> None:
    engine.activate()
    engine.infer(image(SMALL))
    driver.broken = "synchronize"
    with pytest.raises(RuntimeUnavailable, match="Imaginary GPU failed"):
        engine.deactivate()
    assert (driver.pushed, driver.engines) == (0, 0)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("Error Code 2: OutOfMemory (no 5 bytes)", OutOfMemory), ("wrong version", RuntimeUnavailable)],
)
def test_an_engine_that_tensorrt_refuses_gives_the_gpu_back(
    engine: TensorRtEngine, driver: Driver, trt: TensorRt, reason: str, kind: type[Exception]
) -> None:
    trt.fails = reason
    with pytest.raises(kind, match=reason.split("(")[0].strip()):
        engine.activate()
    assert (driver.pushed, driver.held) == (0, {})


def test_an_engine_of_other_tensors_is_refused_and_the_gpu_given_back(
    engine: TensorRtEngine, driver: Driver, trt: TensorRt
) -> None:
    trt.kind = "float16"
    with pytest.raises(ModelPackageError, match="'image' is float16, not float32; build the engine again"):
        engine.activate()
    gc.collect()
    assert (driver.pushed, driver.engines) == (0, 0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 4, *SMALL),
            r"'probabilities' is \[2, 4, 8, 16, 16\], but model.toml describes \[2, 3, 8, 16, 16\]; build",
        ),
        ((2, -1, *SMALL), r"depend on the image; export the network with a fixed number of results"),
    ],
)
def test_an_engine_of_other_shapes_is_refused_and_can_be_closed(
    engine: TensorRtEngine, trt: TensorRt, shape: tuple[int, ...], message: str
) -> None:
    trt.shapes["probabilities"] = shape
    with pytest.raises(ModelPackageError, match=message), engine:
        engine.infer(image(SMALL))


def test_a_grid_that_the_package_does_not_name_is_refused(engine: TensorRtEngine) -> None:
    with engine, pytest.raises(ModelPackageError, match=r"does not take the grid \[8, 8, 8\]"):
        engine.infer(image((8, 8, 8)))


def test_a_gpu_that_is_not_there_is_named(package: ModelPackage, trt: TensorRt, tmp_path: Path) -> None:
    settings = RuntimeSettings(runtime="tensorrt", engines=tmp_path, device=5)
    with pytest.raises(RuntimeUnavailable, match=r"GPU 5 cannot be used \(invalid device ordinal\)"):
        TensorRtEngine(package, package.networks[0], settings).activate()


def test_an_engine_says_what_it_runs_on(engine: TensorRtEngine) -> None:
    assert engine.batch == BATCH
    with engine:
        identity = engine.identity
    assert (identity.runtime, identity.precision, identity.device) == ("tensorrt 11.0", "fp16", "Imaginary GPU")


def test_from_the_third_time_on_tensorrts_inferences_are_cuda_graphs(
    engine: TensorRtEngine,
    driver: Driver,
    trt: TensorRt,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[np.ndarray], np.ndarray],
) -> None:
    graphs = CudaBindings(driver)
    install(monkeypatch, trt, graphs=graphs)
    with engine:
        for number in range(5):
            tensor = image(SMALL, number)
            np.testing.assert_allclose(engine.infer(tensor)["probabilities"][0], answer(tensor[0]), atol=1e-6)
        assert (graphs.launched, graphs.alive) == (3, 1)
        engine.infer(image(LARGE))
        assert graphs.alive == 0, "the scratch memory moved, and the graph knows its old address"
        engine.infer(image(SMALL))
    assert (graphs.launched, graphs.alive) == (3, 0)


def test_what_cannot_be_captured_runs_without_a_graph(
    engine: TensorRtEngine, driver: Driver, trt: TensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = CudaBindings(driver)
    monkeypatch.setattr(CudaBindings, "refuses", True)
    install(monkeypatch, trt, graphs=graphs)
    with engine:
        for number in range(4):
            engine.infer(image(SMALL, number))
    assert graphs.launched == 0


def test_tensorrt_for_rtx_is_told_to_compile_before_the_first_answer_and_to_use_graphs(
    rtx_engine: TensorRtRtxEngine, rtx_stand_in: TensorRt
) -> None:
    with rtx_engine:
        (config,) = rtx_stand_in.configs
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert config.cuda_graph_strategy == "whole graph"
        assert config.cache is not None


def test_kernels_that_were_compiled_here_are_kept_for_the_next_start(
    rtx_engine: TensorRtRtxEngine, rtx_stand_in: TensorRt, tmp_path: Path
) -> None:
    for _ in range(2):
        with rtx_engine:
            rtx_engine.infer(image(SMALL))
            (path,) = tmp_path.glob("*.jit")
            written = path.stat().st_ino
            rtx_engine.infer(image(SMALL))
            assert path.stat().st_ino == written, "nothing new was compiled"
    assert path.name.endswith("-sm89.jit")
    assert read_engine(path) == b"kernelskernels"
    path.write_bytes(path.read_bytes()[:-3])
    with rtx_engine:
        assert rtx_stand_in.configs[-1].cache.content == b"", "what is damaged is not used"
        rtx_engine.infer(image(SMALL))
    assert read_engine(path) == b"kernels"


def test_kernels_that_cannot_be_written_stop_nothing(
    rtx_engine: TensorRtRtxEngine, driver: Driver, tmp_path: Path
) -> None:
    with rtx_engine:
        (path,) = (each.with_suffix("") for each in tmp_path.glob("*.engine"))
        # A folder of that name cannot be replaced by a file, not even by root.
        Path(f"{path}-sm89.jit").mkdir()
        rtx_engine.infer(image(SMALL))
    assert not driver.held


def test_kernels_that_tensorrt_does_not_give_stop_nothing(
    rtx_engine: TensorRtRtxEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Cache, "serialize", lambda cache: None)
    with rtx_engine:
        assert rtx_engine.infer(image(SMALL))
    assert not list(tmp_path.glob("*.jit"))


def test_a_process_has_one_context_of_a_gpu(engine: TensorRtEngine, driver: Driver) -> None:
    for _ in range(2):
        with engine:
            engine.infer(image(SMALL))
    assert driver.retained == 1


class CountingPath:
    """In place of the device path: runs the network once on memory of its own."""

    def __init__(self, driver: Any, package: ModelPackage, run: Any, grids: Any, *, batch: int) -> None:
        self.driver, self.package, self.run, self.grids, self.batch = driver, package, run, grids, batch
        self.closed = False

    def __call__(self, volume: Volume) -> np.ndarray:
        stream, grid = self.driver.Stream(), self.grids[0]
        source = self.driver.mem_alloc(4 * self.batch * int(np.prod(grid)))
        target = self.driver.mem_alloc(4 * self.batch * 3 * int(np.prod(grid)))
        self.driver.view(int(source), volume.shape)[...] = volume  # type: ignore[attr-defined, index]
        self.run(int(source), {"probabilities": int(target)}, grid, stream.handle)
        stream.synchronize()
        found = self.driver.view(int(target), (self.batch, 3, *grid)).copy()
        source.free()
        target.free()
        return found

    def close(self) -> None:
        self.closed = True


def test_the_whole_path_runs_the_engines_network_on_memory_that_is_on_the_gpu(
    engine: TensorRtEngine, monkeypatch: pytest.MonkeyPatch, answer: Callable[[np.ndarray], np.ndarray], driver: Driver
) -> None:
    monkeypatch.setattr(module, "DevicePath", CountingPath)
    tensor = image(SMALL, count=BATCH)
    with engine:
        engine.infer(tensor)
        assert engine.whole_path is not None
        found = engine.whole_path(tensor)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, np.stack([answer(each) for each in tensor]), atol=1e-6)
        engine.infer(tensor)
        path = engine.whole_path
    assert engine.whole_path is None
    with pytest.raises(RuntimeUnavailable, match="not active"):
        path(tensor)  # type: ignore[arg-type]
    assert not driver.held


def test_where_the_gpu_takes_no_kernels_of_ours_the_host_does_the_rest(engine: TensorRtEngine) -> None:
    with engine:
        assert engine.whole_path is None
        engine.infer(image(SMALL))


def test_infer_before_activate_is_an_error_that_names_the_model(package: ModelPackage) -> None:
    for runtime in ("rtx", "tensorrt"):
        with pytest.raises(RuntimeUnavailable, match="tiny-unet is not active"):
            create_engine(package, RuntimeSettings(runtime=runtime)).infer(random_image(package.input_shape))


def test_the_engine_file_of_this_gpu_comes_before_the_portable_one(package: ModelPackage, tmp_path: Path) -> None:
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path)
    network = package.networks[0]
    for device in (PORTABLE, "sm89"):
        path = tmp_path / engine_name(package, network, settings, "rtx-1.7", device)
        path.touch()
        assert find_engine_file(package, network, settings, "rtx-1.7", "sm89") == path


@pytest.mark.parametrize(
    ("built", "version"),
    [
        (FP16, "rtx-1.6"),
        (RuntimeSettings(precision="fp32"), "rtx-1.7"),
        (RuntimeSettings(precision="fp16", batch=4), "rtx-1.7"),
    ],
    ids=["version", "precision", "batch"],
)
def test_an_engine_file_of_another_version_precision_or_batch_is_not_taken(
    package: ModelPackage, tmp_path: Path, built: RuntimeSettings, version: str
) -> None:
    network = package.networks[0]
    (tmp_path / engine_name(package, network, built, version, PORTABLE)).touch()
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path)
    with pytest.raises(RuntimeUnavailable, match="wetread engines build tiny-unet --target rtx --precision fp16"):
        find_engine_file(package, network, settings, "rtx-1.7", "sm89")


def test_the_command_to_build_names_the_batch(package: ModelPackage, tmp_path: Path) -> None:
    settings = RuntimeSettings(runtime="rtx", precision="fp16", engines=tmp_path, batch=4)
    with pytest.raises(RuntimeUnavailable, match="--precision fp16 --batch 4 --out"):
        find_engine_file(package, package.networks[0], settings, "rtx-1.7", "sm89")


def test_without_an_engine_folder_the_operator_is_told_what_to_set(package: ModelPackage) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"set engines\.compiled"):
        find_engine_file(package, package.networks[0], RuntimeSettings(runtime="rtx"), "rtx-1.7", "sm89")


def test_a_file_that_is_no_engine_is_refused_with_tensorrts_own_reason(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "some.engine"
    write_engine(path, b"no engine" * 100)
    with pytest.raises(RuntimeUnavailable, match=r"some\.engine on this machine \(.*Error Code"):
        deserialise(rtx.Runtime(tensorrt_logger(rtx)), path)


@pytest.mark.skipif(has_gpu(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("runtime", ["rtx", "tensorrt"])
def test_without_a_gpu_tensorrt_says_so_when_it_is_activated(package: ModelPackage, runtime: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"pip install|nvidia-smi"):
        create_engine(package, RuntimeSettings(runtime=runtime)).activate()


def test_the_real_library_has_every_name_that_the_session_uses(rtx: Any) -> None:
    config = rtx.IRuntimeConfig
    for name in ("create_runtime_cache", "set_runtime_cache", "set_execution_context_allocation_strategy"):
        assert hasattr(config, name)
    for name in ("dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy"):
        assert hasattr(config, name)
    assert rtx.ExecutionContextAllocationStrategy.USER_MANAGED
    assert rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    assert rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    for name in ("set_optimization_profile_async", "set_input_shape", "set_device_memory", "set_tensor_address"):
        assert hasattr(rtx.IExecutionContext, name)
    for name in ("get_device_memory_size_for_profile_v2", "create_runtime_config", "num_optimization_profiles"):
        assert hasattr(rtx.ICudaEngine, name)
    assert {"serialize", "deserialize"} <= set(dir(rtx.IRuntimeCache))


def test_the_best_runtime_is_rtx_where_nvidia_names_the_gpu_for_it(rtx: Any) -> None:
    assert [best_gpu_runtime(each) for each in ("sm80", "sm89", "sm120")] == ["rtx"] * 3


def test_for_other_gpus_tensorrt_comes_first_where_it_is_there(rtx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"tensorrt_rtx_bindings", "tensorrt"}
    monkeypatch.setattr("engines.runtimes.tensorrt_library.find_spec", lambda name: name if name in there else None)
    assert (best_gpu_runtime("sm90"), best_gpu_runtime("sm75"), best_gpu_runtime("sm89")) == (
        "tensorrt",
        "tensorrt",
        "rtx",
    )
    there.remove("tensorrt")
    assert best_gpu_runtime("sm90") == "rtx"
    with pytest.raises(RuntimeUnavailable, match=r"sm75; pip install 'wetread\[tensorrt\]'"):
        best_gpu_runtime("sm75")
    there.clear()
    with pytest.raises(RuntimeUnavailable, match=r"sm89; pip install 'wetread\[rtx\]'"):
        best_gpu_runtime("sm89")
