"""Nodules on slices: three neighbouring slices of 64 mm, cut from LIDC-IDRI patches and from chests with implants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes.augmentation import primitives
from build_engines.recipes.augmentation.primitives import Random, chance
from build_engines.recipes.data.implant import implant
from build_engines.recipes.data.nodules import LIDC_WINDOW, NodulePatch, read_lidc
from build_engines.recipes.data.sources import LabelledCt, read_chests
from evaluation.cases import Lesion

SIZE = 64
"""Of a tile, in pixels of 1 mm."""

APART_MM = 2.0
"""Between the three slices of a tile, which are its channels."""

SMALLEST = 2.0
"""Sides of a box of fewer pixels are none to learn or to find: the slice only grazes the nodule."""


@dataclass(frozen=True, eq=False)
class Nodule:
    """A nodule in a scan: its middle ``[3]`` in voxels, its diameter in mm, and which one of LIDC-IDRI it is."""

    centre: NDArray[np.float64]
    diameter_mm: float
    patient: str


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT with all of its nodules: ``[slice, row, column]``.

    Attributes
    ----------
    image
        In HU.
    labels
        0, or the number of the nodule from 1.
    step
        Millimetres from voxel to voxel along each axis.
    places
        Indices of voxels where there may be a tile without nodules, ``[n, 3]``.
    """

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    step: NDArray[np.float64]
    nodules: tuple[Nodule, ...]
    places: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tile:
    """Three slices ``[3, 64, 64]`` in 0–1, and the boxes and diameters of the nodules that the middle one cuts.

    ``boxes`` are ``[n, 4]``: low row, low column, high row, high column in pixels, 0 the outer edge; ``diameters_mm``
    are those of the balls of the nodules' volume, not of what the slice shows.
    """

    image: Tensor
    boxes: Tensor
    diameters_mm: tuple[float, ...]
    patients: tuple[str, ...]


def of_patch(patch: NodulePatch) -> Scan:
    """Take a LIDC-IDRI patch as a scan of its own."""
    middle = np.argwhere(patch.mask).mean(axis=0)
    away = np.abs(np.indices(patch.mask.shape) - middle[:, None, None, None])
    # Slices above and below the nodule, and the corners beside it.
    free = (away[0] > patch.diameter_mm / 2 + 6) & (np.maximum(away[1], away[2]) < 12)
    return Scan(
        image=np.round(patch.image).astype(np.int16),
        labels=patch.mask.astype(np.uint8),
        step=np.ones(3),
        nodules=(Nodule(middle, patch.diameter_mm, patch.name),),
        places=np.argwhere(free),
    )


