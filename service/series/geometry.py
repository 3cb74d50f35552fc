"""Where slices lie: order along the normal, one affine for all of them (PS3.3 C.7.6.2.1.1, C.7.6.3.1.1)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.types import Affine
from service.errors import Quarantined

SAME_POSITION_MM = 0.01
"""Slices closer than this lie at one position."""
TILT_MM = 0.1
"""How far a slice may lie beside the normal through the first one."""
UNEVEN = 0.05
"""How far a gap may differ from the median gap, as a fraction of it ..."""
ROUNDING_MM = 0.11
"""... or in mm, whichever is more: scanners round positions to a tenth of a millimetre."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane of one slice.

    Attributes
    ----------
    position
        Centre of the first pixel, LPS mm: ImagePositionPatient.
    along_row, along_column
        Unit vectors in the direction of growing column index and of growing row index: ImageOrientationPatient.
    spacing
        Distance between rows and between columns in mm: PixelSpacing.
    """

    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector from slice to slice."""
        normal = np.cross(self.along_row, self.along_column)
        return np.asarray(normal / np.linalg.norm(normal))


def plane(position: list[float], orientation: list[float], spacing: list[float]) -> Plane:
    """Build a plane from attribute values. Raises `Quarantined` where they do not describe one."""
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    numbers = np.concatenate([position, orientation, spacing]).astype(float)
    if not np.all(np.isfinite(numbers)) or min(spacing) <= 0:
        raise Quarantined(f"PixelSpacing {spacing} or the position is not usable; repair the header and send it again")
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        raise Quarantined(
            "ImageOrientationPatient is not two perpendicular unit vectors; repair the header and send it again"
        )
    return Plane(np.asarray(position, float), row, column, (float(spacing[0]), float(spacing[1])))


def order(planes: list[Plane]) -> list[int]:
    """Indices of the planes from the first to the last along the normal."""
    normal = planes[0].normal
    return sorted(range(len(planes)), key=lambda index: float(planes[index].position @ normal))


def affine_of(planes: list[Plane]) -> Affine:
    """The affine of ordered, parallel planes of one size.

    Raises
    ------
    Quarantined
        There are fewer than two slices, several at one position, gaps, uneven spacing, or a gantry tilt.
    """
    if len(planes) < 2:
        raise Quarantined("a single slice is no volume; send the whole series")
    positions = np.stack([plane.position for plane in planes])
    along = positions @ planes[0].normal
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    if gaps.min() < SAME_POSITION_MM:
        count = int((gaps < SAME_POSITION_MM).sum())
        raise Quarantined(
            f"{count} slices lie at the position of another one (phases, time points); send one stack a series"
        )
    allowed = max(UNEVEN * typical, ROUNDING_MM)
    wide = np.flatnonzero(gaps > typical + allowed)
    multiples = np.round(gaps / typical)
    if np.abs(gaps - multiples * typical).max() > allowed:
        raise Quarantined(
            f"uneven slice spacing, {gaps.min():.2f} to {gaps.max():.2f} mm; send a reconstruction with one spacing"
        )
    if wide.size:
        where = ", ".join(f"after slice {index + 1} ({gaps[index]:.2f} mm)" for index in wide[:3])
        raise Quarantined(
            f"{int((multiples - 1).sum())} slices are missing, {where}, spacing {typical:.2f} mm; "
            "send the series again, whole"
        )
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    beside = step * (len(planes) - 1) - (along[-1] - along[0]) * planes[0].normal
    if np.linalg.norm(beside) > TILT_MM * (len(planes) - 1):
        angle = np.degrees(np.arctan2(np.linalg.norm(beside), along[-1] - along[0]))
        raise Quarantined(f"gantry tilt of {angle:.1f}°, which is not corrected for; send an untilted reconstruction")
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = planes[0].along_column * planes[0].spacing[0]
    affine[:3, 2] = planes[0].along_row * planes[0].spacing[1]
    affine[:3, 3] = positions[0]
    return affine
