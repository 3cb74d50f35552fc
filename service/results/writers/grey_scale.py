"""How a presentation state shows the source's pixels: as modality values, through a window, to grey (PS3.4 N.2).

A viewer that applies a presentation state takes all of this from it and nothing from the image.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import format_number_as_ds

from engines.inference.measurements import HOUNSFIELD
from engines.types import Volume
from service.results.analysis import Analysis
from service.results.pictures.window import display_window

Rescale = tuple[float, float]
"""Slope and intercept."""


def slices_by_rescale(analysis: Analysis) -> Mapping[Rescale | None, Sequence[int]]:
    """The slices of each rescale, since all that a presentation state shows share one; None for an X-ray."""
    if not isinstance(analysis.image, Volume):
        return {None: [0]}
    headers = {header.SOPInstanceUID: header for header in analysis.headers}
    slices: dict[Rescale | None, list[int]] = {}
    for index, plane in enumerate(analysis.source.planes):
        header = headers[plane.sop_instance_uid]
        slices.setdefault(_rescale(header, plane.frame), []).append(index)
    return slices


def set_grey_scale(dataset: Dataset, analysis: Analysis, rescale: Rescale | None) -> None:
    """Set the grey scale transformations of a presentation state, in place.

    A volume is shown in the window that the pictures have, an X-ray as its own header wants it.

    Parameters
    ----------
    rescale
        Of a volume's slices; the tables and the rescale of an X-ray are those of its header.
    """
    image = analysis.image
    dataset.PresentationLUTShape = "IDENTITY"
    if rescale is not None:
        _set_rescale(dataset, rescale, "HU" if isinstance(image, Volume) and image.unit == HOUNSFIELD.value else "US")
        shown = display_window(image)
        window: Dataset | None = _window((shown.low + shown.high) / 2, shown.high - shown.low)
    else:
        [header] = analysis.headers
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            dataset.PresentationLUTShape = "INVERSE"
        _set_modality_transformation(dataset, header)
        window = _own_window(header)
    if window:
        dataset.SoftcopyVOILUTSequence = [window]


def _rescale(header: Dataset, frame: int | None) -> Rescale:
    holder = header
    if frame is not None:
        own = header.PerFrameFunctionalGroupsSequence[frame - 1]
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        groups = own.get("PixelValueTransformationSequence") or shared.get("PixelValueTransformationSequence")
        holder = (groups or [Dataset()])[0]
    slope, intercept = _number(holder, "RescaleSlope"), _number(holder, "RescaleIntercept")
    return (1.0 if slope is None else slope), (0.0 if intercept is None else intercept)


def _set_modality_transformation(dataset: Dataset, header: Dataset) -> None:
    if table := _table(header, "ModalityLUTSequence"):
        table.ModalityLUTType = str(header.ModalityLUTSequence[0].get("ModalityLUTType") or "US")[:16]
        dataset.ModalityLUTSequence = [table]
        return
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if slope and intercept is not None:
        _set_rescale(dataset, (slope, intercept), "US")


def _set_rescale(dataset: Dataset, rescale: Rescale, unit: str) -> None:
    dataset.RescaleSlope, dataset.RescaleIntercept = (format_number_as_ds(value) for value in rescale)
    dataset.RescaleType = unit


def _window(centre: float, width: float) -> Dataset:
    item = Dataset()
    item.WindowCenter, item.WindowWidth = format_number_as_ds(centre), format_number_as_ds(width)
    if width < 1:  # which no other function can have (PS3.3 C.11.2.1.2)
        item.VOILUTFunction = "LINEAR_EXACT"
    return item


def _own_window(header: Dataset) -> Dataset | None:
    """The first table or window of an image."""
    if table := _table(header, "VOILUTSequence"):
        item = Dataset()
        item.VOILUTSequence = [table]
        return item
    centre, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if centre is None or width is None or width < 1:
        return None
    item = _window(centre, width)
    if header.get("VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID"):
        item.VOILUTFunction = header.VOILUTFunction
    return item


def _number(holder: Dataset, keyword: str) -> float | None:
    """The first value of an attribute, None where it is missing or no number."""
    try:
        number = float(np.atleast_1d(holder[keyword].value)[0])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _table(header: Dataset, keyword: str) -> Dataset | None:
    """The first lookup table of a sequence (PS3.3 C.11.1), None where it is missing or contradicts itself."""
    try:
        given = header[keyword].value[0]
        count, first, bits = (int(value) for value in given.LUTDescriptor)
        data = given.LUTData
        entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data, np.uint16)
    except (KeyError, AttributeError, TypeError, ValueError, IndexError, OverflowError):
        return None
    if len(entries) != (count or 65536) or not 8 <= bits <= 16 or first < 0 or entries.max() >= 1 << bits:
        return None
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [count, first, bits])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return table
