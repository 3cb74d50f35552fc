"""What a place looks like, in numbers: shape, grey values, gradients, local binary patterns, texture.

Everything works on images of two and of three axes, with values 0–255; distances are voxels. Patterns and texture,
which are defined in the plane, are taken on the planes through the middle and averaged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

Bytes = NDArray[np.uint8]
Features = NDArray[np.float32]

LEVELS = 16
"""Grey levels of the co-occurrence matrix."""


@dataclass(frozen=True, eq=False)
class Place:
    """What lies around the middle of an image ``[(slice,) row, column]``, and how far, in voxels, it is looked at."""

    image: Bytes
    radius: float

    @cached_property
    def offsets(self) -> list[NDArray[np.float32]]:
        """Of each voxel from the middle, along each axis, ready to be broadcast."""
        axes = [np.arange(length, dtype=np.float32) - (length - 1) / 2 for length in self.image.shape]
        return list(np.meshgrid(*axes, indexing="ij", sparse=True))

    @cached_property
    def distance(self) -> NDArray[np.float32]:
        """Of each voxel from the middle."""
        squares: NDArray[np.float32] = sum((offset**2 for offset in self.offsets), start=np.zeros(1, np.float32))
        return np.sqrt(squares)

    @cached_property
    def core(self) -> NDArray[np.bool_]:
        """The ball about the middle."""
        return self.distance <= self.radius

    @cached_property
    def shell(self) -> NDArray[np.bool_]:
        """What lies around the ball, half its radius thick."""
        return (self.distance > self.radius) & (self.distance <= 1.5 * self.radius + 1)

    @cached_property
    def planes(self) -> list[Bytes]:
        """The planes through the middle as far as the shell reaches; of an image of two axes the one plane."""
        near = middle_of(self.image, 1.5 * self.radius + 2)
        if near.ndim == 2:
            return [near]
        return [np.ascontiguousarray(near.take(near.shape[axis] // 2, axis)) for axis in range(3)]


def middle_of(image: Bytes, reach: float) -> Bytes:
    """Cut an image to its middle, ``reach`` voxels to each side; the middle stays where it is."""
    cuts = [max(0, int((length - 1) / 2 - reach)) for length in image.shape]
    return image[tuple(slice(cut, length - cut) for cut, length in zip(cuts, image.shape, strict=True))]


def statistics(place: Place) -> list[float]:
    """Describe the grey values in the core and in the shell."""
    core, shell = (place.image[zone].astype(np.float32) for zone in (place.core, place.shell))
    return [*_moments(core), *_moments(shell), float(core.mean() - shell.mean())]


def gradients(place: Place) -> list[float]:
    """Describe steepness, and how far the gradients point to the middle, as they do all around a nodule.

    The convergence is that of Kobatake and Hashimoto (IEEE Transactions on Image Processing 8, 1999): the mean cosine
    between gradient and direction to the middle; a histogram tells how it is spread.
    """
    slopes = np.gradient(place.image.astype(np.float32))
    inward = -sum((slope * offset for slope, offset in zip(slopes, place.offsets, strict=True)), start=np.zeros(1))
    steepness = np.sqrt(sum((slope**2 for slope in slopes), start=np.zeros(1)))
    found = []
    for zone in (place.core, place.shell):
        steep = steepness[zone]
        cosine = inward[zone] / np.maximum(steep * place.distance[zone], 1e-3)
        share = np.histogram(cosine, bins=4, range=(-1, 1))[0] / cosine.size
        found += [float(steep.mean()), float(steep.var()), float(cosine.mean()), *share.tolist()]
    return found


def patterns(place: Place) -> list[float]:
    """Give the histogram of uniform local binary patterns around the middle (Ojala et al., IEEE TPAMI 24, 2002).

    On three planes through a volume it is LBP-TOP (Zhao and Pietikäinen, IEEE TPAMI 29, 2007).
    """
    found = np.zeros((2, 10))
    for plane in place.planes:
        for index, reach in enumerate((1, 2)):
            codes = local_binary_pattern(plane, 8, reach, "uniform").astype(np.int64)
            found[index] += np.bincount(codes.ravel(), minlength=10) / codes.size / len(place.planes)
    return found.ravel().tolist()


def texture(place: Place) -> list[float]:
    """Give contrast, homogeneity, energy and correlation of neighbours (Haralick et al., IEEE TSMC 3, 1973)."""
    found = np.zeros((2, 4))
    for plane in place.planes:
        matrix = graycomatrix(plane // (256 // LEVELS), [1, 2], [0, np.pi / 2], LEVELS, symmetric=True, normed=True)
        for column, name in enumerate(("contrast", "homogeneity", "energy", "correlation")):
            found[:, column] += graycoprops(matrix, name).mean(axis=1) / len(place.planes)
    return found.ravel().tolist()


def shape(place: Place) -> list[float]:
    """Describe what is bright and connected about the middle: size, roundness, lengths of its axes, where it leads to.

    Bright is what lies above the middle between the brightest value of the core and the median around it; what leads
    out of a ball of twice the radius is a vessel or the chest wall.
    """
    image, radius, distance = place.image, place.radius, place.distance
    ball = distance <= 2 * radius + 1
    edge = ball & (distance > 2 * radius)
    peak, around = float(np.percentile(image[distance <= max(1.5, radius / 2)], 90)), float(np.median(image[ball]))
    labels, _ = ndimage.label((image > (peak + around) / 2) & ball)
    away = np.where(labels > 0, distance, np.float32(2 * radius))
    region = labels == labels.flat[np.argmin(away)] if labels.any() else distance <= 1
    places = np.argwhere(region)
    # a voxel has an extent of its own, or a single one would have no axes
    axes = np.sqrt(np.linalg.eigvalsh(np.cov(places.T, bias=True) + np.eye(image.ndim) / 12))
    surface = sum(int((np.diff(np.pad(region, 1).view(np.int8), axis=axis) != 0).sum()) for axis in range(image.ndim))
    # the ball or disk of that volume, and how many faces of voxels it would have
    if image.ndim == 3:
        equal = (len(places) * 3 / (4 * np.pi)) ** (1 / 3)
        faces = 6 * np.pi * equal**2
    else:
        equal = (len(places) / np.pi) ** (1 / 2)
        faces = 8 * equal
    return [
        equal,
        equal / radius,
        faces / surface,
        float(axes[0] / axes[-1]),
        float(axes[1] / axes[-1]),
        float((region & edge).sum() / max(1, edge.sum())),
        float(away.min()),
        peak - around,
        float(len(places) / np.prod(np.ptp(places, axis=0) + 1)),
    ]


GROUPS: Mapping[str, Callable[[Place], list[float]]] = {
    "shape": shape,
    "statistics": statistics,
    "gradient": gradients,
    "lbp": patterns,
    "texture": texture,
}
"""Kinds of features, by name."""


def describe(image: Bytes, radius: float) -> dict[str, Features]:
    """Give all features of what lies in the middle of an image, by group.

    Parameters
    ----------
    image
        ``[(slice,) row, column]``, 0–255; the middle of an even axis lies between two voxels.
    radius
        Of what is looked at, in voxels; taken for 2 if it is less.
    """
    radius = max(2.0, radius)
    place = Place(middle_of(image, 2 * radius + 2), radius)
    return {name: np.array(group(place), np.float32) for name, group in GROUPS.items()}


def _moments(values: NDArray[np.float32]) -> list[float]:
    mean, deviation = float(values.mean()), float(values.std())
    normal = (values - mean) / max(deviation, 1e-3)
    quantiles = np.percentile(values, [5, 50, 95]).tolist()
    return [mean, deviation**2, float((normal**3).mean()), float((normal**4).mean()), *quantiles]
