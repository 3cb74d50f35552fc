"""From one X-ray instance to the image that models run on."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut

from engines.types import Radiograph
from service.errors import Quarantined
from service.series.pixels import stored_values


def radiograph(file: Path, data_set: Dataset) -> tuple[Radiograph, tuple[str, ...]]:
    """Make the image of an X-ray instance, and say what a reader should know of how it was made.

    Raises
    ------
    Quarantined
        The pixels cannot be used, see `service.series.pixels.stored_values`, or there are several frames.
    """
    frames = stored_values(data_set)
    if len(frames) != 1:
        raise Quarantined(f"{len(frames)} frames, where an X-ray image has one; no model runs on it")
    values = np.asarray(apply_modality_lut(frames[0], data_set), np.float32)
    if data_set.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() + values.min() - values
    return Radiograph(values, _detector_spacing(data_set), str(data_set.SOPInstanceUID)), ()


def _detector_spacing(data_set: Dataset) -> tuple[float, float] | None:
    """Distance between rows and columns: calibrated (PixelSpacing) or at the detector (ImagerPixelSpacing), or None."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        value = data_set.get(name)
        if value is not None and len(value) == 2 and min(float(x) for x in value) > 0:
            return float(value[0]), float(value[1])
    return None
