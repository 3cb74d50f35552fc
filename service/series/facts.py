"""What routing and readers need to know of an image that its pixels do not tell."""

from dataclasses import dataclass
from typing import Any

from pydicom import Dataset


@dataclass(frozen=True)
class ImageFacts:
    """Header facts of one item; empty, or None, where the header says nothing. Texts are upper case and trimmed.

    Attributes
    ----------
    modality, body_part, view
        Modality, BodyPartExamined, ViewPosition.
    slices
        Number of slices of a volume; 1 for a radiograph.
    image_type
        All values of ImageType (PS3.3 C.7.6.1.1.2).
    protocol, series_description, kernel, manufacturer
        ProtocolName, SeriesDescription, ConvolutionKernel (its values joined by a backslash), Manufacturer.
    plane
        ``axial``, ``coronal``, ``sagittal`` or ``oblique`` (more than 30° from each); empty for a radiograph.
    slice_thickness_mm
        SliceThickness.
    contrast
        Whether ContrastBolusAgent says that there was a contrast agent.
    largest_gap_mm
        The largest distance between neighbouring slices, centre to centre; 0 for a radiograph.
    missing_slices
        How many slices a regular stack would have between its first and its last one, and this one has not.
    tilt_degrees
        Gantry tilt, as the positions of the slices tell it.
    partial
        The series was taken as it was, although something spoke for more slices to come.
    presentation
        PresentationIntentType of an X-ray.
    """

    modality: str
    body_part: str
    view: str
    slices: int
    image_type: tuple[str, ...] = ()
    protocol: str = ""
    series_description: str = ""
    kernel: str = ""
    manufacturer: str = ""
    plane: str = ""
    slice_thickness_mm: float | None = None
    contrast: bool = False
    largest_gap_mm: float = 0.0
    missing_slices: int = 0
    tilt_degrees: float = 0.0
    partial: bool = False
    presentation: str = ""


def read_image_facts(header: Dataset) -> ImageFacts:
    """Read what the header tells; what only the pixels and other slices tell is left at its default."""
    return ImageFacts(
        modality=_text(header, "Modality"),
        body_part=_text(header, "BodyPartExamined"),
        view=_text(header, "ViewPosition"),
        slices=1,
        image_type=_values(header, "ImageType") or _values(header, "FrameType"),
        protocol=_text(header, "ProtocolName"),
        series_description=_text(header, "SeriesDescription"),
        kernel="\\".join(_values(header, "ConvolutionKernel")),
        manufacturer=_text(header, "Manufacturer"),
        slice_thickness_mm=_number(header, "SliceThickness"),
        contrast=bool(_text(header, "ContrastBolusAgent") or _value(header, "ContrastBolusAgentSequence")),
        presentation=_text(header, "PresentationIntentType"),
    )


_MACROS = {
    "ConvolutionKernel": "CTReconstructionSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "BodyPartExamined": "FrameAnatomySequence",
    "FrameType": "CTImageFrameTypeSequence",
}


def _value(header: Dataset, keyword: str) -> Any:
    """From the top level, or from the functional groups of a multi-frame image (PS3.3 C.7.6.16)."""
    try:
        if header.get(keyword) not in (None, ""):
            return header.get(keyword)
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            item = (header.get(groups) or [Dataset()])[0]
            macro = (item.get(_MACROS.get(keyword, "")) or [Dataset()])[0]
            if macro.get(keyword) not in (None, ""):
                return macro.get(keyword)
    except Exception:  # a header can be wrong in more ways than its parser foresees; then it says nothing of this
        return None
    return None


def _text(header: Dataset, keyword: str) -> str:
    value = _value(header, keyword)
    return "" if value is None else str(value).strip().upper()


def _values(header: Dataset, keyword: str) -> tuple[str, ...]:
    value = _value(header, keyword)
    if value is None:
        return ()
    return tuple(str(one).strip().upper() for one in ([value] if isinstance(value, str) else value))


def _number(header: Dataset, keyword: str) -> float | None:
    try:
        value = _value(header, keyword)
        return None if value is None else float(value)
    except (ValueError, TypeError):
        return None
