"""Findings become Secondary Captures (PS3.3 A.8.1): pictures that every archive files and every viewer shows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from highdicom.sr import CodedConcept
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

from engines.types import Radiograph, Volume
from service.results.analysis import Analysis
from service.results.attributes import valid_element
from service.results.files import keep
from service.results.pictures.capture import Picture, radiograph_picture, slice_picture
from service.results.pictures.choice import chosen_slices
from service.results.pictures.summary import summary_pages
from service.results.pictures.views import patient_axes
from service.results.pictures.window import display_window
from service.results.references import image_references
from service.results.remarks import remarks
from service.results.stamp import RESEARCH, new_object, stamp
from service.types import ResultObject

Area = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Capture:
    """What one Secondary Capture shows.

    Attributes
    ----------
    page
        RGB, of an even width.
    slices
        Which slices of the volume are in it; 0 for an X-ray.
    description
        How it was made, in words.
    orientation
        Where its rows and columns point to in the patient; None where it is no image of one plane, or not known.
    area
        Where the image of a single plane lies within it: left, top, right, bottom.
    """

    page: Pillow.Image
    slices: tuple[int, ...]
    description: str
    orientation: tuple[str, str] | None = None
    area: Area | None = None

    @property
    def pixel_data(self) -> bytes:
        """Red, green and blue of each pixel, padded to an even length (PS3.5 8.1.1)."""
        stored = self.page.tobytes()
        return stored + b"\0" * (len(stored) % 2)


def write_captures(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """A summary, and images with outlines drawn into them, in one series (`service.results.kinds.Writer`)."""
    return keep_captures(analysis, "SC", captures(analysis), folder)


def keep_captures(analysis: Analysis, kind: str, pictures: Iterable[Capture], folder: Path) -> list[ResultObject]:
    """Write pictures of one kind, one after the other."""
    return [
        keep(kind, secondary_capture(analysis, kind, number, capture), folder)
        for number, capture in enumerate(pictures, start=1)
    ]


def captures(analysis: Analysis) -> Iterator[Capture]:
    """The pages of the summary, then the chosen slices in the order in which a reader leafs, or the X-ray."""
    findings, image = analysis.findings, analysis.image
    chosen = captured_slices(analysis)
    for page in summary_pages(findings, image, remarks(analysis)):
        yield Capture(page, tuple(chosen), "Summary of what was found")
    if analysis.profile.captures == 0:
        return
    if isinstance(image, Radiograph):
        yield radiograph_capture(analysis)
    else:
        yield from captured_planes(analysis, chosen)


def radiograph_capture(analysis: Analysis) -> Capture:
    """The X-ray with what was found in it."""
    image = analysis.image
    assert isinstance(image, Radiograph)
    window = display_window(image)
    picture = radiograph_picture(analysis.findings, image, window, known_sides(analysis), analysis.detected)
    return _of_plane(picture, 0, window.name)


def captured_planes(analysis: Analysis, indices: Sequence[int]) -> Iterator[Capture]:
    """Slices of a volume with what was found in them."""
    image = analysis.image
    assert isinstance(image, Volume)
    window = display_window(image)
    for index in indices:
        place = _place(analysis, image, index)
        picture = slice_picture(analysis.findings, image, index, window, place, analysis.detected)
        yield _of_plane(picture, index, window.name)


def captured_slices(analysis: Analysis) -> list[int]:
    """Which slices are drawn; the summary refers to them. One at least, so that it refers to something."""
    if isinstance(analysis.image, Radiograph):
        return [0]
    most = max(analysis.profile.captures, 1)
    return chosen_slices(analysis.image, analysis.findings.label_maps, most, analysis.detected)


def known_sides(analysis: Analysis) -> tuple[str, str] | None:
    """Where rows and columns of an X-ray point to, if its header says so: a wrong side is worse than none."""
    image = analysis.image
    if not isinstance(image, Radiograph):
        return None
    stated = analysis.headers[0].get("PatientOrientation") or ""
    letters = tuple(str(value).strip().upper()[:1] for value in stated) if not isinstance(stated, str) else ()
    return image.orientation if letters == image.orientation else None


def secondary_capture(analysis: Analysis, kind: str, number: int, capture: Capture) -> Dataset:
    """Encode a picture: single frame, RGB, uncompressed, which the oldest archives file.

    Parameters
    ----------
    kind
        See `service.results.profile.Kind`.
    number
        Of the instance within its series.
    """
    dataset = new_object(analysis, kind, SecondaryCaptureImageStorage, "OT", number)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Laterality = ""  # both sides, or not known
    dataset.PatientOrientation = list(capture.orientation) if capture.orientation else ""
    dataset.DerivationDescription = f"{RESEARCH}. {capture.description}"[:1024]
    dataset.ImageComments = " ".join(remarks(analysis))[:10240]
    dataset.SourceImageSequence = [_reference(analysis, index) for index in capture.slices]
    _state_history(dataset, analysis, capture.slices)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = capture.page.height, capture.page.width
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = capture.pixel_data
    stamp(dataset, analysis)
    return dataset


def _of_plane(picture: Picture, index: int, window: str) -> Capture:
    description = f"Outlines of what was found, drawn into the image; {window}"
    return Capture(picture.page, (index,), description, picture.orientation, picture.area)


def _place(analysis: Analysis, volume: Volume, index: int) -> str:
    """Which slice it is: its number as viewers show it, and where its middle lies in the patient."""
    plane, header = analysis.source.planes[index], analysis.headers[min(index, len(analysis.headers) - 1)]
    number = f"Slice {index + 1} of {len(volume.sources)}"
    if plane.frame is not None:
        number = f"Frame {plane.frame}"
    elif (instance := _instance_number(header)) is not None:
        number = f"Image {instance}"
    rows, columns = volume.array.shape[1:]
    middle = volume.slice_affine(index) @ (0, (rows - 1) / 2, (columns - 1) / 2, 1)
    axis = 2 - patient_axes(volume.affine).index(0)
    return f"{number} · {'xyz'[axis]} {middle[axis]:.1f} mm"


def _instance_number(header: Dataset) -> int | None:
    try:
        return int(header["InstanceNumber"].value)
    except (KeyError, TypeError, ValueError):
        return None


def _reference(analysis: Analysis, index: int) -> Dataset:
    """The source image, or the frame of one, that is shown (PS3.3 C.12.4.1.1.2)."""
    [reference] = image_references(analysis.source, [index])
    reference.PurposeOfReferenceCodeSequence = [
        CodedConcept.from_code(codes.cid7202.SourceImageForImageProcessingOperation)
    ]
    return reference


def burned_in(analysis: Analysis, headers: Iterable[Dataset]) -> str | None:
    """Burned In Annotation (PS3.3 C.7.6.1): we burn in nothing that identifies the patient, but a source may have it.

    None where that is not known: the header of an X-ray that does not say.
    """
    stated = {str(header.get("BurnedInAnnotation") or "").strip().upper() for header in headers}
    if "YES" in stated:
        return "YES"
    return "NO" if isinstance(analysis.image, Volume) or stated == {"NO"} else None


def _state_history(dataset: Dataset, analysis: Analysis, slices: Sequence[int]) -> None:
    """What is drawn on keeps what it is: annotated where the source was, lossy where it was (C.7.6.1.1.5)."""
    uids = {analysis.source.planes[index].sop_instance_uid for index in slices}
    headers = [header for header in analysis.headers if header.SOPInstanceUID in uids]
    if stated := burned_in(analysis, headers):
        dataset.BurnedInAnnotation = stated
    lossy = [header for header in headers if header.get("LossyImageCompression") == "01"]
    if lossy:
        dataset.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in lossy[0] and (element := valid_element(lossy[0], keyword)):
                dataset[keyword] = element
