"""Where a nodule might be: bright blobs of several sizes that look the same from all sides."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from build_engines.recipes.ladder.cad.preprocessing import SPACING_MM, Lungs, contrast
from engines.inference.preprocessing import Array

SIGMAS_MM = (1.5, 2.1, 3.0, 4.2, 6.0, 8.5)
"""Scales of the search. The Laplacian answers a ball best whose diameter is `DIAMETER` times this: 5 to 29 mm."""

DIAMETER = 2 * np.sqrt(3)

LEAST_RESPONSE = 0.004
"""Of the dot filter; a ball of soft tissue in lung answers with about 0.2, ground glass with a tenth."""

MOST = 1200
"""Candidates of a scan, the strongest first."""

LUNG_HU = -850.0

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place that looks like a nodule.

    Attributes
    ----------
    centre
        Index on the grid of `Lungs`.
    sigma_mm
        The scale at which it stands out.
    response
        Of the dot filter.
    eigenvalues
        Of the Hessian there, times ``sigma`` squared: smallest, that is steepest, first.
    """

    centre: tuple[int, int, int]
    sigma_mm: float
    response: float
    eigenvalues: tuple[float, float, float]

    @property
    def diameter_mm(self) -> float:
        """Of the ball that this scale fits best."""
        return float(DIAMETER * self.sigma_mm)


def find(lungs: Lungs) -> tuple[Candidate, ...]:
    """Find bright blobs in the lungs, the strongest first.

    The maxima of the scale-normalised Laplacian of Gaussian in place and scale (Lindeberg, IJCV 30, 1998) are blobs;
    of these, those stay that the dot filter of Li, Sone and Doi (Medical Physics 30, 2003) answers, which a vessel or a
    fissure does not pass. Around the lungs everything is taken for lung, so that the chest wall does not outshine a
    nodule at it.
    """
    image = np.where(lungs.inside, lungs.image, contrast(np.array(LUNG_HU, np.float32)))
    found: list[Candidate] = []
    for sigma in SIGMAS_MM:
        found += _at_scale(image, lungs.inside, sigma)
    return apart(sorted(found, key=lambda candidate: -candidate.response))[:MOST]


def apart(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Drop what lies within half the diameter of a stronger candidate; the strongest come first."""
    kept: list[Candidate] = []
    centres, reaches = np.empty((len(candidates), 3)), np.empty(len(candidates))
    for candidate in candidates:
        count = len(kept)
        distances = np.linalg.norm(centres[:count] - candidate.centre, axis=1) * SPACING_MM
        reach = candidate.diameter_mm / 2
        if not (distances < np.maximum(reaches[:count], min(reach, 4.0))).any():
            centres[count], reaches[count] = candidate.centre, reach
            kept.append(candidate)
    return tuple(kept)


def dot(eigenvalues: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Give Li's dot filter of Hessian eigenvalues ``[..., 3]``, growing: λ₃² / |λ₁| where all are negative, else 0.

    Li orders by magnitude: λ₁ is the steepest, λ₃ the flattest direction.
    """
    steepest, flattest = eigenvalues[..., 0], eigenvalues[..., 2]
    bright = flattest < 0
    return np.where(bright, flattest**2 / np.where(bright, -steepest, 1), 0)


def hessian_at(image: Array, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the matrices of second differences at some voxels ``[n, 3]``, none at the edge: ``[n, 3, 3]``."""

    def value(*step: int) -> NDArray[np.float64]:
        return image[tuple((places + step).T)].astype(np.float64)

    unit = np.eye(3, dtype=int)
    hessian = np.empty((len(places), 3, 3))
    for first in range(3):
        hessian[:, first, first] = value(*unit[first]) - 2 * value(0, 0, 0) + value(*-unit[first])
        for second in range(first):
            along, across = unit[first] + unit[second], unit[first] - unit[second]
            mixed = (value(*along) + value(*-along) - value(*across) - value(*-across)) / 4
            hessian[:, first, second] = hessian[:, second, first] = mixed
    return hessian


def _at_scale(image: Array, inside: NDArray[np.bool_], sigma_mm: float) -> list[Candidate]:
    # Coarse scales are searched on a coarser grid: as good, and eight times as fast.
    step = 2 if sigma_mm >= 2 * SPACING_MM else 1
    if step == 2:
        image, inside = halved(image), inside[::2, ::2, ::2]
    sigma = sigma_mm / (SPACING_MM * step)
    # Averaging over blocks has blurred the coarser grid a little already.
    blurred = ndimage.gaussian_filter(
        image, np.sqrt(sigma**2 - (step**2 - 1) / 12 / step**2), truncate=3, mode="nearest"
    )
    blobs = -ndimage.laplace(blurred)
    top = (ndimage.maximum_filter(blobs, 3) == blobs) & inside & (blobs > 0)
    for axis in range(3):
        np.moveaxis(top, axis, 0)[[0, -1]] = False
    places = np.argwhere(top)
    eigenvalues = np.linalg.eigvalsh(hessian_at(blurred, places)) * sigma**2
    responses = dot(eigenvalues)
    offset = (step - 1) / 2
    return [
        Candidate(
            centre=_three(round(index * step + offset) for index in place.tolist()),
            sigma_mm=sigma_mm,
            response=float(response),
            eigenvalues=_three(values.tolist()),
        )
        for place, response, values in zip(places, responses, eigenvalues, strict=True)
        if response >= LEAST_RESPONSE
    ]


def _three(values: Iterable[T]) -> tuple[T, T, T]:
    first, second, third = values
    return first, second, third


def halved(image: Array) -> Array:
    """Average over blocks of 2 × 2 × 2 voxels; an odd voxel at the end is repeated."""
    even = np.pad(image, [(0, length % 2) for length in image.shape], mode="edge")
    slices, rows, columns = (length // 2 for length in even.shape)
    return even.reshape(slices, 2, rows, 2, columns, 2).mean(axis=(1, 3, 5))
