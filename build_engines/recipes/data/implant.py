"""Real nodules put into other lungs: CT whose nodules are all known, where there are none that were read whole.

Each nodule of LIDC-IDRI is cut out softly along its outline, mirrored and turned, made as coarse as the CT, and put
into its lungs (Pezeshk et al., Seamless lesion insertion for data augmentation in CAD training, IEEE Transactions on
Medical Imaging 36, 2017, do it for the same reason). Needs no PyTorch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from build_engines.recipes.data.nodules import NodulePatch
from build_engines.recipes.data.sources import LabelledCt
from engines.inference.preprocessing import Array, resample
from engines.types import Affine, Volume
from evaluation.cases import Lesion

TRIES = 50
"""Places that are tried for a nodule before it is left out."""

WITHIN = 0.95
"""Least part of a nodule that has to lie in the lungs; the rest is not drawn."""

AIRY = -600.0
"""Largest mean HU of the place that a nodule is put to: it is to be seen, not to be lost in a vessel or a tumour."""

APART_MM = 6.0
"""Least distance between the surfaces of two nodules, taken as balls."""

SOFT_EDGE = 4.0
"""In mm: how far the soft edge of a nodule may reach."""

AROUND = 8
"""Voxels that are taken along around a nodule, so that smoothing sees no edge."""

FULL_WIDTH = 2.355
"""Full width at half maximum of a Gaussian, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Cutting:
    """A nodule that is turned and as coarse as a CT: images of 1 mm a voxel, slices to the head, rows to the posterior.

    ``values`` are in HU, ``weight`` says how much they count (0–1, soft-edged), ``mask`` is 1 in the nodule, ``low``
    and ``high`` are the first and last index of it, ``[3]``.
    """

    values: sitk.Image
    weight: sitk.Image
    mask: sitk.Image
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Piece:
    """A nodule on the grid of a CT: its box of voxels, and there its values in HU, what they count, and its outline."""

    box: tuple[slice, ...]
    values: Array
    weight: Array
    mask: NDArray[np.bool_]


def implant(
    ct: LabelledCt, nodules: Iterable[NodulePatch], random: np.random.Generator
) -> tuple[Volume, tuple[Lesion, ...]]:
    """Put nodules into the lungs of a CT, at random places and in random directions; they do not touch each other.

    Parameters
    ----------
    ct
        In HU, with slices along z; a label above 0 is lung.
    nodules
        Each is put in once. One that finds no place in `TRIES` tries is left out.
    random
        The same state gives the same CT.

    Returns
    -------
    volume
        Float32, in HU, on the grid of the CT.
    lesions
        Of each nodule that was put in: the box around its voxels in LPS mm, and the diameter of the ball of its volume.
    """
    image, affine = ct.volume.array.astype(np.float32), ct.volume.affine
    lungs = ct.labels > 0
    voxels = np.flatnonzero(lungs)
    lesions: list[Lesion] = []
    for nodule in nodules if len(voxels) else ():
        cut = _cut_out(nodule, ct.volume.spacing, random)
        for _ in range(TRIES):
            voxel = np.array(np.unravel_index(voxels[random.integers(len(voxels))], lungs.shape))
            centre = affine[:3, :3] @ (voxel + random.uniform(-0.5, 0.5, 3)) + affine[:3, 3]
            if not _is_apart(centre, nodule.diameter_mm, lesions):
                continue
            piece = _on_grid(cut, ct.volume, centre)
            if piece is None or not _fits(piece, image, lungs):
                continue
            image[piece.box] += piece.weight * lungs[piece.box] * (piece.values - image[piece.box])
            lesions.append(_lesion(piece, affine, nodule.diameter_mm))
            break
    return Volume(image, affine, ct.volume.sources), tuple(lesions)


