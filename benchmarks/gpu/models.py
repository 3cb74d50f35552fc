"""One model on the GPU: our engines against PyTorch and ONNX Runtime, for the network alone and for the whole path."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu import nnunet
from benchmarks.gpu.step import Step, Work, arguments, gpu_is_there, interleaved
from benchmarks.gpu.torch_path import TorchPath
from benchmarks.gpu.work import work_of
from benchmarks.inference.subjects import onnx_runtime
from benchmarks.inference.torch_graph import Averaged, TorchGraph, folded
from build_engines.compile import build
from build_engines.recipes.data import phantom
from engines.device.check import OnHost
from engines.inference.analyse import analyse
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import Engine, Outputs, RuntimeSettings, create_engine
from engines.types import EngineIdentity, Volume
from engines.verify import dice, verify

NNUNET = "nnunet"
SPACING = (0.8, 0.75, 0.75)
SLOW_SECONDS = 2.0
"""What takes longer is warm after one run."""

COMPILE_SECONDS = 60.0
"""torch.compile is tried only if so many are left."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", default="ct-lung", help=f"a shipped model, or {NNUNET}")
    options = parser.parse_args()
    step = Step(f"model-{options.model}", options.out, options.seconds)
    if options.device == "cuda" and not gpu_is_there():
        step.note(no_gpu="PyTorch sees no GPU here; nothing was measured")
        return
    if options.device == "cuda":
        # Not the default stream: TensorRT would synchronise it after every inference.
        torch.cuda.set_stream(torch.cuda.Stream())
    Measurement(options, step).run()


