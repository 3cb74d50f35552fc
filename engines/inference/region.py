"""The part of a volume that a model looks at: what another model has outlined, and a margin around it."""

import numpy as np
from numpy.typing import NDArray

from engines.errors import PermanentError
from engines.inference.detection import Holds, Points
from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage
from engines.types import LabelMap, Volume


def cropped(package: ModelPackage, wanted: VolumeInput, volume: Volume, region: LabelMap | None) -> Volume:
    """Crop a volume to the segments of the model that ``input.crop_to`` names, and ``crop_margin_mm`` around them.

    Parameters
    ----------
    package, wanted
        The model, and its ``[input]``.
    volume
        In any orientation; the box lies along its own axes.
    region
        The other model's label map on the same volume.

    Returns
    -------
    Volume
        A view of the same voxels, at the same places in the patient; the volume itself where the model needs no crop.

    Raises
    ------
    PermanentError
        The label map is missing or empty.
    """
    if wanted.crop_to is None:
        return volume
    labels = _labels(package, wanted, volume, region)
    margin = np.ceil(wanted.crop_margin_mm / np.array(volume.spacing)).astype(int)
    box = []
    for axis, length in enumerate(labels.shape):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(labels.any(axis=others))
        if not found.size:
            raise PermanentError(
                f"{wanted.crop_to} found nothing in the series that {package.name} could be cropped to; look at it"
            )
        places = np.arange(length) if axis or volume.at is None else np.asarray(volume.at)
        labels = labels[tuple(slice(None) if other != axis else slice(found[0], found[-1] + 1) for other in range(3))]
        near = (places >= places[found[0]] - margin[axis]) & (places <= places[found[-1]] + margin[axis])
        kept = np.flatnonzero(near)
        box.append(slice(int(kept[0]), int(kept[-1]) + 1))
    slices, rows, columns = box
    start = float(slices.start if volume.at is None else volume.at[slices.start])
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([start, rows.start, columns.start])
    return Volume(
        volume.array[slices, rows, columns],
        affine,
        volume.sources[slices],
        volume.unit,
        volume.at and tuple(place - start for place in volume.at[slices]),
        volume.frames and volume.frames[slices],
    )


def near_segments(volume: Volume, region: LabelMap, within_mm: float) -> Holds:
    """Tell which points in LPS mm lie in a voxel of a label map's segments, or at most so far from its middle.

    A point is compared with the voxels around it only, so that a few hundred take no time in any volume.
    """
    places = np.arange(len(volume.array)) if volume.at is None else np.asarray(volume.at)
    to_index = np.linalg.inv(volume.affine)
    # A voxel that is cut by a sphere reaches further along a sheared axis than its spacing says.
    reach = within_mm * np.linalg.norm(to_index[:3, :3], axis=1) + 0.5

    def holds(points: Points) -> NDArray[np.bool_]:
        return np.array([_is_near(point) for point in points], np.bool_).reshape(len(points))

    def _is_near(point: NDArray[np.float64]) -> bool:
        index = to_index[:3, :3] @ point + to_index[:3, 3]
        axes = (places, np.arange(region.array.shape[1]), np.arange(region.array.shape[2]))
        box = [
            slice(*np.searchsorted(axis, (middle - far, middle + far)).tolist())
            for axis, middle, far in zip(axes, index, reach, strict=True)
        ]
        inside = np.argwhere(region.array[tuple(box)])
        if not len(inside):
            return False
        where = np.stack([axis[part][each] for axis, part, each in zip(axes, box, inside.T, strict=True)], axis=1)
        away = np.linalg.norm((where - index) @ volume.affine[:3, :3].T, axis=1)
        return bool((np.abs(where - index) <= 0.5).all(axis=1).any() or (away <= within_mm).any())

    return holds


def _labels(package: ModelPackage, wanted: VolumeInput, volume: Volume, region: LabelMap | None) -> NDArray[np.uint8]:
    if region is None or region.array.shape != volume.array.shape:
        raise PermanentError(f"{package.name} needs the label map of {wanted.crop_to} on the same series; run it first")
    return region.array
