"""From an image to the tensor of a network: the one path that training and serving share.

Nothing here knows a particular model. Arrays are ``[slice, row, column]`` or ``[row, column]``; positions are LPS
millimetres. Where an image is made smaller, it is averaged over whole blocks first, so that noise does not alias.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from engines.packages.description import TensorInput
from engines.types import Affine, Volume

Array = NDArray[np.float32]

DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
"""Unit vector in LPS of each letter of PatientOrientation (PS3.3 C.7.6.1.1.1)."""

REVERSED = (2, 1, 0)
"""SimpleITK counts (column, row, slice) where arrays count (slice, row, column)."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends not included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the tensor that `fit` made of it.

    Pixel ``i`` of the image lies at ``offset + (i + 0.5) * scale - 0.5`` of the tensor, along each axis.

    Attributes
    ----------
    scale
        Tensor pixels per image pixel, (row, column); they differ where the image's pixels are not square.
    offset
        Width of the padding before the image in tensor pixels, (row, column).
    shape
        Rows and columns of the image.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    shape: tuple[int, int]


def resample_to_grid(volume: Volume, spacing_mm: tuple[float, float, float], axes: str = "HPL") -> tuple[Array, Affine]:
    """Resample a volume linearly to a grid that lies along the patient's axes and covers all of it.

    Parameters
    ----------
    volume
        In any orientation; sheared axes (gantry tilt) are straightened, uneven slices evened out.
    spacing_mm
        Of the grid, along its axes.
    axes
        Where the grid's axes point to: three of L, R, A, P, H, F (`engines.packages.description.VolumeInput`).

    Returns
    -------
    array
        Float32, three axes. Outside of the volume it has the volume's lowest value.
    affine
        Index of the grid to LPS millimetres.
    """
    volume = evenly_spaced(volume)
    affine, size = grid_over(volume.array.shape, volume.affine, spacing_mm, axes)
    to_source = np.linalg.inv(volume.affine) @ affine
    source = _average(sitk.GetImageFromArray(volume.array), block(volume.array.shape, to_source))
    fill = float(volume.array.min())
    return resample(source, size, to_source, fill), affine


def grid_over(
    shape: Sequence[int], volume_affine: Affine, spacing_mm: tuple[float, float, float], axes: str = "HPL"
) -> tuple[Affine, tuple[int, int, int]]:
    """Lay a grid along the patient's axes over an evenly spaced volume, centred on it.

    Parameters
    ----------
    shape, volume_affine
        Of the volume.
    spacing_mm, axes
        See `resample_to_grid`.

    Returns
    -------
    affine
        Index of the grid to LPS millimetres.
    size
        How many voxels cover the volume along each axis of the grid.
    """
    low, high = _bounds(shape, volume_affine)
    directions = np.array([DIRECTIONS[letter] for letter in axes]).T
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    extent = np.abs(directions.T @ (high - low))
    size = np.maximum(1, np.ceil(extent / spacing - 1e-6)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = (low + high) / 2 - affine[:3, :3] @ ((size - 1) / 2)
    return affine, (int(size[0]), int(size[1]), int(size[2]))


def evenly_spaced(volume: Volume) -> Volume:
    """Give a volume one slice at each step of its affine, linear between the two slices around it.

    The same volume where its slices are evenly spaced already.
    """
    if volume.at is None:
        return volume
    places = even_places(volume.at)
    even = np.empty((len(places), *volume.array.shape[1:]), volume.array.dtype)
    for target, place in zip(even, places, strict=True):
        before = int(place)
        after, share = min(before + 1, len(volume.at) - 1), place - before
        mixed = volume.array[before] * np.float32(1 - share) + volume.array[after] * np.float32(share)
        target[:] = np.rint(mixed) if even.dtype.kind == "i" else mixed
    return Volume(even, volume.affine, tuple(volume.sources[round(place)] for place in places), volume.unit)


def even_places(at: Sequence[float]) -> NDArray[np.float64]:
    """Give the place of each step of a volume's affine in slices, from where they lie (`Volume.at`)."""
    return np.interp(np.arange(round(at[-1]) + 1), at, np.arange(len(at)))


def block(shape: Sequence[int], to_source: NDArray[np.floating[Any]]) -> tuple[int, ...]:
    """Give how many of an image's pixels are averaged along each axis before it is resampled.

    Parameters
    ----------
    shape
        Of the image.
    to_source
        Homogeneous matrix from an index of the coarser grid to an index of the image.
    """
    step = np.abs(to_source[:-1, :-1]).max(axis=1) * (1 + 1e-6)
    return tuple(max(1, min(length, int(factor))) for length, factor in zip(shape, step, strict=True))


def resample(image: Any, shape: tuple[int, ...], to_image: NDArray[np.floating[Any]], fill: float) -> Array:
    """Sample a SimpleITK image linearly at every index of an array of another shape.

    Parameters
    ----------
    image
        SimpleITK image whose physical space is an array's index space (origin and spacing may differ from 0 and 1
        where it was averaged).
    shape
        Of the result, in array order.
    to_image
        Homogeneous matrix from an index of the result to an index of the array, both in array order.
    fill
        Value outside of the image.
    """
    dimension = len(shape)
    order = REVERSED[-dimension:] if dimension == 3 else (1, 0)
    transform = sitk.AffineTransform(dimension)
    transform.SetMatrix(to_image[:dimension, :dimension][np.ix_(order, order)].ravel().tolist())
    transform.SetTranslation(to_image[:dimension, dimension][list(order)].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(length) for length in reversed(shape)])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(fill)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    result: Array = sitk.GetArrayFromImage(resampler.Execute(image))
    return result


