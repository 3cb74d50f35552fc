"""From a network's answers back to the voxels or pixels of the source image: labels, masks, probabilities."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from engines.inference.preprocessing import Array, Placement, resample, tensor_from_image
from engines.inference.sliding_window import Maps
from engines.types import Affine, LabelMap, Segment, Volume

HALF = 0.5
"""From this probability on, a segment that may overlap others is there."""

FULL = 255
"""What a probability of 1 becomes."""

NEGLIGIBLE = 1e-3
"""What all the classes together that are left out, because they are nearly nowhere, take from the background."""

SLAB = 16
"""Source slices that are labelled at a time: bounds the memory, whatever the length of the series."""


def labels_on_source(probabilities: Maps, grid_affine: Affine, volume: Volume) -> NDArray[np.uint8]:
    """Label every voxel of a volume with its most probable class.

    Each class's probability is interpolated linearly at the voxel's centre; outside of the grid it is background.

    Parameters
    ----------
    probabilities
        ``[class, slice, row, column]`` on the grid; class 0 is background, and they sum to 1.
    grid_affine
        Index of the grid to LPS millimetres, as from `engines.inference.preprocessing.resample_to_grid`.
    volume
        The source; only its geometry is read.

    Returns
    -------
    NDArray[np.uint8]
        Shape of the volume's array.
    """
    labels = np.zeros(volume.array.shape, np.uint8)
    # The most probable of n classes has at least 1 / n.
    likely = probabilities[1:].max(axis=0)
    for part, to_grid in _slabs(likely, grid_affine, volume, least=1 / len(probabilities)):
        labels[part] = _arg_max(probabilities, labels[part].shape, to_grid)
    return labels


def probabilities_on_source(probabilities: Maps, grid_affine: Affine, volume: Volume) -> NDArray[np.uint8]:
    """Give every voxel of a volume the probability of each segment, interpolated as `labels_on_source` does.

    Parameters
    ----------
    probabilities, grid_affine, volume
        See `labels_on_source`.

    Returns
    -------
    NDArray[np.uint8]
        ``[segment, slice, row, column]``, without background; 255 is a probability of 1. Memory is taken only where a
        segment may be: the system gives it when something is written.
    """
    found = np.zeros((len(probabilities) - 1, *volume.array.shape), np.uint8)
    for segment, probability in zip(found, probabilities[1:], strict=True):
        for part, to_grid in _slabs(probability, grid_affine, volume, least=HALF / FULL):
            segment[part] = quantised(_interpolated(probability, segment[part].shape, to_grid))
    return found


def masks_on_source(probabilities: Maps, grid_affine: Affine, volume: Volume) -> Iterator[NDArray[np.bool_]]:
    """Tell of one segment after the other where in a volume it is; they may overlap.

    Parameters
    ----------
    probabilities
        ``[segment, slice, row, column]`` on the grid, without background; a segment is where it has one half or more.
    grid_affine, volume
        See `labels_on_source`.
    """
    for probability in probabilities:
        found = np.zeros(volume.array.shape, np.bool_)
        for part, to_grid in _slabs(probability, grid_affine, volume, least=HALF):
            found[part] = _interpolated(probability, found[part].shape, to_grid) >= HALF
        yield found


def separate(masks: Iterable[NDArray[np.bool_]], segments: Sequence[Segment]) -> tuple[LabelMap, ...]:
    """Put segments that may overlap into as few label maps as come free one after the other.

    Parameters
    ----------
    masks
        Where each segment is, in the order of ``segments``; one is held at a time.

    Returns
    -------
    tuple[LabelMap, ...]
        At least one; a segment is named by the label map that it is in. Those that are nowhere are in the first.
    """
    arrays: list[NDArray[np.uint8]] = []
    named: list[list[Segment]] = []
    for mask, segment in zip(masks, segments, strict=True):
        free = next((index for index, array in enumerate(arrays) if not array[mask].any()), None)
        if free is None:
            free = len(arrays)
            arrays.append(np.zeros(mask.shape, np.uint8))
            named.append([])
        arrays[free][mask] = segment.number
        named[free].append(segment)
    return tuple(LabelMap(array, tuple(names)) for array, names in zip(arrays, named, strict=True))


def labels_on_radiograph(probabilities: Maps, placement: Placement) -> NDArray[np.uint8]:
    """Label every pixel of an X-ray with its most probable class.

    Parameters
    ----------
    probabilities
        ``[class, row, column]`` on the tensor; class 0 is background, and they sum to 1.
    placement
        As from `engines.inference.preprocessing.fit`.

    Returns
    -------
    NDArray[np.uint8]
        Shape of the X-ray's array.
    """
    return _arg_max(probabilities, placement.shape, tensor_from_image(placement))


def probabilities_on_radiograph(probabilities: Maps, placement: Placement) -> NDArray[np.uint8]:
    """Give every pixel of an X-ray the probability of each segment, interpolated as `labels_on_radiograph` does.

    Parameters
    ----------
    probabilities, placement
        See `labels_on_radiograph`.

    Returns
    -------
    NDArray[np.uint8]
        ``[segment, row, column]``, without background; 255 is a probability of 1.
    """
    to_tensor = tensor_from_image(placement)
    return np.stack([quantised(_interpolated(each, placement.shape, to_tensor)) for each in probabilities[1:]])


def masks_on_radiograph(probabilities: Maps, placement: Placement) -> Iterator[NDArray[np.bool_]]:
    """Tell of one segment ``[row, column]`` after the other where on an X-ray it is; they may overlap."""
    to_tensor = tensor_from_image(placement)
    for probability in probabilities:
        yield _interpolated(probability, placement.shape, to_tensor) >= HALF


def keep_largest_component(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep of each label only its largest component (voxels that touch by their faces).

    Parameters
    ----------
    labels
        ``[slice, row, column]`` or ``[row, column]``; 0 is background and stays.
    """
    kept = np.zeros_like(labels)
    regions = sitk.LabelShapeStatisticsImageFilter()
    regions.Execute(sitk.GetImageFromArray(labels))
    for label in regions.GetLabels():
        box = regions.GetBoundingBox(label)
        start, size = box[: labels.ndim][::-1], box[labels.ndim :][::-1]
        inside = tuple(slice(first, first + length) for first, length in zip(start, size, strict=True))
        mask = np.ascontiguousarray(labels[inside] == label).astype(np.uint8)
        components = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask)))
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        kept[inside][components == int(sizes.argmax())] = label
    return kept


