"""What comes before the search: one size of voxel, less noise, one contrast."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from engines.inference.preprocessing import Array, evenly_spaced, resample_to_grid
from engines.types import Affine, Volume

SPACING_MM = 1.5
"""Of the isotropic grid that everything happens on: a nodule of 5 mm is three voxels wide."""

COARSE_MM = 3.0
"""Of the grid that lungs are outlined on."""

WINDOW = (-1000.0, 200.0)
"""HU that are told apart: lung, ground glass and soft tissue; calcium is as bright as soft tissue."""

AIR_BELOW = -400.0
"""HU; midway between lung and soft tissue, as in most threshold methods (Hu et al., IEEE TMI 20, 2001)."""

BALL_MM = 12.0
"""Radius of the ball that rolls along the lungs from inside (Armato et al., RadioGraphics 19, 1999): what it cannot
reach, nodules at the pleura and vessels, belongs to the lung."""

MARGIN_MM = 6.0
"""Around the lungs."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """The part of a chest that is searched, on a grid along the patient's axes: ``[slice, row, column]``.

    Attributes
    ----------
    image
        0–1 over `WINDOW`, smoothed but for edges.
    inside
        Where the lungs are, with the nodules at their surface.
    affine
        Index to LPS millimetres.
    """

    image: Array
    inside: NDArray[np.bool_]
    affine: Affine


def prepare(volume: Volume, whole: bool = True) -> Lungs:
    """Bring a CT to the grid, find its lungs, cut it to them, and reduce its noise.

    Parameters
    ----------
    volume
        In HU.
    whole
        Whether it is a whole chest with air around it; False for a patch from within one.

    Raises
    ------
    ValueError
        There are no lungs in it.
    """
    volume = evenly_spaced(volume)
    coarse, to_patient = resample_to_grid(volume, (COARSE_MM,) * 3)
    air = coarse < AIR_BELOW
    lungs = aerated(air) if whole else air
    if not lungs.any():
        raise ValueError("no lungs were found: is this a chest CT in HU?")
    part = _around(lungs, round(MARGIN_MM / COARSE_MM))
    lungs, to_patient = closed(lungs[part], BALL_MM / COARSE_MM), _moved(to_patient, part)
    image, affine = resample_to_grid(_cut(volume, lungs.shape, to_patient), (SPACING_MM,) * 3)
    inside = follow(lungs, np.linalg.inv(to_patient) @ affine, image.shape)
    return Lungs(smoothed(contrast(image)), inside, affine)


def contrast(hounsfield: Array) -> Array:
    """Map `WINDOW` to 0–1 and clip."""
    low, high = WINDOW
    return np.clip((hounsfield - low) / (high - low), 0, 1).astype(np.float32)


def smoothed(image: Array) -> Array:
    """Reduce noise by curvature flow, which keeps the edges of nodules (Sethian, Level Set Methods, 1999)."""
    filtered = sitk.GetArrayFromImage(sitk.CurvatureFlow(sitk.GetImageFromArray(image), 0.0625, 3))
    # it overshoots at sharp edges of metal and bone
    return np.clip(filtered, 0, 1)


def aerated(air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell the lungs from the other air of a chest: neither around the patient nor small, such as bowel and airways.

    Air around the patient reaches the edge of the image within its slice. Where the lungs touch, they are one
    component; a component counts that has at least a tenth of the largest.
    """
    labels, _ = ndimage.label(air)
    edge = np.zeros(air.shape, bool)
    edge[:, [0, -1]] = edge[:, :, [0, -1]] = True
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    sizes[np.unique(labels[edge])] = 0
    lungs: NDArray[np.bool_] = (sizes > 0.1 * max(1, sizes.max()))[labels]
    return lungs


def closed(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Close a mask with a ball, of a radius in voxels, as if it went on beyond the edges as it is at them."""
    width = int(np.ceil(radius)) + 1
    padded = np.pad(mask, width, mode="edge")
    if not padded.any() or padded.all():
        return mask
    dilated = ndimage.distance_transform_edt(~padded) <= radius
    eroded: NDArray[np.bool_] = ndimage.distance_transform_edt(np.pad(dilated, 1, mode="edge")) > radius
    return eroded[(slice(width + 1, -width - 1),) * 3] | mask


def follow(mask: NDArray[np.bool_], to_mask: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Sample a mask linearly on a finer grid whose axes point the same way; cut at a half."""
    return (
        ndimage.affine_transform(
            mask.astype(np.float32), np.diag(to_mask[:3, :3]), to_mask[:3, 3], shape, order=1, mode="nearest"
        )
        >= 0.5
    )


def _around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    places = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return tuple(
        slice(max(0, int(place[0]) - margin), min(length, int(place[-1]) + 1 + margin))
        for place, length in zip(places, mask.shape, strict=True)
    )


def _cut(volume: Volume, shape: tuple[int, ...], affine: Affine) -> Volume:
    """Cut a volume to what a grid of this shape and affine covers."""
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    found = (corners @ (np.linalg.inv(volume.affine) @ affine).T)[:, :3]
    low, high = np.floor(found.min(axis=0)).astype(int), np.ceil(found.max(axis=0)).astype(int) + 1
    part = tuple(slice(max(0, int(first)), int(end)) for first, end in zip(low, high, strict=True))
    return Volume(volume.array[part], _moved(volume.affine, part), volume.sources[part[0]], volume.unit)


def _moved(affine: Affine, part: tuple[slice, ...]) -> Affine:
    """Give the affine of a part of an array."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [axis.start for axis in part]
    return moved
