"""A network that sees a patch, moved over a volume that is larger."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice, product
from math import ceil, prod
from typing import Literal, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.errors import OutOfMemory
from engines.runtimes.base import Outputs

log = structlog.get_logger()

T = TypeVar("T")

Array = NDArray[np.float32]
Maps = NDArray[np.float32] | NDArray[np.float16]

Infer = Callable[[Array], Outputs]

SIGMA = 0.125
"""Width of the Gaussian as a fraction of the patch (Isensee et al., nnU-Net, Nature Methods 2021)."""

LEAST_WEIGHT = 1e-3
"""So that a corner which only one patch sees is still divided by something that is not lost in rounding."""


MOST_FLOAT32 = 4 * 1024**3
"""Blended maps that would take more bytes are summed up in half precision: a hundred classes of a whole chest are many
GB. It costs less than the byte that a probability is kept in."""


@dataclass(frozen=True)
class Window:
    """One patch, and what the network said of it.

    ``start`` is the index of the patch's first voxel on the image's grid; where the image was padded it is negative.
    ``answers`` are those outputs that are no map, without the axis of the batch.
    """

    start: tuple[int, ...]
    answers: Mapping[str, Array]


@dataclass(frozen=True)
class Answer:
    """What a network says of a whole image.

    ``maps`` are its maps by name, ``[class, …grid]`` on the image's grid, float16 where they are very large (see
    `MOST_FLOAT32`); ``windows`` the rest, patch by patch.
    """

    maps: Mapping[str, Maps]
    windows: Sequence[Window]


@dataclass(frozen=True, eq=False)
class Tiling:
    """How patches cover an image.

    Attributes
    ----------
    patch
        What the network sees.
    before
        How far the image is padded before its first voxel, along each axis.
    size
        Of the padded image.
    starts
        Index of each patch's first voxel on the image's grid; where the image is padded it is negative.
    profiles
        Weight of a patch's voxels along each of its axes; that of a voxel is their product, `LEAST_WEIGHT` at least.
    """

    patch: tuple[int, ...]
    before: tuple[int, ...]
    size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    profiles: tuple[Array, ...]

    @property
    def weight(self) -> Array:
        """Weight of each voxel of a patch."""
        weight = np.ones((), np.float32)
        for profile in self.profiles:
            weight = np.multiply.outer(weight, profile)
        return np.maximum(weight, LEAST_WEIGHT)


def tile(
    shape: Sequence[int],
    patch: tuple[int, ...],
    overlap: float,
    blend: Literal["gaussian", "constant"] = "gaussian",
) -> Tiling:
    """Cover an image with the fewest patches that overlap enough; see `sliding_window`."""
    before = tuple(max(0, (length - size) // 2) for size, length in zip(shape, patch, strict=True))
    size = tuple(max(size, length) for size, length in zip(shape, patch, strict=True))
    starts = product(*(_starts(*axis, overlap) for axis in zip(size, patch, strict=True)))
    return Tiling(
        patch,
        before,
        size,
        tuple(tuple(first - edge for first, edge in zip(start, before, strict=True)) for start in starts),
        tuple(np.ones(length, np.float32) if blend == "constant" else _gaussian(length) for length in patch),
    )


def on_largest_patch(
    run: Callable[[tuple[int, ...]], T], shape: Sequence[int], grids: Collection[tuple[int, ...]], model: str
) -> T:
    """Run on the patch that `choose_patch` chooses, and on smaller ones where memory is short.

    Nothing is remembered for the next image: a failed allocation takes little time, and memory may be free by then.

    Parameters
    ----------
    run
        Takes a patch.
    shape
        Of the image.
    grids
        Every patch that the network takes.
    model
        Its name, for messages.

    Raises
    ------
    OutOfMemory
        Not even the smallest patch fits.
    """
    while True:
        patch = choose_patch(shape, tuple(grids))
        try:
            return run(patch)
        except OutOfMemory as error:
            grids = [grid for grid in grids if prod(grid) < prod(patch)]
            if not grids:
                raise OutOfMemory(
                    f"{model} does not fit into memory, not even with its smallest grid {list(patch)} ({error}); stop "
                    "what else uses the device, run fewer at once, or name a smaller grid in input.further_patches"
                ) from error
            log.warning("inference.out_of_memory", model=model, patch=list(patch), reason=str(error))


def choose_patch(shape: Sequence[int], grids: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Choose the smallest grid that covers an image whole, or the largest where none does."""
    by_size = sorted(grids, key=prod)
    covering = [grid for grid in by_size if all(length <= size for length, size in zip(shape, grid, strict=True))]
    return covering[0] if covering else by_size[-1]


