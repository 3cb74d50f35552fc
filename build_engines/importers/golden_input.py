"""An input for ``golden.npz``: an image that somebody names, or a synthetic one of the model's kind."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydantic import ValidationError

from build_engines.importers.draft import TENSOR, Draft
from build_engines.recipes.data import phantom
from engines.errors import ModelPackageError, PermanentError
from engines.inference.preprocessing import DIRECTIONS, fit, percentile_window, resample_to_grid, scale
from engines.packages.description import Description, RadiographInput, VolumeInput
from engines.types import Affine, Volume

Array = NDArray[np.float32]

SITK_ORDER = (2, 1, 0)

CHEST_MM = (300.0, 260.0, 380.0)
"""From the feet to the head, front to back, right to left: what holds the synthetic chest."""

NOISE_HU = 15.0
"""So that no part of the golden input is flat, which would hide much of what an engine can get wrong."""


def golden_input(draft: Draft, image: Path | None = None) -> Array:
    """Make the golden input, as the model would see it.

    Parameters
    ----------
    image
        Any file that SimpleITK reads, or a folder with one DICOM series; it becomes part of the package, so it must
        not be a patient's. A synthetic chest if None.

    Returns
    -------
    Array
        ``[1, channel, …grid]``, with values that FP16 holds exactly.
    """
    keys = {"tensor": TENSOR, **draft.input}
    try:
        described = VolumeInput.model_validate(keys) if draft.is_volume else RadiographInput.model_validate(keys)
    except ValidationError as error:
        raise ModelPackageError(f"what is known of the input is wrong: {Description.explain(error)}") from error
    if isinstance(described, VolumeInput):
        volume = _chest(described) if image is None else _read_volume(image)
        grid, _ = resample_to_grid(volume, described.spacing_mm, described.axes)
        values = _fitted(np.clip(grid, *described.window), described.patch, described.window[0])
        tensor = scale(described, values, *described.window)
    else:
        array = phantom.radiograph((320, 384)) if image is None else _read_radiograph(image)
        fitted, _ = fit(percentile_window(array, *described.percentiles), described.size, resize=described.resize)
        tensor = scale(described, fitted, 0.0, 1.0)
    halves = np.clip(tensor, np.finfo(np.float16).min, np.finfo(np.float16).max).astype(np.float16)
    return np.ascontiguousarray(halves[None].astype(np.float32))


def _chest(described: VolumeInput) -> Volume:
    """A synthetic chest that fills the patch, whichever way its axes point: small patches see it smaller."""
    columns = np.array([DIRECTIONS[letter] for letter in described.axes]).T
    lengths = np.abs(columns @ np.array(described.patch))[::-1].astype(int)
    spacing = np.abs(columns @ np.array(described.spacing_mm))[::-1]
    drawn = np.maximum(spacing, np.array(CHEST_MM) / lengths)
    shape = (int(lengths[0]), int(lengths[1]), int(lengths[2]))
    array = phantom.chest(shape, (float(drawn[0]), float(drawn[1]), float(drawn[2])))
    array += np.random.default_rng(0).normal(0, NOISE_HU, shape).astype(np.float32)
    affine: Affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.eye(3)) * spacing
    return Volume(array, affine, tuple(str(number) for number in range(shape[0])))


def _read(image: Path) -> Any:
    try:
        if image.is_dir():
            reader = sitk.ImageSeriesReader()
            if not reader.GetGDCMSeriesIDs(str(image)):
                raise PermanentError(f"{image} holds no DICOM series itself; name the folder that has its files")
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(image)))
            return reader.Execute()
        return sitk.ReadImage(str(image))
    except RuntimeError as error:
        raise PermanentError(f"{image} cannot be read as an image: {str(error).strip().splitlines()[-1]}") from error


def _read_volume(image: Path) -> Volume:
    read = _read(image)
    if read.GetDimension() != 3:
        raise PermanentError(f"{image} has {read.GetDimension()} dimensions, the model takes volumes; name a CT series")
    affine: Affine = np.eye(4)
    directions = np.array(read.GetDirection()).reshape(3, 3) * np.array(read.GetSpacing())
    affine[:3, :3] = directions[:, SITK_ORDER]
    affine[:3, 3] = read.GetOrigin()
    array = sitk.GetArrayFromImage(sitk.Cast(read, sitk.sitkFloat32))
    return Volume(array, affine, tuple(str(number) for number in range(len(array))))


def _read_radiograph(image: Path) -> Array:
    array = sitk.GetArrayFromImage(_read(image)).astype(np.float32).squeeze()
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        array = array[..., :3].mean(axis=-1)
    if array.ndim != 2:
        raise PermanentError(f"{image} has shape {list(array.shape)}, the model takes X-rays; name one image")
    grey: Array = array
    return grey


def _fitted(values: Array, patch: tuple[int, ...], fill: float) -> Array:
    """Cut the middle of a volume out, or pad it, to a patch."""
    fitted = np.full(patch, fill, np.float32)
    here, there = [], []
    for length, size in zip(values.shape, patch, strict=True):
        common = min(length, size)
        here.append(slice((length - common) // 2, (length - common) // 2 + common))
        there.append(slice((size - common) // 2, (size - common) // 2 + common))
    fitted[tuple(there)] = values[tuple(here)]
    return fitted