def with_implants(ct: LabelledCt, patches: Sequence[NodulePatch], random: Random) -> Scan:
    """Put nodules into a chest; each is drawn as the ellipsoid in its box."""
    volume, lesions = implant(ct, patches, random)
    step = np.array(ct.volume.spacing)
    patient_of = {patch.diameter_mm: patch.name for patch in patches}
    labels = np.zeros(ct.labels.shape, np.uint8)
    nodules = []
    to_voxel = np.linalg.inv(volume.affine)
    for number, lesion in enumerate(lesions, start=1):
        corners = np.sort([_voxel(to_voxel, lesion.low), _voxel(to_voxel, lesion.high)], axis=0)
        centre, radii = corners.mean(axis=0), (corners[1] - corners[0]) / 2
        _draw(labels, centre, radii, number)
        assert lesion.diameter_mm is not None
        nodules.append(Nodule(centre, lesion.diameter_mm, patient_of[lesion.diameter_mm]))
    lungs = np.argwhere(ct.labels > 0)
    return Scan(
        np.round(volume.array).astype(np.int16), labels, step, tuple(nodules), lungs[:: max(1, len(lungs) // 20_000)]
    )


def read_scans(data: Path, held_out: bool, draws: int, seed: int) -> tuple[tuple[Scan, ...], tuple[Scan, ...]]:
    """Read the scans that are trained on, or those that are held out.

    Parameters
    ----------
    data
        Folder of the data.
    held_out
        Whether the held-out patches and the held-out chest.
    draws
        How often nodules are put into each chest.
    seed
        Of the places that they are put to.

    Returns
    -------
    tuple
        LIDC-IDRI patches, and chests with implants.
    """
    patches = read_lidc(data, held_out)
    random = np.random.default_rng(seed)
    chests = []
    for chest in read_chests(data, held_out):
        for _ in range(draws):
            order = random.permutation(len(patches))[:20]
            chests.append(with_implants(chest, [patches[index] for index in order], random))
    return tuple(of_patch(patch) for patch in patches), tuple(chests)


def cut(scan: Scan, centre: NDArray[np.float64], linear: NDArray[np.float64]) -> Tile:
    """Cut a tile out of a scan.

    Parameters
    ----------
    scan
        Outside of it is air.
    centre
        Of the tile's middle slice, in voxels of the scan.
    linear
        From millimetres along the tile's axes to those along the scan's, ``[3, 3]``.
    """
    shape = (3, SIZE, SIZE)
    to_scan = np.diag(1 / scan.step) @ linear @ np.diag([APART_MM, 1.0, 1.0])
    matrix = primitives.about_centre(to_scan, centre, shape)
    # Only the part of the scan that the tile can see.
    reach = np.abs(to_scan) @ (np.array(shape) / 2) + 2
    start = np.clip(np.floor(centre - reach).astype(int), 0, np.array(scan.image.shape) - 1)
    stop = np.clip(np.ceil(centre + reach).astype(int), start + 1, scan.image.shape)
    seen = tuple(slice(first, last) for first, last in zip(start.tolist(), stop.tolist(), strict=True))
    matrix[:3, 3] -= start
    low, high = LIDC_WINDOW
    image = torch.from_numpy((scan.image[seen].astype(np.float32) - low) / (high - low))[None].clamp(0, 1)
    tile = primitives.sample(image, shape, matrix, "bilinear")[0]
    labels = primitives.sample(torch.from_numpy(scan.labels[seen].astype(np.float32))[None], shape, matrix, "nearest")
    return _tile(tile, labels[0, 1].numpy(), scan)


def draw(patches: Sequence[Scan], chests: Sequence[Scan], random: Random) -> Tile:
    """Draw a training tile: half of them of patches, most with a nodule; turned, mirrored, scaled, of another dose."""
    scans = patches if chance(random, 0.5) else chests
    scan = scans[int(random.integers(len(scans)))]
    linear = primitives.rotation(np.array([random.uniform(-np.pi, np.pi), 0, 0]))
    linear = linear @ np.diag(random.choice([-1.0, 1.0], 3)) * random.uniform(0.8, 1.25)
    tile = cut(scan, somewhere(scan, random, nodule=chance(random, 0.7)), linear)
    image = tile.image[None] * random.uniform(0.9, 1.1) + random.uniform(-0.04, 0.04)
    if chance(random, 0.5):
        image = primitives.texture(random, image, noise=0.05)
    return Tile(image[0].clamp(0, 1), tile.boxes, tile.diameters_mm, tile.patients)


def somewhere(scan: Scan, random: Random, nodule: bool) -> NDArray[np.float64]:
    """Choose the middle of a tile that cuts a nodule near its middle, or that need not cut any."""
    if not nodule and len(scan.places):
        return scan.places[random.integers(len(scan.places))].astype(np.float64)
    chosen = scan.nodules[random.integers(len(scan.nodules))]
    return beside(scan, chosen, random)


def beside(scan: Scan, nodule: Nodule, random: Random) -> NDArray[np.float64]:
    """Choose the middle of a tile that cuts this nodule near its middle, and has it anywhere."""
    # A patch ends 25 mm from its nodule: farther off, most of the tile would be empty.
    far = 12.0 if scan.image.shape[0] < SIZE else 22.0
    away = np.array([random.uniform(-0.25, 0.25) * nodule.diameter_mm, *random.uniform(-far, far, 2)])
    return nodule.centre + away / scan.step


def lesions_of(tile: Tile) -> tuple[Lesion, ...]:
    """Give the nodules of a tile as what should be found, in pixels, which are millimetres."""
    return tuple(
        Lesion((box[0], box[1]), (box[2], box[3]), diameter)
        for box, diameter in zip(tile.boxes.tolist(), tile.diameters_mm, strict=True)
    )


def _tile(image: Tensor, labels: NDArray[np.float32], scan: Scan) -> Tile:
    boxes, diameters, patients = [], [], []
    for number in np.unique(labels[labels > 0]).astype(int).tolist():
        where = np.argwhere(labels == number)
        low, high = where.min(axis=0), where.max(axis=0) + 1
        if (high - low).min() >= SMALLEST:
            boxes.append([*low, *high])
            diameters.append(scan.nodules[number - 1].diameter_mm)
            patients.append(scan.nodules[number - 1].patient)
    return Tile(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), tuple(diameters), tuple(patients))


def _draw(labels: NDArray[np.uint8], centre: NDArray[np.float64], radii: NDArray[np.float64], number: int) -> None:
    start, stop = np.floor(centre - radii).astype(int), np.ceil(centre + radii).astype(int) + 1
    box = tuple(slice(max(0, first), last) for first, last in zip(start.tolist(), stop.tolist(), strict=True))
    axes = np.ogrid[box]
    square = sum(((axis - middle) / radius) ** 2 for axis, middle, radius in zip(axes, centre, radii, strict=True))
    labels[box][np.asarray(square) <= 1] = number


def _voxel(to_voxel: NDArray[np.floating[Any]], place: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(to_voxel[:3, :3] @ np.asarray(place) + to_voxel[:3, 3])
