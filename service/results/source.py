"""The source images as a result needs them: attributes that can be copied, geometry that can be trusted.

Headers come from anywhere. One unreadable attribute must not cost a result: what is valid is copied unchanged, what is
not is left out and named.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import format_number_as_ds

from engines.types import Image, Radiograph, Volume
from service.errors import Quarantined
from service.results.attributes import TYPE_2, copied_attributes
from service.results.uids import UUID_ROOT, frame_of_reference_uid

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")

SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3
OFF_PLACE_MM = 0.5
"""How far a slice of a volume may lie from its source image: scanners round positions, and volumes even that out."""


@dataclass(frozen=True)
class Plane:
    """One source image, or one frame of it, in the patient coordinate system (PS3.3 C.7.6.2).

    ``position`` is the centre of the first pixel in LPS millimetres, ``orientation`` the direction of rows and of
    columns, ``spacing`` the distance between rows and between columns in mm. ``frame`` counts from 1; it is None for a
    single-frame image.
    """

    sop_instance_uid: str
    frame: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """The images that a result was made from.

    Attributes
    ----------
    headers
        One data set per SOP instance: UIDs and geometry, nothing of the patient. One of a multi-frame image holds the
        frames that were used, in the order of the slices.
    attributes
        Of patient and study, with the character set, what could be copied.
    planes
        In the order of the volume's slices; one for an X-ray.
    frame_of_reference_uid
        Of the source, or derived where it has none.
    dropped
        Keywords of attributes that could not be copied.
    """

    headers: tuple[Dataset, ...]
    attributes: Dataset
    planes: tuple[Plane, ...]
    frame_of_reference_uid: str
    dropped: tuple[str, ...]

    @property
    def first(self) -> Dataset:
        """The header of the first slice, in the volume's order."""
        return self.headers[0]


def read_source(headers: Sequence[Dataset], image: Image, uid_root: str = UUID_ROOT) -> Source:
    """Take from the source headers what a result needs.

    Parameters
    ----------
    headers
        Data sets of the source without pixel data, in the order of the volume's slices; one for an X-ray and for a
        multi-frame image.
    image
        What was analysed.
    uid_root
        Of a frame of reference that must be made up.

    Raises
    ------
    Quarantined
        A UID that a result must refer to is missing, the headers do not belong to the image, or their geometry is not
        that of the image.
    """
    _require_identity(headers, image)
    stored = _stored_planes(headers, image)
    planes = _planes_of_slices(stored, image) if isinstance(image, Volume) else stored
    _require_one_grid(planes, image)
    frame_of_reference = _frame_of_reference(headers, image, uid_root)
    attributes, dropped = copied_attributes(headers[0])
    own: defaultdict[str, list[Plane]] = defaultdict(list)
    for plane in planes:
        own[plane.sop_instance_uid].append(plane)
    cleaned = tuple(
        _cleaned(header, image, own[str(header.SOPInstanceUID)], planes[0], frame_of_reference) for header in headers
    )
    return Source(cleaned, attributes, planes, frame_of_reference, dropped)


def _require_identity(headers: Sequence[Dataset], image: Image) -> None:
    expected = list(dict.fromkeys(image.sources)) if isinstance(image, Volume) else [image.source]
    if len(headers) != len(expected):
        raise Quarantined(f"{len(headers)} source headers for {len(expected)} images: no result can be filed")
    for keyword in REQUIRED:
        if any(not header.get(keyword) for header in headers):
            raise Quarantined(f"{keyword} is missing or empty in the source: no result can be filed; repair the header")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"):
        if len({header[keyword].value for header in headers}) > 1:
            raise Quarantined(f"the source images differ in {keyword}; send them as one series")
    if [header.SOPInstanceUID for header in headers] != expected:
        raise Quarantined("the source headers are not in the order of the volume's slices")


def _stored_planes(headers: Sequence[Dataset], image: Image) -> tuple[Plane, ...]:
    if isinstance(image, Radiograph):
        # An X-ray has no place in the patient. Viewers still need one to lay a segmentation on it: its own plane, with
        # a nominal millimetre per pixel width where the true spacing is unknown.
        spacing = image.pixel
        return (Plane(image.source, None, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), spacing),)
    return tuple(plane for header in headers for plane in _planes_of_instance(header))


def _require_one_grid(planes: Sequence[Plane], image: Image) -> None:
    """The slices of a volume have one orientation and spacing; other frames of a multi-frame image may have others."""
    first = planes[0]
    for plane in planes:
        if not np.allclose(plane.orientation, first.orientation, atol=SAME_DIRECTION):
            raise Quarantined("the source images differ in ImageOrientationPatient; send one orientation per series")
        if not np.allclose(plane.spacing, first.spacing, atol=SAME_DIRECTION):
            raise Quarantined("the source images differ in PixelSpacing; send one spacing per series")
    if isinstance(image, Volume):
        _require_same_grid(image, first)


