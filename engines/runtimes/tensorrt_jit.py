"""The kernels that TensorRT for RTX compiles on the machine that it runs on, kept between starts."""

from pathlib import Path
from typing import Any

import structlog

from engines.errors import RuntimeUnavailable
from engines.runtimes.engine_file import read_engine, write_engine

log = structlog.get_logger()


class JitCache:
    """Compiled kernels of one engine on one kind of GPU.

    Parameters
    ----------
    trt
        The module of TensorRT for RTX.
    config
        ``IRuntimeConfig`` of an engine; it is told to compile each kernel for exactly the shapes of a grid, to keep it
        here, and to use CUDA graphs. Kernels are compiled before the first answer (eager): compiled in the background
        they would replace others while the node serves, and the same image would not always get the same answer.
    path
        The file. One that is damaged, or of another GPU, driver or version, is not used, and is replaced by `save`.
    """

    def __init__(self, trt: Any, config: Any, path: Path) -> None:
        self._path = path
        self._cache = config.create_runtime_cache()
        try:
            if not self._cache.deserialize(read_engine(path)):
                log.info("tensorrt.cache_not_used", file=path.name)
        except RuntimeUnavailable as error:
            log.debug("tensorrt.no_cache", reason=str(error))
        config.set_runtime_cache(self._cache)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    def save(self) -> None:
        """Write the file, whole or not at all; where that fails the next start is slower, and no more."""
        kernels = self._cache.serialize()
        if kernels is None:
            log.warning("tensorrt.cache_not_written", file=self._path.name, reason="TensorRT gave nothing to write")
            return
        try:
            write_engine(self._path, bytes(kernels))
        except OSError as error:
            log.warning("tensorrt.cache_not_written", file=self._path.name, reason=error.strerror)
