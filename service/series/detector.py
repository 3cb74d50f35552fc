"""How an X-ray lies on the patient, and how large its pixels are there."""

from math import isclose, isfinite
from typing import Any

from pydicom import Dataset

UPRIGHT = ("L", "F")
_AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}


def spacing(data_set: Dataset) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Give the distance between rows and between columns in mm, and the plane in which it holds.

    - PixelSpacing that differs from ImagerPixelSpacing, or has a PixelSpacingCalibrationType, is calibrated: by an
      object of known size (FIDUCIAL) or for the geometry (GEOMETRY). It is taken as it is (PS3.3 10.7).
    - Otherwise it is a distance at the detector, ImagerPixelSpacing or a PixelSpacing equal to it, divided by
      EstimatedRadiographicMagnificationFactor where that is there: then it holds in the patient (PS3.3 C.8.7.9).
    - PixelSpacing alone is a distance at the detector too, by the custom of computed radiography; it is not known
      whether the device has corrected it for the magnification already, so it is not done again.

    Returns
    -------
    spacing
        ``(row, column)`` mm; None where the header has no valid one.
    notes
        For the reader of measurements.
    """
    stated, imager = _pair(data_set.get("PixelSpacing")), _pair(data_set.get("ImagerPixelSpacing"))
    kind = str(data_set.get("PixelSpacingCalibrationType") or "").strip().upper()
    equal = stated is not None and imager is not None and all(map(_same, stated, imager))
    if stated is not None and (kind or (imager is not None and not equal)):
        return stated, (f"Distances are calibrated ({kind or 'the header does not say how'}).",)
    if imager is None:
        if stated is None:
            return None, ("The size of a pixel is not known.",)
        return stated, ("Distances are as the header states them, uncalibrated; probably at the detector.",)
    factor = _number(data_set.get("EstimatedRadiographicMagnificationFactor"))
    if factor is not None and factor >= 1:
        note = f"Distances are those at the detector divided by the estimated magnification, {factor:g}."
        return (imager[0] / factor, imager[1] / factor), (note,)
    return imager, ("Distances are those at the detector, larger than in the patient.",)


def pixel_aspect(data_set: Dataset) -> float:
    """Give the height of a pixel over its width from PixelAspectRatio (PS3.3 C.7.6.3.1.7), 1 without a valid one."""
    ratio = _pair(data_set.get("PixelAspectRatio"))
    return ratio[0] / ratio[1] if ratio else 1.0


def orientation(data_set: Dataset) -> tuple[tuple[str, str], tuple[str, ...]]:
    """Give where rows and columns point to, by the first letter of each value of PatientOrientation, and notes.

    Nothing said means upright as a frontal view is read, L\\F (PS3.3 C.7.6.1.1.1).
    """
    value = data_set.get("PatientOrientation")
    if not value:
        return UPRIGHT, ()
    letters = [str(part).strip().upper()[:1] for part in value] if not isinstance(value, str) else []
    if len(letters) == 2 and all(letter in _AXES for letter in letters) and _AXES[letters[0]] != _AXES[letters[1]]:
        return (letters[0], letters[1]), ()
    return UPRIGHT, ("PatientOrientation names no two perpendicular directions; the image is taken as upright.",)


def _pair(value: Any) -> tuple[float, float] | None:
    """Give two positive finite numbers, None for anything else."""
    try:
        first, second = (float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return (first, second) if min(first, second) > 0 and isfinite(first + second) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None


def _same(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=1e-4)
