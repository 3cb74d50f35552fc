"""Does TensorRT for RTX run on this GPU, which may not be in its support matrix? Each stage is told, with its error."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.step import Step, arguments, gpu_is_there
from build_engines.compile import build
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.runtimes.cuda import Gpu
from engines.runtimes.engine_file import read_engine
from engines.runtimes.tensorrt_library import load_tensorrt, tensorrt_logger
from engines.verify import verify


def main() -> None:
    options = arguments(__doc__).parse_args()
    step = Step("probe", options.out, options.seconds)
    with step.trying("import"):
        trt = load_tensorrt("rtx")
        step.note(version=trt.__version__, capabilities=list(trt.ComputeCapability.__members__))
    package = load_package(SHIPPED_MODELS / "cxr-lung")
    capability = None
    if gpu_is_there():
        import torch

        capability = "sm{}{}".format(*torch.cuda.get_device_capability())
        step.note(gpu=capability)
    else:
        step.note(no_gpu="PyTorch sees no GPU here; engines were compiled, none was run")
    stages: dict[str, dict[str, str]] = {}
    # None: the portable engine. The GPU's own capability, and neighbours whose kernels might run on it.
    for chosen in dict.fromkeys((None, capability, "sm80", "sm120")):
        name = chosen or "portable"
        stages[name] = stage(options.out / "engines" / "probe" / name, package, chosen)
        step.note(stages=stages)
        print(f"probe {name}: {stages[name]}", flush=True)


def stage(folder: Path, package: Any, capability: str | None) -> dict[str, str]:
    """Compile for a capability, load, run, compare; what each stage said."""
    said: dict[str, str] = {}
    try:
        [path] = build(package, "rtx", "fp16", folder, capability=capability)
        said["compile"] = f"ok, {path.stat().st_size} bytes"
        if capability is not None:
            # Wherever the engine was compiled for, it is offered to the GPU that is there.
            own = own_capability()
            if own is not None and own != capability:
                path = path.rename(path.with_name(path.name.replace(f"-{capability}-", f"-{own}-")))
        said["validity"] = validity(path)
        engine = create_engine(package, RuntimeSettings("rtx", "fp16", engines=folder))
        with engine:
            said["load"] = "ok"
            answers = engine.infer(package.golden().input)
            said["run"] = f"ok, finite: {all(bool(np.isfinite(each).all()) for each in answers.values())}"
            found = verify(package, engine)
            said["golden check"] = f"{'passed' if found.ok else 'refused'}, error {found.probability_error:.5f}"
    except Exception as error:
        said["stopped"] = f"{type(error).__name__}: {error}"[:1500]
    return said


def validity(path: Path) -> str:
    """What TensorRT for RTX says of an engine on this GPU, and what speaks against it, before it is loaded."""
    trt = load_tensorrt("rtx")
    logger = tensorrt_logger(trt)
    try:
        with Gpu(0).current():
            said, reasons = trt.Runtime(logger).get_engine_validity(read_engine(path))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    against = [name for name, each in trt.EngineInvalidityDiagnostics.__members__.items() if int(each) & int(reasons)]
    return " ".join([str(said), f"{reasons}", *against, logger.last_error])


def own_capability() -> str | None:
    if not gpu_is_there():
        return None
    torch = sys.modules["torch"]
    return "sm{}{}".format(*torch.cuda.get_device_capability())


if __name__ == "__main__":
    main()
