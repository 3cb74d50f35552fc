"""Numbers about the segments of a volume, coded as a measurement report (PS3.16 TID 1419) wants them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.inference.diameters import long_and_short_axis
from engines.packages.package import ModelPackage
from engines.types import Code, Measurement, Volume

# what is measured: CID 7469
VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
LONG_AXIS = Code("103339001", "SCT", "Long Axis")
SHORT_AXIS = Code("103340004", "SCT", "Short Axis")
# of all voxels: CID 7464
MEAN = Code("373098007", "SCT", "Mean")
MINIMUM = Code("255605001", "SCT", "Minimum")
MAXIMUM = Code("56851009", "SCT", "Maximum")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")

MILLILITRE = Code("mL", "UCUM", "mL")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MILLIMETRE = Code("mm", "UCUM", "mm")

CUBIC_MM_PER_ML = 1000.0


def measure(package: ModelPackage, volume: Volume, labels: NDArray[np.uint8]) -> tuple[Measurement, ...]:
    """Measure what the package asks for, of every segment that has a voxel.

    Parameters
    ----------
    package
        Says per segment what to measure.
    volume
        The source image, in Hounsfield units.
    labels
        Segment numbers, shape of the volume's array.

    Returns
    -------
    tuple[Measurement, ...]
        By segment number: volumes in mL; mean, least and largest attenuation and its standard deviation (of all
        voxels, not of a sample) in HU; diameters in mm.
    """
    statistics = _statistics(volume, labels)
    # A voxel is a parallelepiped, also where a gantry tilt shears it: its volume is the determinant.
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / CUBIC_MM_PER_ML
    found: list[Measurement] = []
    section = package.description.segmentation
    for number, entry in enumerate(section.segments if section else (), start=1):
        if not statistics.counts[number]:
            continue
        if "volume" in entry.measurements:
            found.append(Measurement(number, VOLUME, float(statistics.steps[number] * voxel_ml), MILLILITRE))
        for key, derivation, value in statistics.of(number):
            if key in entry.measurements:
                found.append(Measurement(number, ATTENUATION, value, HOUNSFIELD, derivation))
        if "diameter" in entry.measurements:
            axes = long_and_short_axis(labels == number, volume.spacing[1:])
            for concept, axis in zip((LONG_AXIS, SHORT_AXIS), axes, strict=True):
                found.append(Measurement(number, concept, axis.millimetres, MILLIMETRE, points=axis.ends))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Statistics:
    """Of each label, 0 to 255: its voxels, and what their values add up to and lie between.

    ``steps`` are the voxels weighted by how many steps of the affine a slice stands for.
    """

    counts: NDArray[np.int64]
    steps: NDArray[np.float64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    least: NDArray[np.int16] | NDArray[np.float32]
    largest: NDArray[np.int16] | NDArray[np.float32]

    def of(self, number: int) -> Iterator[tuple[str, Code, float]]:
        """Key in ``model.toml``, derivation, and value of a label that has a voxel."""
        mean = float(self.sums[number] / self.counts[number])
        variance = max(float(self.squares[number] / self.counts[number]) - mean**2, 0.0)
        yield "mean_intensity", MEAN, mean
        yield "minimum_intensity", MINIMUM, float(self.least[number])
        yield "maximum_intensity", MAXIMUM, float(self.largest[number])
        yield "intensity_deviation", STANDARD_DEVIATION, variance**0.5


def _statistics(volume: Volume, labels: NDArray[np.uint8]) -> _Statistics:
    """Slice by slice: bincount widens its input eightfold."""
    dtype = volume.array.dtype
    limits = np.iinfo(np.int16) if dtype == np.int16 else np.finfo(np.float32)
    found = _Statistics(
        *(np.zeros(256, np.int64), np.zeros(256), np.zeros(256), np.zeros(256)),
        *(np.full(256, limits.max, dtype), np.full(256, limits.min, dtype)),
    )
    for plane, image, width in zip(labels, volume.array, slice_widths(volume), strict=True):
        inside = plane > 0
        numbers, values = plane[inside], image[inside]
        here = np.bincount(numbers, minlength=256)
        found.counts[:] += here
        found.steps[:] += here * width
        wide = values.astype(np.float64)
        found.sums[:] += np.bincount(numbers, weights=wide, minlength=256)
        found.squares[:] += np.bincount(numbers, weights=wide**2, minlength=256)
        np.minimum.at(found.least, numbers, values)
        np.maximum.at(found.largest, numbers, values)
    return found


def slice_widths(volume: Volume) -> NDArray[np.float64]:
    """Give how many steps of the affine each slice stands for, ``[slice]``: half of the way to each neighbour."""
    if volume.at is None:
        return np.ones(len(volume.array))
    gaps = np.diff(volume.at)
    gaps = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    widths: NDArray[np.float64] = (gaps[:-1] + gaps[1:]) / 2
    return widths
