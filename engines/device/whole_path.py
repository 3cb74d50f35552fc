"""The whole path of a volume on a GPU, step by step as `engines.inference.analyse` takes it on the host."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.device.components import drop_small_components
from engines.device.geometry import Geometry, Shape
from engines.device.kernels import Kernels
from engines.device.memory import STAGE, Allocations, Staging
from engines.errors import ModelPackageError, OutOfMemory, PermanentError
from engines.inference.sliding_window import LEAST_WEIGHT, mirrorings, on_largest_patch, tile
from engines.packages.description import SegmentationSection, VolumeInput
from engines.packages.package import ModelPackage
from engines.runtimes.base import DeviceAnswer
from engines.types import Volume

RunOnDevice = Callable[[int, Mapping[str, int], tuple[int, ...], int], None]
"""Enqueues a network: address of its input ``[batch, 1, *grid]``, addresses of its outputs by name, the grid, and the
handle of the stream. It copies nothing and waits for nothing. Raises `OutOfMemory` where the grid needs more memory
than is free."""

LOWEST_THREADS = 64 * 1024
"""Enough to keep every GPU's memory busy while each thread reads many voxels."""

HIGHEST_KEY = 0x7FFFFFFF
"""No float's key is higher (``ordered`` in kernels.cu)."""


