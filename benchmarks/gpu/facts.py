"""What GPU this is, and what it can do at best: bandwidth of a copy, rate of a matrix product."""

import os
import platform
import subprocess
from importlib import metadata

from benchmarks.gpu.step import Step, arguments, gpu_is_there, once

PACKAGES = ("torch", "triton", "onnx", "onnxruntime", "numpy", "pycuda", "tensorrt-rtx-cu13-bindings", "openvino")
QUERY = "name,driver_version,memory.total,compute_cap,clocks.max.sm,clocks.max.memory,power.limit,mig.mode.current"


def main() -> None:
    options = arguments(__doc__).parse_args()
    step = Step("facts", options.out, options.seconds)
    step.note(python=platform.python_version(), cores=os.cpu_count(), machine=platform.machine())
    step.note(packages={name: version(name) for name in PACKAGES})
    with step.trying("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        step.note(nvidia_smi=dict(zip(QUERY.split(","), found.splitlines()[0].split(", "), strict=False)))
    with step.trying("pycuda"):
        from pycuda import driver

        driver.init()
        device = driver.Device(0)
        attributes = {str(key): str(value) for key, value in device.get_attributes().items()}
        step.note(
            pycuda={
                "name": device.name(),
                "compute_capability": device.compute_capability(),
                "total_memory_mb": device.total_memory() / 1e6,
                "driver": driver.get_driver_version(),
                "attributes": attributes,
            }
        )
    if options.device == "cuda" and not gpu_is_there():
        step.note(no_gpu="PyTorch sees no GPU here; nothing was measured")
        return
    with step.trying("copy bandwidth"):
        step.note(copy_gb_per_s=copy_rate(options.device, 2**20 if options.tiny else 2**31))
    for kind in ("fp32", "tf32", "fp16", "bf16"):
        with step.trying(f"matrix product {kind}"):
            size = 64 if options.tiny else 4096 if kind == "fp32" else 8192
            step.record.setdefault("matmul_tflop_per_s", {})[kind] = matmul_rate(options.device, kind, size)
            step.save()


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def copy_rate(device: str, size: int) -> float:
    """GB/s of a copy from device memory to device memory, bytes read and written counted."""
    import torch

    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(best_ms(lambda: target.copy_(source), device) for _ in range(5))
    return round(2 * size / best / 1e6, 1)


def matmul_rate(device: str, kind: str, size: int) -> float:
    """TFLOP/s of a square matrix product of random numbers."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    dtype = {"fp16": torch.half, "bf16": torch.bfloat16}.get(kind, torch.float32)
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(best_ms(lambda: one @ other, device) for _ in range(5))
    return round(2 * size**3 / best / 1e9, 2)


def best_ms(work: object, device: str) -> float:
    took, between = once(work, device)  # type: ignore[arg-type]
    return between if device == "cuda" else took


if __name__ == "__main__":
    main()