def _planes_of_instance(header: Dataset) -> Iterator[Plane]:
    uid = str(header.SOPInstanceUID)
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield _plane(uid, None, header, header, header)
        return
    shared = header.SharedFunctionalGroupsSequence[0] if header.get("SharedFunctionalGroupsSequence") else Dataset()
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence, start=1):
        macros = [
            (frame.get(keyword) or shared.get(keyword) or [Dataset()])[0]
            for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        ]
        yield _plane(uid, number, *macros)


def _plane(uid: str, frame: int | None, position: Dataset, orientation: Dataset, measures: Dataset) -> Plane:
    return Plane(
        uid,
        frame,
        _numbers(position, "ImagePositionPatient", 3),
        _numbers(orientation, "ImageOrientationPatient", 6),
        _numbers(measures, "PixelSpacing", 2),
    )


def _numbers(item: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in item[keyword].value)
    except (KeyError, TypeError, ValueError) as error:
        raise Quarantined(f"{keyword} is missing or unreadable in the source: nothing can be placed on it") from error
    if len(values) != count:
        raise Quarantined(f"{keyword} has {len(values)} values in the source instead of {count}")
    return values


def _cleaned(header: Dataset, image: Image, own: Sequence[Plane], template: Plane, frame_of_reference: str) -> Dataset:
    """What highdicom asks of a source image, and no more: it warns of odd values by quoting them."""
    cleaned = Dataset()
    for keyword in (*REQUIRED, "Modality"):
        setattr(cleaned, keyword, str(header.get(keyword) or ""))
    for keyword in TYPE_2:
        setattr(cleaned, keyword, "")
    if header.get("LossyImageCompression") == "01":
        cleaned.LossyImageCompression = "01"
    cleaned.Rows, cleaned.Columns = image.array.shape[-2:]
    cleaned.FrameOfReferenceUID = frame_of_reference
    cleaned.PositionReferenceIndicator = ""
    _set_geometry(cleaned, own, template, _thickness(header, image))
    return cleaned


def _planes_of_slices(stored: Sequence[Plane], image: Volume) -> tuple[Plane, ...]:
    """The plane of each slice, which must lie where the volume has it; frames may be stored in another order."""
    frames = image.frames or (None,) * len(image.sources)
    by_source = {(plane.sop_instance_uid, plane.frame): plane for plane in stored}
    planes = []
    for index, source in enumerate(zip(image.sources, frames, strict=True)):
        if source not in by_source:
            raise Quarantined(f"slice {index + 1} of the volume has no source image")
        plane = by_source[source]
        distance = float(np.linalg.norm(image.slice_affine(index)[:3, 3] - plane.position))
        if distance > OFF_PLACE_MM:
            raise Quarantined(f"slice {index + 1} of the volume lies {distance:.1f} mm away from its source image")
        planes.append(plane)
    return tuple(planes)


def _require_same_grid(image: Volume, plane: Plane) -> None:
    rows_apart, columns_apart = plane.spacing
    along_columns = np.array(plane.orientation[:3]) * columns_apart
    along_rows = np.array(plane.orientation[3:]) * rows_apart
    grid = np.stack([along_rows, along_columns], axis=1)
    if not np.allclose(image.affine[:3, 1:3], grid, atol=SAME_DIRECTION):
        raise Quarantined("the volume's rows and columns do not run along those of its source images")


def _frame_of_reference(headers: Sequence[Dataset], image: Image, uid_root: str) -> str:
    uids = {str(header.get("FrameOfReferenceUID") or "") for header in headers}
    if isinstance(image, Radiograph):
        return frame_of_reference_uid(image.source, root=uid_root)
    if len(uids) > 1:
        raise Quarantined("the source images differ in FrameOfReferenceUID; send them as one series")
    return uids.pop() or frame_of_reference_uid(str(headers[0].SeriesInstanceUID), root=uid_root)


def _thickness(header: Dataset, image: Image) -> float:
    """Slice thickness in mm; where the header gives none, slices are as thick as they are apart."""
    apart = image.spacing[0] if isinstance(image, Volume) else 1.0
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    measures = (shared.get("PixelMeasuresSequence") or [header])[0]
    try:
        thickness = float(measures["SliceThickness"].value)
    except (KeyError, TypeError, ValueError):
        return apart
    return thickness if 0 < thickness < np.inf else apart


def _set_geometry(header: Dataset, planes: Sequence[Plane], template: Plane, thickness: float) -> None:
    """Position of each of the planes; orientation and spacing those of the template, which the volume has."""
    if planes[0].frame is None:
        header.ImagePositionPatient = _decimal(planes[0].position)
        header.ImageOrientationPatient = _decimal(template.orientation)
        header.PixelSpacing = _decimal(template.spacing)
        header.SliceThickness = format_number_as_ds(thickness)
        return
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _decimal(template.orientation)
    measures.PixelSpacing = _decimal(template.spacing)
    measures.SliceThickness = format_number_as_ds(thickness)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for plane in planes:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = _decimal(plane.position)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = frames
    header.NumberOfFrames = len(frames)


def _decimal(values: Sequence[float]) -> list[str]:
    return [format_number_as_ds(value) for value in values]