class Measurement:
    """The subjects of one model, and what they are measured on."""

    def __init__(self, options: Any, step: Step) -> None:
        self.options, self.step, self.device = options, step, options.device
        self.runtime = "rtx" if self.device == "cuda" else "openvino"
        self.modules: dict[str, Any] = {}
        self.engines: dict[str, Engine] = {}
        torch.backends.cudnn.benchmark = True
        if options.tiny:
            torch.set_num_threads(1)
        if options.model == NNUNET:
            network, patch = nnunet.make(options.tiny)
            nnunet.write_package(options.out / "models" / NNUNET, network, patch, self.device)
            self.package = load_package(options.out / "models" / NNUNET)
            self.module: torch.nn.Module = network.eval()
        else:
            self.package = load_package(SHIPPED_MODELS / options.model)
            self.module = Averaged([TorchGraph(folded(network)) for network in self.package.networks]).eval()
        self.output = next(iter(self.package.described_outputs))
        self.module.to(self.device)
        self.golden = self.package.golden().input
        self.image = torch.from_numpy(self.golden.copy()).to(self.device)

    def run(self) -> None:
        with self.step.trying("work"):
            works = [work_of(folded(network)) for network in self.package.networks]
            operations, values = sum(work.operations for work in works), sum(work.values for work in works)
            self.step.note(work={"operations": operations, "values": values, "grid": self.package.grid})
        for precision in ("fp16", "fp32", "int8"):
            with self.step.trying(f"{self.runtime} {precision}"):
                self.open(precision)
        self.torch_subjects()
        self.network_alone()
        if self.package.on_device:
            volume = chest(self.options.tiny)
            self.whole_path(volume)
            if self.step.remaining > COMPILE_SECONDS and not self.options.tiny:
                self.compiled(volume)
        for engine in self.engines.values():
            engine.deactivate()

    def open(self, precision: str) -> None:
        """Build, activate and verify our engine in a precision."""
        folder = self.options.out / "engines"
        if precision == "int8" and not self.package.networks[0].with_suffix(".int8.onnx").is_file():
            return
        kind: Any = precision if self.runtime == "rtx" else {"fp16": "bf16"}.get(precision, precision)
        seconds, free = {}, self.free_mb()
        began = time.perf_counter()
        build(self.package, self.runtime, kind, folder)
        seconds["build"] = time.perf_counter() - began
        engine = create_engine(self.package, RuntimeSettings(self.runtime, kind, engines=folder))
        began = time.perf_counter()
        engine.activate()
        seconds["activate"] = time.perf_counter() - began
        began = time.perf_counter()
        found = verify(self.package, engine)
        seconds["first inference"] = time.perf_counter() - began
        name = f"wetread {self.runtime} {kind}"
        self.engines[name] = engine
        self.step.record.setdefault("engines", {})[name] = {
            "identity": str(engine.identity),
            "golden check": "passed" if found.ok else f"refused: {found.beyond}",
            "probability error": found.probability_error,
            "dice": dict(found.dice),
            "seconds": {what: round(value, 3) for what, value in seconds.items()},
            "gpu_mb": round(free - self.free_mb(), 1),
        }
        self.step.save()

    def torch_subjects(self) -> None:
        """The module as PyTorch runs it best without compiling, in each precision."""
        module, order = self.module, torch.channels_last_3d if self.image.ndim == 5 else torch.channels_last
        self.modules = {
            "torch eager fp32": self.as_torch(module, tf32=False),
            "torch eager fp32 (tf32)": self.as_torch(module, tf32=True),
            "torch AMP fp16": self.as_torch(module, tf32=True, amp=True),
            "torch AMP fp16 channels last": self.as_torch(module, tf32=True, amp=True, order=order),
        }
        if self.device == "cuda":
            with self.step.trying("torch AMP fp16 CUDA graph"):
                self.modules["torch AMP fp16 CUDA graph"] = self.graphed(self.modules["torch AMP fp16"])

    def as_torch(
        self, module: Any, *, tf32: bool, amp: bool = False, order: Any = torch.contiguous_format
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        kind = torch.half if self.device == "cuda" else torch.bfloat16

        def network(image: torch.Tensor) -> torch.Tensor:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            with torch.inference_mode(), torch.autocast(self.device, kind, enabled=amp):
                answer = module(image.contiguous(memory_format=order))
            return answer[self.output] if isinstance(answer, dict) else answer

        return network

    def graphed(self, network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Capture a network once, and replay it."""
        held = self.image.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                network(held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = network(held)

        def replay(image: torch.Tensor) -> torch.Tensor:
            held.copy_(image)
            graph.replay()
            return answer

        return replay

    def network_alone(self) -> None:
        """From a tensor on the host to the answer on the host, and where we can, on the device alone."""
        host: dict[str, Work] = {name: lambda e=engine: e.infer(self.golden) for name, engine in self.engines.items()}
        for name, network in self.modules.items():
            host[name] = lambda n=network: n(torch.from_numpy(self.golden.copy()).to(self.device)).float().cpu()
        threads = torch.get_num_threads()
        with self.step.trying("ONNX Runtime"):
            peer = onnx_runtime("fp32")(self.package, threads)
            peer.activate()
            host[f"ONNX Runtime CPU fp32, {threads} threads"] = lambda: peer.infer(self.golden)
        self.measure_warm("network, host to host", host)
        device: dict[str, Work] = {name: lambda n=network: n(self.image) for name, network in self.modules.items()}
        for name, engine in self.engines.items():
            with self.step.trying(f"{name} on the device"):
                if (run := on_device(engine, self.package, self.image)) is not None:
                    device[name] = run
        self.measure_warm("network, on the device", device)
        self.step.record.setdefault("agreement", {})["network"] = self.agreement()
        self.step.save()

    def agreement(self) -> dict[str, float]:
        """Largest difference of each torch subject's probabilities from the golden ones."""
        golden = self.package.golden().outputs[self.output]
        found = {}
        for name, network in self.modules.items():
            with self.step.trying(f"{name}: agreement"):
                found[name] = float(np.abs(network(self.image).float().cpu().numpy() - golden).max())
        return found

    def whole_path(self, volume: Volume) -> None:
        """From a volume on the host to a label map on the host."""
        subjects: dict[str, Callable[[], NDArray[np.uint8]]] = {}
        for name, engine in self.engines.items():
            subjects[name] = lambda e=engine: labels_of(self.package, e, volume)
            if engine.whole_path is not None and "fp16" in name:
                subjects[f"{name}, host before and after"] = lambda e=engine: labels_of(self.package, OnHost(e), volume)
        for name, network in self.modules.items():
            path = TorchPath(self.package, network, self.device)
            if "graph" not in name or len(self.package.input.grids) == 1:
                subjects[name] = lambda p=path: p(volume)
        torch_engine = TorchEngine(self.modules["torch AMP fp16"], self.output, self.device)
        subjects["torch AMP fp16, our host before and after"] = lambda: labels_of(self.package, torch_engine, volume)
        case = f"whole path, {' × '.join(map(str, volume.array.shape))}"
        labels = self.warm(subjects, "whole path")
        if (reference := labels.get("torch eager fp32")) is not None:
            compared = {name: round(dice(each > 0, reference > 0), 6) for name, each in labels.items()}
            self.step.record.setdefault("agreement", {})["whole path, Dice with torch eager fp32"] = compared
        self.measure(case, {name: subjects[name] for name in labels})

    def compiled(self, volume: Volume) -> None:
        """torch.compile, last, since it may take all of the time that is left."""
        with self.step.trying("torch AMP fp16 compiled"):
            best = self.as_torch(torch.compile(self.module), tf32=True, amp=True)
            began = time.perf_counter()
            best(self.image)
            self.step.note(torch_compile_seconds=round(time.perf_counter() - began, 1))
            again, name = self.modules["torch AMP fp16"], "torch AMP fp16 compiled"
            path = TorchPath(self.package, best, self.device)
            device: dict[str, Work] = {name: lambda: best(self.image), "torch AMP fp16": lambda: again(self.image)}
            whole: dict[str, Work] = {name: lambda: path(volume)}
            for ours, engine in self.engines.items():
                if "fp16" in ours and (run := on_device(engine, self.package, self.image)) is not None:
                    device[ours] = run
                    whole[ours] = lambda e=engine: labels_of(self.package, e, volume)
            self.measure_warm("network, on the device, compiled", device)
            self.measure_warm(f"whole path, {' × '.join(map(str, volume.array.shape))}, compiled", whole)

    def warm(self, subjects: Mapping[str, Callable[[], Any]], what: str) -> dict[str, Any]:
        """Run each subject twice, and give the answers of those that did not fail; the errors go on record."""
        answers = {}
        for name, work in subjects.items():
            if self.step.remaining < 10:
                self.step.record["errors"][f"{what}: {name}"] = {"error": "no time was left"}
                continue
            with self.step.trying(f"{what}: {name}"):
                began = time.perf_counter()
                answers[name] = work()
                if time.perf_counter() - began < SLOW_SECONDS:
                    work()
        return answers

    def measure_warm(self, case: str, subjects: Mapping[str, Work]) -> None:
        self.measure(case, {name: subjects[name] for name in self.warm(subjects, case)})

    def measure(self, case: str, subjects: Mapping[str, Work]) -> None:
        interleaved(subjects, 2 if self.options.tiny else self.options.rounds, self.step, case, self.device)

    def free_mb(self) -> float:
        return torch.cuda.mem_get_info()[0] / 1e6 if self.device == "cuda" else 0.0


class TorchEngine(Engine):
    """A network in PyTorch in the place of our runtime."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], output: str, device: str) -> None:
        self._network, self._output, self._device = network, output, device

    @property
    def identity(self) -> EngineIdentity:
        return EngineIdentity(f"torch {torch.__version__}", "fp16", self._device)

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        answer = self._network(torch.from_numpy(tensor.copy()).to(self._device))
        return {self._output: answer.float().cpu().numpy()}


def on_device(engine: Any, package: ModelPackage, image: torch.Tensor) -> Work | None:
    """Enqueue our engine on PyTorch's stream and tensors, so that the same two CUDA events time it."""
    session = getattr(engine, "_session", None)
    if session is None:
        return None
    outputs = {
        name: torch.empty(array.shape, dtype=torch.float32, device=image.device)
        for name, array in package.golden().outputs.items()
    }
    addresses = {name: each.data_ptr() for name, each in outputs.items()}

    def run() -> object:
        with engine._gpu.current():
            session.run_on_device(image.data_ptr(), addresses, package.grid, torch.cuda.current_stream().cuda_stream)
        return outputs

    return run


def labels_of(package: ModelPackage, engine: Engine, volume: Volume) -> NDArray[np.uint8]:
    found = analyse(package, engine, volume, clock=lambda: datetime.now(UTC))
    assert found.label_map is not None
    return found.label_map.array


def chest(tiny: bool) -> Volume:
    """A synthetic chest with noise: 400 slices of 512 x 512, 320 x 384 x 384 mm; or 24 x 32 x 32 voxels of 1.5 mm."""
    factor = 1 if tiny else 4
    shape = (24, 32, 32) if tiny else (100, 128, 128)
    step = (1.5, 1.5, 1.5) if tiny else SPACING
    field = (
        tuple(400 * each for each in SPACING)
        if tiny
        else tuple(n * factor * s for n, s in zip(shape, step, strict=True))
    )
    drawn = tuple(length / count for length, count in zip(field, shape, strict=True))
    coarse = phantom.chest(shape, drawn).astype(np.int16)  # type: ignore[arg-type]
    array = coarse.repeat(factor, 0).repeat(factor, 1).repeat(factor, 2)
    array += np.random.default_rng(1).integers(-20, 20, array.shape, np.int16)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *step, 1.0
    return Volume(array, affine, tuple(str(index) for index in range(len(array))))


if __name__ == "__main__":
    main()