class DevicePath:
    """Resamples, windows, infers, blends, labels, cleans up and resamples back, all in the memory of one GPU.

    The source and its averaged copy are there until it is resampled; then for each voxel of the grid 4 bytes a class, 8
    more for values and weights and 9 for components, and ``batch`` patches with their answers. For 400 slices of
    512 × 512 these are 0.22 GB with ``ct-lung``, and 7.1 GB with a hundred classes on a grid of 1.5 mm. All of it is
    freed when a call ends. The CUDA context must be current when it is made, called and closed.

    Parameters
    ----------
    driver
        The module ``pycuda.driver``, initialised.
    package
        A model that can stay on a device (`ModelPackage.on_device`).
    run_on_device
        The network.
    grids
        On which it runs; ``package.input.grids`` or some of them.
    batch
        How many patches the network takes at once.

    Raises
    ------
    ModelPackageError
        The model cannot stay on a device.
    """

    def __init__(
        self,
        driver: Any,
        package: ModelPackage,
        run_on_device: RunOnDevice,
        grids: Sequence[tuple[int, ...]],
        *,
        batch: int = 1,
    ) -> None:
        wanted, section = package.input, package.description.segmentation
        if not package.on_device or not isinstance(wanted, VolumeInput) or section is None:
            raise ModelPackageError(
                f"{package.name} cannot stay on the GPU: that takes one label map of a volume, one channel, the same "
                "scaling of every image, and no further output; use the engine's infer"
            )
        self._driver = driver
        self._name = package.name
        self._wanted: VolumeInput = wanted
        self._section: SegmentationSection = section
        self._classes = len(section.segments) + 1
        self._run_on_device = run_on_device
        self._grids = tuple(grids)
        self._batch = batch
        self._stream = driver.Stream()
        self._kernels = Kernels(driver, self._stream)
        self._staging = Staging(driver, self._stream)

    def __call__(self, volume: Volume) -> DeviceAnswer:
        """Label every voxel of a volume.

        Parameters
        ----------
        volume
            In HU and finite, as `engines.inference.analyse.analyse` checks.

        Raises
        ------
        OutOfMemory
            Not even the smallest patch fits into the GPU's memory.
        PermanentError
            The network's answer is not finite.
        pycuda.driver.Error
            The GPU failed.
        """
        geometry = Geometry.of(volume, self._wanted)
        begun = perf_counter()
        with Allocations(self._driver, self._stream) as memory:
            values = memory.take(prod(geometry.grid), np.float32)
            self._read(volume.array, geometry, values)
            seen = np.empty(geometry.grid, np.float32)
            self._staging.receive(seen, values)
            read = perf_counter()

            probabilities = memory.take(self._classes * prod(geometry.grid), np.float32)
            on_grid = memory.take(prod(geometry.grid))
            self._infer(values, geometry.grid, probabilities, on_grid)
            inferred = perf_counter()

            if self._section.keep_largest:
                with Allocations(self._driver, self._stream) as scratch:
                    drop_small_components(self._kernels, scratch, on_grid, geometry.grid, probabilities, self._classes)
            labels = self._label(probabilities, geometry)
        seconds = {"preprocess": read - begun, "infer": inferred - read, "postprocess": perf_counter() - inferred}
        return DeviceAnswer(labels, seen, seconds)

    def close(self) -> None:
        """Give the stream, the kernels and the page-locked memory back; the path cannot be called any more."""
        self._stream.synchronize()
        del self._kernels, self._staging, self._stream

    def _read(self, array: NDArray[Any], geometry: Geometry, values: int) -> None:
        """`engines.inference.preprocessing.resample_to_grid`, and the window."""
        array = np.ascontiguousarray(array, np.int16 if array.dtype.kind == "i" else np.float32)
        kind, start = array.dtype.name, self._kernels.start
        with Allocations(self._driver, self._stream) as memory:
            source = averaged = memory.take(array.size, array.dtype.type)
            self._staging.send(array, source)
            places = memory.send(self._staging, geometry.places)
            lowest = memory.take(1, np.int32)
            memory.fill(lowest, 1, HIGHEST_KEY)
            steps = geometry.even[0]
            start(f"lowest_{kind}", LOWEST_THREADS, source, places, lowest, geometry.stored, steps)
            if not geometry.as_stored:
                count = prod(geometry.averaged)
                averaged = memory.take(count, array.dtype.type)
                shapes = (geometry.stored, steps, geometry.block, geometry.averaged)
                start(f"average_{kind}", count, source, places, averaged, *shapes)
            start(
                f"resample_{kind}",
                prod(geometry.grid),
                averaged,
                lowest,
                values,
                geometry.to_averaged,
                geometry.averaged,
                geometry.grid,
                *self._wanted.window,
            )

    def _infer(self, values: int, grid: Shape, probabilities: int, labels: int) -> None:
        """`engines.inference.sliding_window.sliding_window` with flips; then the most probable class on the grid."""
        with Allocations(self._driver, self._stream) as memory:
            weights = memory.take(prod(grid), np.float32)

            def on_patch(patch: tuple[int, ...]) -> None:
                memory.fill(probabilities, self._classes * prod(grid))
                memory.fill(weights, prod(grid))
                try:
                    self._add_patches(values, grid, patch, probabilities, weights)
                except self._driver.MemoryError as error:
                    raise OutOfMemory(f"the network has too little memory for the grid {list(patch)}") from error

            on_largest_patch(on_patch, grid, self._grids, self._name)
            broken = memory.take(1, np.int32)
            memory.fill(broken, 1)
            self._kernels.start("normalise", prod(grid), probabilities, weights, labels, broken, grid, self._classes)
            found = np.zeros(1, np.int32)
            self._staging.receive(found, broken)
        if found[0]:
            raise PermanentError(
                f"the answer of {self._name} on the GPU holds NaN or infinity; nothing can be said about it"
            )

    def _add_patches(self, values: int, grid: Shape, patch: tuple[int, ...], sums: int, weights: int) -> None:
        """Put patches through the network, ``batch`` at a time, mirrored ones beside the others."""
        wanted, count, start = self._wanted, prod(patch), self._kernels.start
        tiling = tile(grid, patch, wanted.overlap, wanted.blend)
        flips = [sum(1 << axis for axis in axes) for axes in mirrorings(wanted.flips)]
        every = [(first, mirror) for first in tiling.starts for mirror in flips]
        with Allocations(self._driver, self._stream) as memory:
            image = memory.take(self._batch * count, np.float32)
            answer = memory.take(self._batch * self._classes * count, np.float32)
            weight = memory.send(self._staging, np.concatenate(tiling.profiles))
            for begin in range(0, len(every), self._batch):
                some = every[begin : begin + self._batch]
                for slot, (first, mirror) in enumerate(some):
                    address = image + 4 * slot * count
                    start("cut_patch", count, values, address, grid, patch, first, mirror, *_scaling(wanted))
                if missing := self._batch - len(some):
                    memory.fill(image + 4 * len(some) * count, missing * count)
                self._run_on_device(image, {self._section.tensor: answer}, patch, self._stream.handle)
                for slot, (first, mirror) in enumerate(some):
                    address = answer + 4 * slot * self._classes * count
                    where = (grid, patch, first, mirror, self._classes, LEAST_WEIGHT)
                    start("add_patch", count, address, weight, sums, weights, *where)

    def _label(self, probabilities: int, geometry: Geometry) -> NDArray[np.uint8]:
        """`engines.inference.postprocessing.labels_on_source`, a part of the source at a time."""
        labels = np.empty(geometry.stored, np.uint8)
        with Allocations(self._driver, self._stream) as memory:
            part = memory.take(min(labels.size, STAGE))
            at = memory.send(self._staging, geometry.at)
            where = (geometry.to_grid,)
            shapes = (geometry.stored, geometry.grid, self._classes)

            def label(first: int, count: int) -> int:
                self._kernels.start("label_source", count, probabilities, at, part, *where, first, count, *shapes)
                return part

            self._staging.receive(labels, label)
        return labels


def _scaling(wanted: VolumeInput) -> tuple[float, float, float, float]:
    """Give what is subtracted, divided by, multiplied with and added, as `preprocessing.scale` does."""
    if wanted.mean is not None and wanted.deviation is not None:
        return wanted.mean[0], wanted.deviation[0], 1.0, 0.0
    (low, high), (bottom, top) = wanted.window, wanted.range or (0.0, 1.0)
    return low, high - low, top - bottom, bottom
