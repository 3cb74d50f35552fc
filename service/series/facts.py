"""What routing and readers need to know of an image that its pixels do not tell."""

from dataclasses import dataclass


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