def drop_small_components(probabilities: Maps) -> None:
    """Make background of all but the largest component of each segment, on the network's grid and in place.

    The grid is coarser than the image, so this costs a hundredth of the same on the image. Linear interpolation keeps
    the result in one piece: along an edge between two points of a segment, the segment stays the most probable.

    Parameters
    ----------
    probabilities
        ``[class, …grid]``; class 0 is background, and they sum to 1.
    """
    labels = np.zeros(probabilities.shape[1:], np.uint8)
    best = probabilities[0].copy()
    # Class by class: NumPy's argmax along the first axis would copy all of them.
    for number, probability in enumerate(probabilities[1:], start=1):
        labels[probability > best] = number
        np.maximum(best, probability, out=best)
    dropped = keep_largest_component(labels) != labels
    probabilities[:, dropped] = 0.0
    probabilities[0, dropped] = 1.0


def drop_small_components_of_each(probabilities: Maps) -> None:
    """Do the same for segments that may overlap, ``[segment, …grid]``, each for itself."""
    for probability in probabilities:
        mask = (probability >= HALF).astype(np.uint8)
        probability[keep_largest_component(mask) != mask] = 0.0


def quantised(values: Array) -> NDArray[np.uint8]:
    """Map 0–1 to 0–255, rounded; in place, what is outside is clipped."""
    np.clip(values, 0.0, 1.0, out=values)
    values *= FULL
    return np.rint(values, out=values).astype(np.uint8)


