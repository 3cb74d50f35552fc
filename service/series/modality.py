"""From an X-ray's stored values to the modality's values, and to what a reader sees of them (PS3.3 C.11.1, C.11.2).

pydicom's ``apply_modality_lut`` and ``apply_voi_lut`` were tried first. They wrap around where a table of 8-bit entries
has more than 256 of them, refuse modality tables of 10 or 12 bits, read no packed 8-bit entries and window in float64
with three masks; the tests hold these tables and windows against values worked by hand, the windows against pydicom.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from service.errors import Quarantined

Values = NDArray[np.float32]

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"


class _NoTable(ValueError):
    """A lookup table that contradicts its own descriptor."""


def modality_values(stored: NDArray[Any], data_set: Dataset) -> Values:
    """Apply the modality transform of a single-frame image: its Modality LUT, or else slope and intercept, if any.

    Raises
    ------
    Quarantined
        The transform is there and makes no sense.
    """
    if tables := data_set.get("ModalityLUTSequence"):
        try:
            return _looked_up(stored, tables[0])
        except (_NoTable, AttributeError, TypeError, ValueError, IndexError) as error:
            raise Quarantined(
                f"the Modality LUT cannot be read ({error}); repair the header and send the image again"
            ) from error
    slope, intercept = _first(data_set.get("RescaleSlope")), _first(data_set.get("RescaleIntercept"))
    if slope is None or intercept is None:
        return stored.astype(np.float32)
    if not np.isfinite(slope) or not np.isfinite(intercept) or slope == 0:
        raise Quarantined(f"rescale slope {slope}, intercept {intercept}: no image is left; repair the header")
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def windowed(values: Values, centre: float, width: float, function: str = LINEAR) -> Values:
    """Map a window to 0–1 (VOI LUT Function, PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Raises
    ------
    ValueError
        The window is narrower than the function allows, or the function is unknown.
    """
    if function not in (LINEAR, LINEAR_EXACT, SIGMOID):
        raise ValueError(f"{function!r} is no VOI LUT Function")
    if not np.isfinite(centre) or not np.isfinite(width) or width <= 0 or (function == LINEAR and width < 1):
        raise ValueError(f"no window has the centre {centre:g} and the width {width:g}")
    if function == SIGMOID:
        # beyond ±30 the exponential is 0 or infinity for any purpose
        seen: Values = 1 / (1 + np.exp(np.clip((values - np.float32(centre)) * np.float32(-4 / width), -30, 30)))
        return seen
    if function == LINEAR:
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float32)
    seen = (values - np.float32(centre)) * np.float32(1 / width)
    seen += np.float32(0.5)
    return np.clip(seen, 0, 1, out=seen)


def presented(values: Values, data_set: Dataset) -> Values | None:
    """Apply the first VOI LUT of an image, or else its first window, to its modality values.

    Returns
    -------
    array
        What a reader sees, 0 the darkest and 1 the brightest before any inversion; None where the header has neither.

    Raises
    ------
    ValueError
        The table or window makes no sense.
    """
    if tables := data_set.get("VOILUTSequence"):
        try:
            table, first = _table(tables[0], float(values.max()))
        except (AttributeError, TypeError, IndexError) as error:
            raise _NoTable(f"the VOI LUT is incomplete ({error})") from error
        low, high = float(table.min()), float(table.max())
        if low == high:
            raise _NoTable("the VOI LUT has one value only")
        return ((table - np.float32(low)) / np.float32(high - low))[_index(values, first, table.size)]
    centre, width = _first(data_set.get("WindowCenter")), _first(data_set.get("WindowWidth"))
    if centre is None or width is None:
        return None
    return windowed(values, centre, width, str(data_set.get("VOILUTFunction") or LINEAR).strip().upper())


def _looked_up(values: NDArray[Any], item: Dataset) -> Values:
    table, first = _table(item, float(values.max()))
    return table[_index(values, first, table.size)]


def _index(values: NDArray[Any], first: int, entries: int) -> NDArray[np.int32]:
    """Values below the table have its first entry, those above it the last one."""
    whole = values if values.dtype.kind in "iu" else np.rint(values)
    index = whole.astype(np.int32) - np.int32(first)
    return np.clip(index, 0, entries - 1, out=index)


def _table(item: Dataset, largest: float) -> tuple[Values, int]:
    """Give the entries of a LUT and the value that the first one belongs to (PS3.3 C.11.1.1, C.11.2.1.1).

    Whether that value is signed follows from the values, and files get its VR wrong: one that would lie above all
    values of the image is meant to be negative.
    """
    entries, first, bits = (int(part) for part in item.LUTDescriptor)
    entries = entries or 1 << 16
    if first >= 1 << 15 and first > largest:
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        _, little_endian = item.original_encoding
        order = ">" if little_endian is False else "<"
        words = np.frombuffer(data, f"{order}u2", len(data) // 2)
    else:
        words = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(np.uint16)
    if bits <= 8 and words.size < entries:  # two entries in a word, the first one in its low byte
        words = words.astype("<u2").view(np.uint8)
    if words.size < entries:
        raise _NoTable(f"a LUT of {words.size} entries where its descriptor says {entries}")
    return words[:entries].astype(np.float32), first


def _first(value: Any) -> float | None:
    """Give the first of one or several values, None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return float(value)
    return float(value[0]) if len(value) else None