def sliding_window(
    infer: Infer,
    image: Array,
    patch: tuple[int, ...],
    overlap: float,
    maps: Collection[str],
    *,
    blend: Literal["gaussian", "constant"] = "gaussian",
    batch: int = 1,
) -> Answer:
    """Run a network over an image patch by patch and blend its maps where patches overlap.

    Parameters
    ----------
    infer
        From ``[n, channel, *patch]``, n at most ``batch``, to the network's outputs by name.
    image
        ``[channel, …grid]``; where it is smaller than the patch it is padded with 0 on both sides.
    patch
        What the network sees.
    overlap
        Least fraction of a patch that its neighbour sees too, 0 to below 1.
    maps
        Names of the outputs that are ``[n, class, *patch]``.
    blend
        How patches are weighted: towards their centres, or all the same.
    """
    shape = image.shape[1:]
    tiling = tile(shape, patch, overlap, blend)
    size, inside = tiling.size, (slice(None), *_box(tiling.before, shape))
    padded = image
    if size != shape:
        padded = np.zeros((len(image), *size), np.float32)
        padded[inside] = image

    starts, weight = tiling.starts, tiling.weight
    blended: dict[str, Maps] = {}
    weights = np.zeros(size if len(starts) > 1 else (0,), np.float32)
    windows = []
    for some in _batches(starts, batch):
        boxes = [
            _box([first + edge for first, edge in zip(start, tiling.before, strict=True)], patch) for start in some
        ]
        answers = infer(np.stack([padded[(slice(None), *box)] for box in boxes]))
        for index, (start, here) in enumerate(zip(some, boxes, strict=True)):
            windows.append(Window(start, {name: each[index] for name, each in answers.items() if name not in maps}))
            if len(starts) == 1:
                return Answer({name: answers[name][index][inside] for name in maps}, windows)
            weights[here] += weight
            for name in maps:
                answer = answers[name][index]
                if name not in blended:
                    blended[name] = _sums((len(answer), *size))
                # One class after the other: all of them times the weight would take as much memory again.
                for sums, each in zip(blended[name], answer, strict=True):
                    sums[here] += each * weight
    for whole in blended.values():
        for sums in whole:
            sums /= weights
    return Answer({name: whole[inside] for name, whole in blended.items()}, windows)


def flipped(infer: Infer, flips: Sequence[int]) -> Infer:
    """Average a network's answers over an image and its mirror images (test-time augmentation).

    Parameters
    ----------
    infer
        From ``[n, channel, …grid]`` to outputs ``[n, class, …]``; those with as many axes as the input are mirrored
        back.
    flips
        Axes of the grid, from 0; every combination of them is taken.
    """
    if not flips:
        return infer
    every = [tuple(axis + 2 for axis in axes) for axes in mirrorings(flips)]

    def averaged(tensor: Array) -> Outputs:
        sums: dict[str, Array] = {}
        for axes in every:
            for name, answer in infer(np.ascontiguousarray(np.flip(tensor, axes))).items():
                back = np.flip(answer, axes) if answer.ndim == tensor.ndim else answer
                sums[name] = sums[name] + back if name in sums else back
        return {name: answer / np.float32(len(every)) for name, answer in sums.items()}

    return averaged


def mirrorings(flips: Sequence[int]) -> list[tuple[int, ...]]:
    """Give every combination of these axes, none of them first."""
    return list(chain.from_iterable(combinations(flips, count) for count in range(len(flips) + 1)))


def _sums(shape: tuple[int, ...]) -> Maps:
    return np.zeros(shape, np.float32) if 4 * prod(shape) <= MOST_FLOAT32 else np.zeros(shape, np.float16)


def _batches(starts: Sequence[tuple[int, ...]], batch: int) -> Iterator[list[tuple[int, ...]]]:
    remaining = iter(starts)
    while some := list(islice(remaining, batch)):
        yield some


def _box(start: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(first, first + length) for first, length in zip(start, lengths, strict=True))


def _starts(size: int, length: int, overlap: float) -> list[int]:
    """Spread the fewest patches evenly that overlap enough and reach both ends."""
    count = 1 + ceil((size - length) / max(1.0, length * (1 - overlap)))
    return [round(start) for start in np.linspace(0, size - length, count)]


def _gaussian(length: int) -> Array:
    weight: Array = np.exp(-0.5 * ((np.arange(length) - (length - 1) / 2) / (length * SIGMA)) ** 2).astype(np.float32)
    return weight
