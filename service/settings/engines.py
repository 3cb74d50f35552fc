"""``[engines]``: which models run, and on what."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from service.settings.section import Section


class EngineSettings(Section):
    """``[engines]``: which models run, and on what."""

    runtime: Literal["auto", "openvino", "tensorrt", "rtx"] = "auto"
    """auto: what is installed and suits the GPU, where there is an NVIDIA driver; otherwise OpenVINO on the CPU."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """auto: the fastest that a model has limits for: FP16 on a GPU; on a CPU INT8 or bf16 where it was shown to do."""
    models: tuple[str, ...] = ()
    """Names of the models to serve; empty for all that are found."""
    folders: tuple[Path, ...] = ()
    """Folders with further model packages, beside the shipped ones."""
    compiled: Path | None = None
    """Folder of the engines that ``wetread engines build`` wrote; default: ``engines`` in the spool."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for inference; 0 for all."""
    hint: Literal["latency", "throughput"] = "latency"
    """What OpenVINO arranges its threads for: all for one inference at a time, or some for each input of a batch."""
    devices: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Numbers of the GPUs; each has a process of its own with all models."""
    batch: Annotated[int, Field(ge=1, le=256)] = 1
    """How many X-rays or patches run at once; more than 1 is for GPUs, and for CPUs with the hint throughput."""
    batch_seconds: Annotated[float, Field(ge=0, le=1)] = 0.005
    """How long one of them may wait for others."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    """How many images are worked on at a time: one is prepared while the network is at another."""
    memory_mb: Annotated[int, Field(ge=0)] = 0
    """What the engines of a device may take; the least recently used one makes room. 0: no limit, on a GPU what is
    free."""
    hang_seconds: Annotated[float, Field(gt=0)] = 300.0
    """After so long a single inference counts as hung: its process is ended, and the job is tried again."""
    verify_hours: Annotated[float, Field(gt=0)] = 24.0
    """How often every engine is compared with its golden outputs again."""
    build: bool = True
    """Build engines that are missing in the background, where there is a GPU; the CPU serves meanwhile."""
