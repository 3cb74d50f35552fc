"""Numbers about the segments of a volume, coded as a measurement report (PS3.16 TID 1419) wants them."""

import numpy as np
from numpy.typing import NDArray

from engines.package import ModelPackage
from engines.types import Code, Measurement, Volume

VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
MILLILITRE = Code("mL", "UCUM", "mL")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")

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
        By segment number; volumes in mL, mean attenuation in HU.
    """
    counts, sums, steps = _counts_and_sums(volume, labels)
    # A voxel is a parallelepiped, also where a gantry tilt shears it: its volume is the determinant.
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / CUBIC_MM_PER_ML
    found: list[Measurement] = []
    for number, entry in enumerate(package.description.output.segments, start=1):
        if not counts[number]:
            continue
        if "volume" in entry.measurements:
            found.append(Measurement(number, VOLUME, float(steps[number] * voxel_ml), MILLILITRE))
        if "mean_intensity" in entry.measurements:
            mean = float(sums[number] / counts[number])
            found.append(Measurement(number, ATTENUATION, mean, HOUNSFIELD, derivation=MEAN))
    return tuple(found)


def _counts_and_sums(
    volume: Volume, labels: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each label: the voxels, the sum of their values, and the voxels weighted by how many steps a slice stands for.

    Slice by slice: bincount widens its input eightfold.
    """
    counts, sums, steps = np.zeros(256, np.int64), np.zeros(256), np.zeros(256)
    for plane, values, width in zip(labels, volume.array, _widths(volume), strict=True):
        inside = plane > 0
        found = plane[inside]
        here = np.bincount(found, minlength=256)
        counts += here
        steps += here * width
        sums += np.bincount(found, weights=values[inside], minlength=256)
    return counts, sums, steps


def _widths(volume: Volume) -> NDArray[np.float64]:
    """How many steps of the affine each slice stands for: half of the way to each neighbour."""
    if volume.at is None:
        return np.ones(len(volume.array))
    gaps = np.diff(volume.at)
    gaps = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    widths: NDArray[np.float64] = (gaps[:-1] + gaps[1:]) / 2
    return widths
