"""From one X-ray instance to the image that models run on: as a reader sees it, bone bright and air dark."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid

from engines.types import Radiograph
from service.errors import Quarantined
from service.series.detector import orientation, pixel_aspect, spacing
from service.series.modality import Values, modality_values, presented
from service.series.padding import padding
from service.series.pixel_description import compression_notes, describe
from service.series.pixels import stored_values

LEAST_SEEN = 0.05
"""Share of the pixels that a window has to leave between black and white, and share of the greys that these have to
have. A window that leaves less shows nothing."""


def radiograph(file: Path, data_set: Dataset) -> tuple[Radiograph, tuple[str, ...]]:
    """Make the image of an X-ray instance, and say what a reader should know of how it was made.

    The stored values go through the modality transform and, unless the image is FOR PROCESSING, through its first VOI
    LUT or window; MONOCHROME1 is inverted; padding becomes as dark as the darkest pixel.

    Parameters
    ----------
    file
        Where the instance lies; messages do not name it.
    data_set
        With its pixel data.

    Raises
    ------
    Quarantined
        The pixels cannot be used, see `service.series.pixels.stored_values`, or there are several frames.
    """
    del file
    frames = stored_values(data_set)
    if len(frames) != 1:
        raise Quarantined(f"{len(frames)} frames, where an X-ray image has one; no model runs on it")
    surround = padding(data_set, describe(data_set))
    mask = surround.mask(frames[0]) if surround else None
    values = modality_values(frames[0], data_set)
    inside = slice(None) if mask is None or mask.all() else ~mask
    values, shown = _as_shown(values, inside, data_set)
    inverted, contradiction = _inverted(data_set)
    if inverted:
        values = values[inside].min() + values[inside].max() - values
    if mask is not None:
        values = np.where(mask, values[inside].min(), values)
    millimetres, distances = spacing(data_set)
    points_to, direction = orientation(data_set)
    image = Radiograph(
        np.ascontiguousarray(values, np.float32),
        millimetres,
        str(data_set.SOPInstanceUID),
        points_to,
        pixel_aspect(data_set),
    )
    return image, (*compression_notes(data_set), *shown, *contradiction, *distances, *direction)


def _as_shown(values: Values, inside: slice | NDArray[np.bool_], data_set: Dataset) -> tuple[Values, tuple[str, ...]]:
    """Apply the VOI transform, unless there is none, the image is not for presentation, or it would leave nothing."""
    for_processing = data_set.get("PresentationIntentType") == "FOR PROCESSING"
    if for_processing or data_set.SOPClassUID == uid.DigitalXRayImageStorageForProcessing:
        return values, ("The image is FOR PROCESSING: it was not prepared for a reader, nor for the models.",)
    try:
        seen = presented(values, data_set)
    except ValueError as error:
        return values, (f"The image's window was ignored: {error}.",)
    if seen is None:
        return values, ()
    part = seen[inside]
    if np.mean((part > 0.01) & (part < 0.99)) < LEAST_SEEN or np.ptp(part) < LEAST_SEEN:
        return values, ("The image's window was ignored: it leaves almost nothing to see.",)
    return seen, ()


def _inverted(data_set: Dataset) -> tuple[bool, tuple[str, ...]]:
    """Tell whether low values are bright.

    PresentationLUTShape says the same as PhotometricInterpretation once more (INVERSE belongs to MONOCHROME1, PS3.3
    C.8.11.3.1.2), so it inverts nothing a second time. Where the two disagree the one holds that every image has.
    """
    monochrome1 = data_set.PhotometricInterpretation == "MONOCHROME1"
    shape = str(data_set.get("PresentationLUTShape") or "").strip().upper()
    if shape in ("INVERSE", "IDENTITY") and monochrome1 != (shape == "INVERSE"):
        note = f"PresentationLUTShape {shape} contradicts {data_set.PhotometricInterpretation} and was ignored."
        return monochrome1, (note,)
    return monochrome1, ()
