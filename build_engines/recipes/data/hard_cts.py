"""Hard cases made of one CT: what a lung model meets in a hospital, with the same lungs as reference. No PyTorch.

They are made otherwise than the changes of the training (`build_engines.recipes.augmentation.cts`), on the CT's own
grid, always in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from build_engines.recipes.data.sources import LEFT, RIGHT, LabelledCt
from engines.types import Volume

AIR = -1024

Change = Callable[[LabelledCt], LabelledCt]


def consolidation(ct: LabelledCt) -> LabelledCt:
    """Fill the lower back part of both lungs with fluid: 45 % of the right one, 15 % of the left one."""
    values = ct.volume.array.astype(np.float32)
    noise = np.random.default_rng(1).normal(30, 20, values.shape)
    slices, rows, _ = np.ogrid[tuple(slice(length) for length in values.shape)]
    step, across, _ = ct.volume.spacing
    depth = 0.7 * rows * across - slices * step
    for label, part in ((RIGHT, 0.45), (LEFT, 0.15)):
        lung = ct.labels == label
        low = lung & (depth > np.quantile(np.broadcast_to(depth, lung.shape)[lung], 1 - part))
        values[low] = np.maximum(values, noise)[low]
    return _with(ct, values)


def low_dose(ct: LabelledCt) -> LabelledCt:
    """Add noise of 100 HU."""
    noise = np.random.default_rng(2).normal(0, 100, ct.volume.array.shape)
    return _with(ct, ct.volume.array + noise)


def contrast(ct: LabelledCt) -> LabelledCt:
    """Fill heart, great vessels and the lungs' vessels with contrast medium: 250 HU more."""
    values = ct.volume.array.astype(np.float32)
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(values), 1.5))
    lungs = ct.labels > 0
    low, high = (np.array(edge(np.nonzero(lungs), axis=1)) for edge in (np.min, np.max))
    between, length = np.zeros(lungs.shape, np.bool_), high - low
    front, middle = slice(low[1], low[1] + 3 * length[1] // 4), slice(low[2] + length[2] // 4, high[2] - length[2] // 4)
    between[low[0] : high[0], front, middle] = True
    blood = (between & ~lungs & (smooth > 10) & (smooth < 150)) | (lungs & (values > -150))
    return _with(ct, np.where(blood, values + 250, values))


def thick_slices(ct: LabelledCt) -> LabelledCt:
    """Average three slices to one; the reference is that of the middle one."""
    count = len(ct.volume.array) // 3
    grouped = ct.volume.array[: 3 * count].reshape(count, 3, *ct.volume.array.shape[1:])
    affine = ct.volume.affine.copy()
    affine[:3, 3] += affine[:3, 0]
    affine[:3, 0] *= 3
    volume = Volume(grouped.mean(axis=1, dtype=np.float32), affine, ct.volume.sources[1 : 3 * count : 3])
    return replace(ct, volume=volume, labels=ct.labels[1 : 3 * count : 3])


def narrow_field(ct: LabelledCt) -> LabelledCt:
    """Cut off what lies outside of a circle whose diameter is nine tenths of the lungs' width."""
    lungs = ct.labels > 0
    columns, rows = np.flatnonzero(lungs.any(axis=(0, 1))), np.flatnonzero(lungs.any(axis=(0, 2)))
    radius = 0.45 * (columns[-1] - columns[0])
    row, column = np.ogrid[: lungs.shape[1], : lungs.shape[2]]
    seen = np.hypot(row - (rows[0] + rows[-1]) / 2, column - (columns[0] + columns[-1]) / 2) < radius
    return replace(
        _with(ct, np.where(seen, ct.volume.array, AIR)), labels=np.where(seen, ct.labels, 0).astype(np.uint8)
    )


def turned(ct: LabelledCt) -> LabelledCt:
    """Turn the patient by 25° on the couch, as one who cannot lie on the back."""
    middle = [(length - 1) / 2 for length in reversed(ct.labels.shape)]
    turn = sitk.Euler3DTransform(middle, 0.0, 0.0, np.deg2rad(25))

    def resample(array: NDArray[np.generic], how: int, outside: float) -> NDArray[np.generic]:
        image = sitk.GetImageFromArray(array)
        turned: NDArray[np.generic] = sitk.GetArrayFromImage(sitk.Resample(image, turn, how, outside))
        return turned

    values = resample(ct.volume.array, sitk.sitkLinear, AIR)
    labels = resample(ct.labels, sitk.sitkNearestNeighbor, 0)
    return replace(_with(ct, values), labels=labels.astype(np.uint8))


HARD: Mapping[str, Change] = {
    "consolidation": consolidation,
    "low_dose": low_dose,
    "contrast": contrast,
    "thick_slices": thick_slices,
    "narrow_field": narrow_field,
    "turned": turned,
}
"""By the words that a figure's name begins with."""


def _with(ct: LabelledCt, values: NDArray[np.generic]) -> LabelledCt:
    return replace(ct, volume=replace(ct.volume, array=values.astype(np.float32)))
