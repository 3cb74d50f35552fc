"""How far the surface of one mask is from that of another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from engines.types import Volume

Mask = NDArray[np.bool_]

SKEW = 1e-3
"""Cosine of the angle between two axes of a volume that are still taken for perpendicular."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Between two surfaces, in the unit of the spacing.

    Attributes
    ----------
    hausdorff95
        The larger of the 95th percentiles of the distances from one surface to the other and back.
    mean
        Of all distances, both ways: the average symmetric surface distance.
    """

    hausdorff95: float
    mean: float


def surface_distances(reference: Mask, found: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure between the surfaces of two masks on one grid (Taha and Hanbury, BMC Medical Imaging 15, 2015).

    A surface is made of its voxels' centres. A voxel is at the surface if one of its neighbours across a face is not in
    the mask, or the image ends there. If both masks are empty, the distances are 0; if one is, they are the diagonal of
    the image: no answer is not better than a bad one.

    Parameters
    ----------
    reference, found
        ``[(slice,) row, column]``; the axes are perpendicular, see `straightened`.
    spacing
        Of the voxels along these axes.
    """
    if not (reference.any() and found.any()):
        farthest = float(np.linalg.norm(np.multiply(reference.shape, spacing)))
        none = 0.0 if not reference.any() and not found.any() else farthest
        return SurfaceDistances(none, none)
    box = _box_around(reference | found)
    one, other = _surface(reference[box]), _surface(found[box])
    there, back = _distance_to(one, spacing)[other], _distance_to(other, spacing)[one]
    worst = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    return SurfaceDistances(worst, float(np.concatenate([there, back]).mean()))


def straightened(volume: Volume, masks: Sequence[Mask]) -> tuple[list[Mask], tuple[float, float, float]]:
    """Put masks of a volume onto a grid with perpendicular axes and even slices, with its spacing in mm.

    Tilted slices (gantry tilt) are moved along their plane by whole pixels, and slices that are not evenly spaced are
    repeated to the smallest gap: a place is wrong by half a pixel and half a slice distance at most. Other volumes are
    left as they are. Rows and columns are taken to be perpendicular, as in DICOM they are.
    """
    _, row, column = volume.spacing
    along_rows, along_columns = volume.affine[:3, 1] / row, volume.affine[:3, 2] / column
    step = volume.affine[:3, 0]
    height = abs(float(step @ np.cross(along_rows, along_columns)))
    shear = np.array([step @ along_rows, step @ along_columns])
    at = np.arange(len(volume.array)) if volume.at is None else np.asarray(volume.at)
    gaps = np.diff(at)
    even = len(gaps) == 0 or float(np.ptp(gaps)) <= SKEW * float(gaps.max())
    thickness = height * float(gaps.min() if len(gaps) else 1)
    spacing = (thickness, row, column)
    if even and float(np.abs(shear).max()) <= SKEW * float(np.linalg.norm(step)):
        return list(masks), spacing
    planes = np.arange(round(float(np.ptp(at)) * height / thickness) + 1) * thickness / height + at[0]
    nearest = np.abs(planes[:, None] - at).argmin(axis=1)
    offsets = np.rint(at[nearest, None] * shear / (row, column)).astype(np.int64)
    offsets -= offsets.min(axis=0)
    return [_moved(mask, nearest, offsets) for mask in masks], spacing


def _moved(mask: Mask, slices: NDArray[np.int64], offsets: NDArray[np.int64]) -> Mask:
    rows, columns = mask.shape[1:]
    down, across = offsets.max(axis=0)
    moved = np.zeros((len(slices), rows + down, columns + across), np.bool_)
    for plane, index, (first_row, first_column) in zip(moved, slices, offsets, strict=True):
        plane[first_row : first_row + rows, first_column : first_column + columns] = mask[index]
    return moved


def _box_around(mask: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _surface(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    middle = (slice(1, -1),) * mask.ndim
    inner = mask.copy()
    for axis in range(mask.ndim):
        for step in (1, -1):
            inner &= np.roll(padded, step, axis)[middle]
    return mask & ~inner


def _distance_to(surface: Mask, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Give each voxel's distance to the nearest one of a surface (Maurer et al., IEEE TPAMI 25, 2003)."""
    image = sitk.GetImageFromArray(surface.astype(np.uint8))
    image.SetSpacing([float(length) for length in reversed(spacing)])
    distances = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    # It is negative within a surface of several voxels, as there are at the image's edge.
    found: NDArray[np.float32] = np.maximum(sitk.GetArrayFromImage(distances), 0)
    return found
