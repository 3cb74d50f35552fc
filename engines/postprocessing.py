"""From a network's probabilities back to labels on the voxels or pixels of the source image."""

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from engines.preprocessing import Array, Placement, resample, tensor_from_image
from engines.types import Affine, Volume

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
    to_grid = np.linalg.inv(grid_affine) @ volume.affine
    steps = range(len(labels)) if volume.at is None else volume.at
    low, high = _labelled_region(probabilities, to_grid, (round(steps[-1]) + 1, *labels.shape[1:]))
    inside = [index for index, step in enumerate(steps) if low[0] - 1 < step < high[0]]
    images = [sitk.GetImageFromArray(np.ascontiguousarray(entry)) for entry in probabilities[1:]]
    thickness = SLAB if volume.at is None else 1
    for start in range(inside[0], inside[-1] + 1, thickness) if inside else ():
        stop = min(start + thickness, inside[-1] + 1)
        shape = (stop - start, high[1] - low[1], high[2] - low[2])
        shift = np.eye(4)
        shift[:3, 3] = steps[start], low[1], low[2]
        labels[start:stop, low[1] : high[1], low[2] : high[2]] = _arg_max(images, shape, to_grid @ shift)
    return labels


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
    images = [sitk.GetImageFromArray(np.ascontiguousarray(entry)) for entry in probabilities[1:]]
    return _arg_max(images, placement.shape, tensor_from_image(placement))


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


def _labelled_region(
    probabilities: Array, to_grid: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give the source's index range outside of which every voxel must be background.

    A voxel is labelled only where a segment has at least ``1 / classes``, and linear interpolation gives no more than
    the largest of the neighbours on the grid; so one grid voxel around those with that much is enough.
    """
    likely = np.flatnonzero(probabilities[1:].max(axis=0) >= 1 / len(probabilities))
    if not likely.size:
        return (0, 0, 0), (0, 0, 0)
    indices = np.stack(np.unravel_index(likely, probabilities.shape[1:]))
    edges = np.stack([indices.min(axis=1) - 1, indices.max(axis=1) + 1], axis=1).astype(np.float64)
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
    back = np.linalg.inv(to_grid)
    positions = corners @ back[:3, :3].T + back[:3, 3]
    low = np.clip(np.floor(positions.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(positions.max(axis=0)).astype(int) + 1, 0, shape)
    return tuple(int(value) for value in low), tuple(int(value) for value in high)