Slab = tuple[tuple[slice, slice, slice], NDArray[np.float64]]
"""A part of a volume, and the matrix from an index in it to an index of the network's grid."""


def _slabs(likely: Maps, grid_affine: Affine, volume: Volume, least: float) -> Iterator[Slab]:
    """Give the parts of a volume, some slices each, in which a probability on the grid may be ``least`` or more."""
    shape = volume.array.shape
    to_grid = np.linalg.inv(grid_affine) @ volume.affine
    steps = range(len(volume.array)) if volume.at is None else volume.at
    low, high = _likely_region(likely, to_grid, (round(steps[-1]) + 1, *shape[1:]), least)
    inside = [index for index, step in enumerate(steps) if low[0] - 1 < step < high[0]]
    thickness = SLAB if volume.at is None else 1
    for start in range(inside[0], inside[-1] + 1, thickness) if inside else ():
        stop = min(start + thickness, inside[-1] + 1)
        shift = np.eye(4)
        shift[:3, 3] = steps[start], low[1], low[2]
        yield (slice(start, stop), slice(low[1], high[1]), slice(low[2], high[2])), to_grid @ shift


def _arg_max(probabilities: Maps, shape: tuple[int, ...], to_grid: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Interpolate one class after the other, and keep the best so far; background is what the others leave of 1."""
    labels = np.zeros(shape, np.uint8)
    best = np.zeros(shape, np.float32)
    background = np.ones(shape, np.float32)
    part, to_part = _touched(probabilities.shape[1:], shape, to_grid)
    for number, probability in enumerate(probabilities[1:], start=1):
        nearby = probability[part]
        # Of a hundred classes, a few are in any one slab.
        if nearby.max() < NEGLIGIBLE / len(probabilities):
            continue
        found = resample(_image(nearby), shape, to_part, 0.0)
        background -= found
        better = found > best
        labels[better] = number
        np.maximum(best, found, out=best)
    labels[background >= best] = 0
    return labels


def _interpolated(probability: Maps, shape: tuple[int, ...], to_grid: NDArray[np.float64]) -> Array:
    part, to_part = _touched(probability.shape, shape, to_grid)
    return resample(_image(probability[part]), shape, to_part, 0.0)


def _image(probability: Maps) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(probability, np.float32))


def _touched(
    grid: tuple[int, ...], shape: tuple[int, ...], to_grid: NDArray[np.float64]
) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """Give the part of a grid that an array of this shape is interpolated from, and the matrix to an index in it."""
    corners = np.stack(np.meshgrid(*((0, length - 1) for length in shape), indexing="ij"), axis=-1)
    places = corners.reshape(-1, len(shape)) @ to_grid[:-1, :-1].T + to_grid[:-1, -1]
    last = np.array(grid) - 1
    low = np.clip(np.floor(places.min(axis=0)), 0, last).astype(int)
    high = np.clip(np.ceil(places.max(axis=0)), 0, last).astype(int)
    to_part = to_grid.copy()
    to_part[:-1, -1] -= low
    return tuple(slice(int(first), int(final) + 1) for first, final in zip(low, high, strict=True)), to_part


def _likely_region(
    probability: Maps, to_grid: NDArray[np.float64], shape: tuple[int, ...], least: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give the source's index range outside of which a probability, given on the grid, is less than ``least``.

    Linear interpolation gives no more than the largest of the neighbours on the grid; so one grid voxel around those
    with that much is enough.
    """
    likely = np.flatnonzero(probability >= least)
    if not likely.size:
        return (0, 0, 0), (0, 0, 0)
    indices = np.stack(np.unravel_index(likely, probability.shape))
    edges = np.stack([indices.min(axis=1) - 1, indices.max(axis=1) + 1], axis=1).astype(np.float64)
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
    back = np.linalg.inv(to_grid)
    positions = corners @ back[:3, :3].T + back[:3, 3]
    low = np.clip(np.floor(positions.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(positions.max(axis=0)).astype(int) + 1, 0, shape)
    return tuple(int(value) for value in low), tuple(int(value) for value in high)