def _cut_out(nodule: NodulePatch, spacing: Sequence[float], random: np.random.Generator) -> Cutting:
    """Turn a nodule by right angles and mirror it, which needs no interpolation, and smooth it as the CT is."""
    axes = tuple(random.permutation(3).tolist())
    flips = tuple(np.flatnonzero(random.random(3) < 0.5).tolist())
    near = np.argwhere(nodule.mask)
    box = tuple(
        slice(max(0, first - AROUND), last + AROUND + 1)
        for first, last in zip(near.min(axis=0).tolist(), near.max(axis=0).tolist(), strict=True)
    )
    values, mask = (np.flip(each[box].transpose(axes), flips) for each in (nodule.image, nodule.mask))
    # Standard deviations, x first, that make voxels of 1 mm as coarse as those of the CT, and never hard-edged.
    sigma = [max(0.6, float(np.sqrt(max(0.0, step**2 - 1))) / FULL_WIDTH) for step in reversed(spacing)]
    inside = sitk.GetImageFromArray(mask.astype(np.uint8))

    def smooth(image: sitk.Image) -> sitk.Image:
        return sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), sigma)

    where = np.argwhere(mask)
    return Cutting(
        values=smooth(sitk.GetImageFromArray(np.ascontiguousarray(values))),
        # One voxel more on each side: the soft edge is then the nodule's own.
        weight=smooth(sitk.BinaryDilate(inside, [1, 1, 1])),
        mask=smooth(inside),
        low=where.min(axis=0).astype(np.float64),
        high=where.max(axis=0).astype(np.float64),
    )


def _on_grid(cut: Cutting, volume: Volume, centre: NDArray[np.float64]) -> Piece | None:
    """Bring a nodule with its middle at ``centre`` (LPS mm) to the grid of a volume; None if it reaches beyond it."""
    to_patient = np.eye(4)
    to_patient[:3, :3] = np.eye(3)[::-1]
    to_patient[:3, 3] = centre - to_patient[:3, :3] @ ((cut.low + cut.high) / 2)
    to_volume = np.linalg.inv(volume.affine) @ to_patient
    corners = np.array([cut.low - SOFT_EDGE, cut.high + SOFT_EDGE]) @ to_volume[:3, :3].T + to_volume[:3, 3]
    start, stop = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    if (start < 0).any() or (stop > volume.array.shape).any():
        return None
    shape, to_nodule = tuple((stop - start).tolist()), np.linalg.inv(to_volume)
    to_nodule[:3, 3] += to_nodule[:3, :3] @ start
    weight = np.clip(resample(cut.weight, shape, to_nodule, 0.0), 0, 1)
    mask = resample(cut.mask, shape, to_nodule, 0.0)
    return Piece(
        box=tuple(slice(int(first), int(last)) for first, last in zip(start, stop, strict=True)),
        values=resample(cut.values, shape, to_nodule, -1000.0),
        weight=weight,
        # A small nodule between two thick slices fills no voxel by half.
        mask=mask >= min(0.5, float(mask.max())),
    )


def _is_apart(centre: NDArray[np.float64], diameter_mm: float, lesions: Sequence[Lesion]) -> bool:
    return all(
        np.linalg.norm(centre - np.array(other.centre)) > (diameter_mm + (other.diameter_mm or 0)) / 2 + APART_MM
        for other in lesions
    )


def _fits(piece: Piece, image: Array, lungs: NDArray[np.bool_]) -> bool:
    there = piece.mask
    return bool(lungs[piece.box][there].mean() >= WITHIN and image[piece.box][there].mean() <= AIRY)


def _lesion(piece: Piece, affine: Affine, diameter_mm: float) -> Lesion:
    where = np.argwhere(piece.mask) + [axis.start for axis in piece.box]
    edges = np.array([where.min(axis=0) - 0.5, where.max(axis=0) + 0.5]) @ affine[:3, :3].T + affine[:3, 3]
    return Lesion(tuple(edges.min(axis=0).tolist()), tuple(edges.max(axis=0).tolist()), diameter_mm)