def window(array: NDArray[Any], low: float, high: float) -> Array:
    """Clip values to ``low``–``high`` and map them to 0–1, as float32."""
    mapped: Array = ((np.clip(array, low, high) - low) / (high - low)).astype(np.float32)
    return mapped


def scale(wanted: TensorInput, values: Array, low: float, high: float) -> Array:
    """Bring values that were clipped to ``low``–``high`` to what a network wants, one channel beside the other.

    Returns
    -------
    Array
        ``[channel, …]``, float32.
    """
    if wanted.standardise:
        deviation = float(values.std(dtype=np.float64))
        mean = (float(values.mean(dtype=np.float64)),)
        return _standardised(values, mean, (deviation if deviation > 0 else 1.0,), wanted.channels)
    if wanted.mean is not None and wanted.deviation is not None:
        return _standardised(values, wanted.mean, wanted.deviation, wanted.channels)
    bottom, top = wanted.range or (0.0, 1.0)
    mapped = ((values - low) / (high - low)).astype(np.float32, copy=False)
    if (bottom, top) != (0.0, 1.0):
        mapped = mapped * np.float32(top - bottom) + np.float32(bottom)
    return np.broadcast_to(mapped, (wanted.channels, *mapped.shape))


def _standardised(values: Array, means: Sequence[float], deviations: Sequence[float], channels: int) -> Array:
    each = [
        ((values - np.float32(mean)) / np.float32(deviation)).astype(np.float32, copy=False)
        for mean, deviation in zip(means, deviations, strict=False)
    ]
    return np.stack(each) if len(each) == channels else np.broadcast_to(each[0], (channels, *values.shape))


def percentile_window(array: NDArray[Any], low: float, high: float) -> Array:
    """Map the values between two percentiles of an X-ray to 0–1 and clip the rest.

    An image of one value becomes 0 everywhere: it holds nothing to look at.
    """
    bottom, top = (float(value) for value in np.percentile(array, (low, high)))
    if top <= bottom:
        return np.zeros(array.shape, np.float32)
    return window(array, bottom, top)


def fit(
    array: Array,
    size: tuple[int, int],
    pixel: tuple[float, float] = (1.0, 1.0),
    resize: Literal["pad", "stretch"] = "pad",
) -> tuple[Array, Placement]:
    """Scale an X-ray into ``size`` (rows, columns).

    Parameters
    ----------
    pixel
        Height and width of a pixel, in mm or any other unit: lengths on the patient are scaled by one factor, so that
        pixels that are not square distort nothing.
    resize
        ``pad``: by one factor, padded with 0 on both sides; ``stretch``: each side by its own.

    Returns
    -------
    tensor
        Float32 of shape ``size``.
    placement
        How to bring a map on the tensor back to the image.
    """
    rows, columns = array.shape
    factor = min(size[0] / (rows * pixel[0]), size[1] / (columns * pixel[1]))
    scale = (factor * pixel[0], factor * pixel[1]) if resize == "pad" else (size[0] / rows, size[1] / columns)
    offset = ((size[0] - rows * scale[0]) / 2, (size[1] - columns * scale[1]) / 2)
    placement = Placement(scale=scale, offset=offset, shape=(rows, columns))
    to_image = np.linalg.inv(tensor_from_image(placement))
    source = _average(sitk.GetImageFromArray(np.ascontiguousarray(array)), block(array.shape, to_image))
    return resample(source, size, to_image, 0.0), placement


def tensor_from_image(placement: Placement) -> NDArray[np.float64]:
    """Give the homogeneous matrix from an image's index (row, column) to the tensor's index."""
    matrix = np.eye(3)
    for axis, (scale, offset) in enumerate(zip(placement.scale, placement.offset, strict=True)):
        matrix[axis, axis] = scale
        matrix[axis, 2] = offset + scale / 2 - 0.5
    return matrix


def bounding_box(mask: NDArray[Any], margin: float) -> Box | None:
    """Give the box around all non-zero pixels, wider by ``margin`` times its size on each side.

    The box stays inside the image. None where the mask is empty: the caller has to say what that means.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    (top, bottom), (left, right) = (
        (
            max(0, round(first - margin * (last + 1 - first))),
            min(length, round(last + 1 + margin * (last + 1 - first))),
        )
        for first, last, length in (
            (int(rows[0]), int(rows[-1]), mask.shape[0]),
            (int(columns[0]), int(columns[-1]), mask.shape[1]),
        )
    )
    return Box(top=top, left=left, bottom=bottom, right=right)


def crop(array: Array, box: Box) -> Array:
    """Cut a box out of an X-ray."""
    return array[box.top : box.bottom, box.left : box.right]


def _bounds(shape: Sequence[int], affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the lowest and the highest LPS position that any voxel of a volume reaches."""
    edges = np.array([(-0.5, length - 0.5) for length in shape])
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = corners @ affine[:3, :3].T + affine[:3, 3]
    return positions.min(axis=0), positions.max(axis=0)


def _average(image: Any, size: Sequence[int]) -> Any:
    """Average an image over blocks of this size (array order)."""
    factors = list(reversed(size))
    if set(factors) == {1}:
        return image
    # BinShrink leaves out what does not fill a block; the edge repeated makes the last block whole.
    missing = [-length % factor for length, factor in zip(image.GetSize(), factors, strict=True)]
    return sitk.BinShrink(sitk.ZeroFluxNeumannPad(image, [0] * len(missing), missing), factors)
