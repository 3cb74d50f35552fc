"""Where slices lie: order along the normal, one affine for all of them (PS3.3 C.7.6.2.1.1, C.7.6.3.1.1).

Positions are LPS millimetres in double precision. A gantry tilt is a sheared affine; slices that are not evenly spaced
lie at fractional steps along it. Neither is ignored: what samples the volume takes both into account.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.types import Affine
from service.errors import Quarantined

SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal lie at one position."""
SAME_DIRECTION = 1e-3
"""How far direction cosines (0.06°) and pixel spacing (mm) may differ within a stack."""
OFF_LINE_MM = 0.25
"""How far a slice may lie beside the line through the first and the last one."""
ROUNDING_MM = 0.051
"""How far a slice may be from even spacing: scanners round positions to a tenth of a millimetre ..."""
UNEVEN = 0.02
"""... or as a fraction of the spacing, whichever is more."""
COMMON = 0.6
"""At least this fraction of the gaps must be of one size for a wider one to be called a gap."""
OBLIQUE = np.cos(np.radians(30))


@dataclass(frozen=True, eq=False)
class Axes:
    """How a slice lies, wherever it lies.

    Attributes
    ----------
    along_row, along_column
        Perpendicular unit vectors in the direction of growing column index and of growing row index:
        ImageOrientationPatient.
    normal
        Unit vector from slice to slice.
    spacing
        Distance between rows and between columns in mm: PixelSpacing.
    """

    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    normal: NDArray[np.float64]
    spacing: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane of one slice: ``position`` is the centre of its first pixel, LPS mm (ImagePositionPatient)."""

    position: NDArray[np.float64]
    axes: Axes

    @property
    def along(self) -> float:
        """Position along its own normal in mm."""
        return float(self.position @ self.axes.normal)

    def parallel(self, other: "Plane") -> bool:
        """Whether both have the same orientation and pixel spacing."""
        one, two = self.axes, other.axes
        return one is two or bool(
            np.abs(one.along_row - two.along_row).max() < SAME_DIRECTION
            and np.abs(one.along_column - two.along_column).max() < SAME_DIRECTION
            and np.abs(np.subtract(one.spacing, two.spacing)).max() < SAME_DIRECTION
        )


def axes(orientation: Sequence[float], spacing: Sequence[float]) -> Axes:
    """Build axes from attribute values. Raises `Quarantined` where they do not describe any."""
    for name, values, count in (("ImageOrientationPatient", orientation, 6), ("PixelSpacing", spacing, 2)):
        if len(values) != count or not np.all(np.isfinite(values)):
            raise Quarantined(f"{name} is not {count} numbers; repair the header and send it again")
    if min(spacing) <= 0:
        raise Quarantined(f"PixelSpacing {spacing} is not usable; repair the header and send it again")
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    if abs(np.linalg.norm(row) - 1) > 1e-2 or abs(np.linalg.norm(column) - 1) > 1e-2 or abs(row @ column) > 1e-2:
        raise Quarantined(
            "ImageOrientationPatient is not two perpendicular unit vectors; repair the header and send it again"
        )
    row /= np.linalg.norm(row)  # written with few digits, they are not exactly perpendicular unit vectors
    column -= (column @ row) * row
    column /= np.linalg.norm(column)
    return Axes(row, column, np.cross(row, column), (float(spacing[0]), float(spacing[1])))


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the slices of one stack lie.

    Attributes
    ----------
    affine
        Index ``(step, row, column, 1)`` to LPS mm; sheared where the gantry was tilted.
    at
        The step at which each slice lies, or None where slice *k* lies at *k*: see `engines.types.Volume`.
    typical_mm, largest_mm
        The median and the largest distance between neighbouring slices, along the normal.
    missing
        Slices that a regular stack would have between the first and the last one, and this one has not.
    tilt_degrees
        Angle between the line of the slices and their normal.
    """

    affine: Affine
    at: tuple[float, ...] | None
    typical_mm: float
    largest_mm: float
    missing: int
    tilt_degrees: float


def along_normal(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """The position of each plane along the normal of the first one, in mm."""
    return np.stack([each.position for each in planes]) @ planes[0].axes.normal


def grid_of(planes: Sequence[Plane]) -> Grid:
    """The grid of parallel planes of one size, ordered along their normal.

    Raises
    ------
    Quarantined
        There are fewer than two slices, several at one position, or they do not lie on a line.
    """
    if len(planes) < 2:
        raise Quarantined("a single slice is no volume; send the whole series")
    along = along_normal(planes)
    gaps = np.diff(along)
    if gaps.min() < SAME_POSITION_MM:
        raise Quarantined("slices lie at the position of another one; send one stack a series")
    first, span = planes[0].position, planes[-1].position - planes[0].position
    positions = np.stack([each.position for each in planes])
    fraction = (along - along[0]) / (along[-1] - along[0])
    beside = np.linalg.norm(positions - (first + fraction[:, None] * span), axis=1)
    if beside.max() > OFF_LINE_MM:
        raise Quarantined(
            f"slice {int(beside.argmax()) + 1} lies {beside.max():.1f} mm beside the line of the others: their field "
            "of view was moved; send a reconstruction with one field of view"
        )
    typical = float(np.median(gaps))
    even = np.linspace(0.0, 1.0, len(planes))
    length = float(along[-1] - along[0])
    if np.abs(fraction - even).max() * length <= max(ROUNDING_MM, UNEVEN * typical):
        steps, at = len(planes) - 1, None
    else:
        steps = _steps(gaps, len(planes))
        at = tuple(float(value) for value in fraction * steps)
    affine = np.eye(4)
    affine[:3, 0] = span / steps
    affine[:3, 1] = planes[0].axes.along_column * planes[0].axes.spacing[0]
    affine[:3, 2] = planes[0].axes.along_row * planes[0].axes.spacing[1]
    affine[:3, 3] = first
    sideways = span - (span @ planes[0].axes.normal) * planes[0].axes.normal
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(sideways), length)))
    return Grid(affine, at, typical, float(gaps.max()), _missing(gaps, typical), tilt)


def _steps(gaps: NDArray[np.float64], slices: int) -> int:
    """How many steps an uneven stack is long: as many as its common smaller gap asks for, within reason."""
    length = float(gaps.sum())
    step = max(float(np.quantile(gaps, 0.1, method="higher")), length / (4 * slices))
    return max(1, round(length / step))


def _missing(gaps: NDArray[np.float64], typical: float) -> int:
    """Slices left out of an otherwise regular stack; where spacing changes in blocks, none is missing."""
    multiples = np.round(gaps / typical)
    regular = np.abs(gaps - multiples * typical) <= np.maximum(ROUNDING_MM * 2, 0.1 * typical)
    if not regular.all() or (multiples == 1).mean() < COMMON:
        return 0
    return int((multiples - 1).sum())


def plane_name(one: Plane) -> str:
    """``axial``, ``coronal``, ``sagittal``, or ``oblique`` where the normal is more than 30° from each axis."""
    nearest = int(np.abs(one.axes.normal).argmax())
    if abs(one.axes.normal[nearest]) < OBLIQUE:
        return "oblique"
    return ("sagittal", "coronal", "axial")[nearest]
