"""From a network's answers back to the voxels or pixels of the source image: labels, probabilities, activation maps."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from engines.preprocessing import Array, Placement, resample, tensor_from_image
from engines.types import Affine, LabelMap, Segment, Volume

FULL = 255
"""What a probability of 1, or the strongest activation, becomes."""

BAND = 64
"""Rows of an X-ray whose activation maps are made at a time: they stay in the processor's cache."""

SLAB = 16
"""Source slices that are labelled at a time: bounds the memory, whatever the length of the series."""


def labels_on_source(probabilities: Array, grid_affine: Affine, volume: Volume) -> NDArray[np.uint8]:
    """Label every voxel of a volume with its most probable class.

    Each class's probability is interpolated linearly at the voxel's centre; outside of the grid it is background.

    Parameters
    ----------
    probabilities
        Float32 ``[class, slice, row, column]`` on the grid; class 0 is background, and they sum to 1.
    grid_affine
        Index of the grid to LPS millimetres, as from `engines.preprocessing.resample_to_grid`.
    volume
        The source; only its geometry is read.

    Returns
    -------
    NDArray[np.uint8]
        Shape of the volume's array.
    """
    labels = np.zeros(volume.array.shape, np.uint8)
    images = _images(probabilities)
    # The most probable of n classes has at least 1 / n.
    likely = probabilities[1:].max(axis=0)
    for part, to_grid in _slabs(likely, grid_affine, volume, least=1 / len(probabilities)):
        labels[part] = _arg_max(images, labels[part].shape, to_grid)
    return labels


def probabilities_on_source(probabilities: Array, grid_affine: Affine, volume: Volume) -> NDArray[np.uint8]:
    """Give every voxel of a volume the probability of each segment, interpolated as `labels_on_source` does.

    Parameters
    ----------
    probabilities, grid_affine, volume
        See `labels_on_source`.

    Returns
    -------
    NDArray[np.uint8]
        ``[segment, slice, row, column]``, without background; 255 is a probability of 1.
    """
    segments = each_on_source(probabilities[1:], grid_affine, volume)
    return np.stack([_quantised(segment) for segment in segments])


def each_on_source(probabilities: Array, grid_affine: Affine, volume: Volume) -> Iterator[Array]:
    """Interpolate one probability map after the other at every voxel of a volume; what is far below is left 0.

    Parameters
    ----------
    probabilities
        Float32 ``[segment, slice, row, column]`` on the grid, without background.
    grid_affine, volume
        See `labels_on_source`.
    """
    for probability in probabilities:
        image = sitk.GetImageFromArray(np.ascontiguousarray(probability))
        found = np.zeros(volume.array.shape, np.float32)
        for part, to_grid in _slabs(probability, grid_affine, volume, least=0.5 / FULL):
            found[part] = resample(image, found[part].shape, to_grid, 0.0)
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


def labels_on_radiograph(probabilities: Array, placement: Placement) -> NDArray[np.uint8]:
    """Label every pixel of an X-ray with its most probable class.

    Parameters
    ----------
    probabilities
        Float32 ``[class, row, column]`` on the tensor; class 0 is background, and they sum to 1.
    placement
        As from `engines.preprocessing.fit`.

    Returns
    -------
    NDArray[np.uint8]
        Shape of the X-ray's array.
    """
    return _arg_max(_images(probabilities), placement.shape, tensor_from_image(placement))


def probabilities_on_radiograph(probabilities: Array, placement: Placement) -> NDArray[np.uint8]:
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
    return np.stack([_quantised(each) for each in each_on_radiograph(probabilities[1:], placement)])


def each_on_radiograph(probabilities: Array, placement: Placement) -> Iterator[Array]:
    """Interpolate one probability map ``[row, column]`` after the other at every pixel of an X-ray."""
    to_tensor = tensor_from_image(placement)
    for probability in probabilities:
        yield resample(sitk.GetImageFromArray(np.ascontiguousarray(probability)), placement.shape, to_tensor, 0.0)


def activations_on_radiograph(activations: Array, placement: Placement, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bring class activation maps (Zhou et al., CVPR 2016) back to the pixels of an X-ray.

    The cells of a map tile the tensor; between their centres the map is bilinear, beyond the outermost ones constant.

    Parameters
    ----------
    activations
        Float32 ``[class, row, column]``, with fewer rows and columns than the tensor.
    placement
        As from `engines.preprocessing.fit`.
    size
        Rows and columns of the tensor.

    Returns
    -------
    NDArray[np.uint8]
        ``[class, row, column]`` on the X-ray. 255 is the largest value that any class has at any pixel, so that the
        classes of an image compare; 0 is what says nothing for the class, or speaks against it.
    """
    rows, columns = (
        np.clip((offset + (np.arange(length) + 0.5) * scale) * cells / tensor - 0.5, 0, cells - 1)
        for length, scale, offset, tensor, cells in zip(
            placement.shape, placement.scale, placement.offset, size, activations.shape[1:], strict=True
        )
    )
    bands = [slice(start, start + BAND) for start in range(0, len(rows), BAND)]
    widened = [np.ascontiguousarray(_between(activation.T, columns).T) for activation in activations]
    # Interpolated twice, for the common scale and for the maps: as floats, all maps take four times their memory.
    largest = max(float(_between(wide, rows[band]).max()) for wide in widened for band in bands)
    maps = np.zeros((len(activations), *placement.shape), np.uint8)
    if largest > 0:
        for target, wide in zip(maps, widened, strict=True):
            for band in bands:
                target[band] = _quantised(_between(wide / np.float32(largest), rows[band]))
    return maps


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


def _images(probabilities: Array) -> list[sitk.Image]:
    """Give each class but the background as a SimpleITK image."""
    return [sitk.GetImageFromArray(np.ascontiguousarray(entry)) for entry in probabilities[1:]]


def _quantised(values: Array) -> NDArray[np.uint8]:
    """Map 0–1 to 0–255, rounded; in place, what is outside is clipped."""
    np.clip(values, 0.0, 1.0, out=values)
    values *= FULL
    return np.rint(values, out=values).astype(np.uint8)


def _between(lines: Array, at: NDArray[np.float64]) -> Array:
    """Interpolate linearly between the lines ``[cell, …]`` of a map, at places given in cells."""
    before = at.astype(int)
    share = (at - before).astype(np.float32)[:, None]
    between: Array = lines[before]
    between += share * (lines[np.minimum(before + 1, len(lines) - 1)] - between)
    return between


Slab = tuple[tuple[slice, slice, slice], NDArray[np.float64]]
"""A part of a volume, and the matrix from an index in it to an index of the network's grid."""


def _slabs(likely: Array, grid_affine: Affine, volume: Volume, least: float) -> Iterator[Slab]:
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


def _arg_max(images: list[sitk.Image], shape: tuple[int, ...], to_grid: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Interpolate one class after the other, and keep the best so far; background is what the others leave of 1."""
    labels = np.zeros(shape, np.uint8)
    best = np.zeros(shape, np.float32)
    background = np.ones(shape, np.float32)
    for number, image in enumerate(images, start=1):
        probability = resample(image, shape, to_grid, 0.0)
        background -= probability
        better = probability > best
        labels[better] = number
        np.maximum(best, probability, out=best)
    labels[background >= best] = 0
    return labels


def _likely_region(
    probability: Array, to_grid: NDArray[np.float64], shape: tuple[int, ...], least: float
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
