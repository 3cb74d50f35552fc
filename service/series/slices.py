"""One CT instance to the slices that it holds: where each lies, what tells it apart, its values in a slab.

The header is parsed once and the pixels are read straight from the file: nothing is parsed or held twice.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.tag import Tag

from service.errors import PermanentError, Quarantined
from service.series.geometry import Plane, plane
from service.series.padding import Padding, padding, without_padding
from service.series.pixel_description import PixelDescription, compression_notes, describe
from service.series.pixels import coded_frames, decode_frame, native_frame
from service.series.slab import Slot

SLICES = (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)


class NotMeant(PermanentError):
    """No model is meant to see this instance; nothing is wrong with it."""


@dataclass(frozen=True)
class Marks:
    """What may tell slices at one position apart, as written in the header; empty where not stated."""

    frame_of_reference: str = ""
    stack: str = ""
    acquisition: str = ""
    temporal_position: str = ""
    cardiac_phase: str = ""
    trigger_time: str = ""
    energy: str = ""
    image_type: str = ""
    kernel: str = ""
    thickness: str = ""
    created: str = ""


@dataclass(frozen=True, eq=False)
class Slice:
    """One CT slice; its values, in modality units, lie in ``slot``.

    Attributes
    ----------
    uid, frame
        The SOP instance that it is from, and the frame (from 1) of a multi-frame one.
    number
        Instance number, or the frame's number; slices in a row have numbers in a row.
    """

    file: Path
    uid: str
    frame: int | None
    number: int
    plane: Plane
    shape: tuple[int, int]
    marks: Marks
    notes: tuple[str, ...]
    slot: Slot


Place = Callable[[NDArray[Any], int, float], Slot]
"""Keeps the values of a slice, by number and position along its normal."""


@dataclass(frozen=True, eq=False)
class Image:
    """A CT instance whose header was read: its frames can be read one by one, by several threads."""

    file: Path
    header: Dataset
    description: PixelDescription
    padding: Padding | None
    frames: Sequence[Callable[[], NDArray[Any]]]
    number: int | None

    def slice(self, index: int, place: Place, counted: int) -> Slice:
        """Read a frame and keep its values.

        Parameters
        ----------
        counted
            Stands in for an instance number that is not there.

        Raises
        ------
        Quarantined
            The frame has no place, or cannot be decoded.
        """
        groups = _Groups(self.header, index)
        if b"LOCALIZER" in groups.text("ImageType", "FrameType"):
            raise NotMeant("a localiser, which is not part of the volume")
        where = plane(
            groups.numbers("ImagePositionPatient"),
            groups.numbers("ImageOrientationPatient"),
            groups.numbers("PixelSpacing"),
        )
        [slope], [intercept] = groups.numbers("RescaleSlope"), groups.numbers("RescaleIntercept")
        multi_frame = self.header.get("PerFrameFunctionalGroupsSequence") is not None
        number = index if multi_frame else self.number if self.number is not None else counted
        stored = self.frames[index]()
        values = in_modality_units(stored, self.description, slope, intercept)
        if self.padding is not None:
            values = without_padding(values, self.padding.mask(stored))
        return Slice(
            file=self.file,
            uid=str(self.header.SOPInstanceUID),
            frame=index + 1 if multi_frame else None,
            number=number,
            plane=where,
            shape=(self.description.rows, self.description.columns),
            marks=groups.marks(),
            notes=compression_notes(self.header),
            slot=place(values, number, float(where.position @ where.normal)),
        )


def open_image(file: Path) -> Image:
    """Read the header of a CT instance and find its frames.

    Raises
    ------
    NotMeant
        It is none.
    Quarantined
        The header does not describe pixels that can be decoded, or there are too few of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old scanners break many rules; what matters is checked below
        with file.open("rb") as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
            offset = stream.tell()
        sop_class = header.get("SOPClassUID")
        if sop_class not in SLICES:
            raise NotMeant(f"{uid.UID(str(sop_class or '')).name or 'no SOP class'}: carried along, never processed")
        if header.file_meta.TransferSyntaxUID in (uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
            header = pydicom.dcmread(file)  # retired or rare: not worth a fast way
        if not header.get("PixelData", offset < file.stat().st_size):
            raise Quarantined("no pixel data; send the image again from its source")
        header.get("SharedFunctionalGroupsSequence")  # parsed here, by one thread
        header.get("PerFrameFunctionalGroupsSequence")
        description = describe(header)
        frames = _frames(file, header, offset, description)
        return Image(file, header, description, padding(header, description), frames, _number(header))


def in_modality_units(
    stored: NDArray[Any], description: PixelDescription, slope: float, intercept: float
) -> NDArray[np.int16] | NDArray[np.float32]:
    """The modality transform of CT (PS3.3 C.11.1): int16 where that is exact, else float32."""
    if slope == 1 and intercept == int(intercept) and abs(intercept) < 1 << 15:
        low, high = _bounds(description)
        if low + intercept < -32768 or high + intercept > 32767:
            low, high = int(stored.min()), int(stored.max())
        if low + intercept >= -32768 and high + intercept <= 32767:
            # modulo 2**16, and so exact where the sum fits
            shifted: NDArray[np.int16] = np.add(stored, np.int16(intercept), dtype=np.int16, casting="unsafe")
            return shifted
    elif slope == int(slope) and intercept == int(intercept):
        values = stored.astype(np.int64) * int(slope) + int(intercept)
        if values.min() >= -32768 and values.max() <= 32767:
            return values.astype(np.int16)
    return (stored * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def _number(header: Dataset) -> int | None:
    try:
        return int(_raw(header, "InstanceNumber"))
    except ValueError:
        return None


# ---- pixels ----------------------------------------------------------------------------------------------------------


def _bounds(description: PixelDescription) -> tuple[int, int]:
    """The lowest and the highest value that can be stored."""
    if description.signed:
        return -(1 << description.stored - 1), (1 << description.stored - 1) - 1
    return 0, (1 << description.stored) - 1


def _frames(
    file: Path, header: Dataset, offset: int, description: PixelDescription
) -> Sequence[Callable[[], NDArray[Any]]]:
    if "PixelData" in header:  # read whole
        content = memoryview(header.PixelData)
        return [partial(native_frame, content, description, index) for index in range(description.frames)]
    start = offset + (8 if description.syntax.is_implicit_VR else 12)
    if description.encapsulated:
        with file.open("rb") as stream:
            stream.seek(start)
            return [partial(decode_frame, coded, description) for coded in coded_frames(stream.read(), description)]
    available = file.stat().st_size - start
    if available < description.frame_bytes * description.frames:
        raise Quarantined(
            f"truncated: {max(0, available)} bytes of pixel data where {description.frame_bytes * description.frames} "
            "are needed; send the image again from its source"
        )
    return [partial(_read_native, file, start, description, index) for index in range(description.frames)]


def _read_native(file: Path, start: int, description: PixelDescription, index: int) -> NDArray[Any]:
    with file.open("rb", buffering=0) as stream:
        content = os.pread(stream.fileno(), description.frame_bytes, start + index * description.frame_bytes)
    return native_frame(content, description)


# ---- header ----------------------------------------------------------------------------------------------------------

_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "StackID": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "NominalPercentageOfCardiacPhase": "CardiacSynchronizationSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "KVP": "CTXRayDetailsSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
}
_TAGS = [
    Tag(keyword)
    for keyword in (
        "SOPClassUID", "SOPInstanceUID", "ImageType", "InstanceNumber", "AcquisitionNumber", "FrameOfReferenceUID",
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
        "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
        "PhotometricInterpretation", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit",
        "KVP", "ConvolutionKernel", "SliceThickness", "TriggerTime", "TemporalPositionIdentifier",
        "NominalPercentageOfCardiacPhase", "InstanceCreationDate", "InstanceCreationTime", "ContentDate",
        "ContentTime", "LossyImageCompression", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
        "FloatPixelData", "DoubleFloatPixelData",
    )
]  # fmt: skip


def _raw(item: Dataset, keyword: str) -> bytes:
    """The value as it was written, without the cost of its value representation."""
    element = item.get_item(keyword) if keyword in item else None
    value = b"" if element is None else element.value
    return value.strip(b" \0") if isinstance(value, bytes) else _text(value)


def _text(value: Any) -> bytes:
    if value is None:
        return b""
    values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    return "\\".join(str(one) for one in values).encode()


class _Groups:
    """Attributes of one frame: from its functional groups (PS3.3 C.7.6.16), the shared ones, or the top level."""

    def __init__(self, header: Dataset, frame: int) -> None:
        self._places = [header]
        shared = header.get("SharedFunctionalGroupsSequence")
        per_frame = header.get("PerFrameFunctionalGroupsSequence")
        if shared:
            self._places.insert(0, shared[0])
        if per_frame:
            if frame >= len(per_frame):
                raise Quarantined(
                    f"frame {frame + 1} is not described (PerFrameFunctionalGroupsSequence); send it again"
                )
            self._places.insert(0, per_frame[frame])

    def text(self, *keywords: str) -> bytes:
        """The first of these attributes that is there, as it was written; empty where none is."""
        return next((value for value in map(self._find, keywords) if value), b"")

    def numbers(self, keyword: str) -> list[float]:
        """The values of an attribute. Raises `Quarantined` where it is missing or no number."""
        try:
            return [float(value) for value in self._find(keyword).split(b"\\")]
        except ValueError:
            raise Quarantined(
                f"{keyword} is missing or not a number: the slice has no place; repair the header and send it again"
            ) from None

    def marks(self) -> Marks:
        """What may tell this frame apart from another one at the same position."""

        def text(*keywords: str) -> str:
            return self.text(*keywords).decode("ascii", "replace")

        return Marks(
            frame_of_reference=text("FrameOfReferenceUID"),
            stack=text("StackID"),
            acquisition=text("FrameAcquisitionNumber", "AcquisitionNumber"),
            temporal_position=text("TemporalPositionIndex", "TemporalPositionIdentifier"),
            cardiac_phase=text("NominalPercentageOfCardiacPhase"),
            trigger_time=text("NominalCardiacTriggerDelayTime", "TriggerTime"),
            energy=text("KVP"),
            image_type=text("FrameType", "ImageType"),
            kernel=text("ConvolutionKernel"),
            thickness=text("SliceThickness"),
            created=(text("InstanceCreationDate") + text("InstanceCreationTime"))
            or (text("ContentDate") + text("ContentTime")),
        )

    def _find(self, keyword: str) -> bytes:
        for place in self._places[:-1]:
            macro = place.get(_MACROS.get(keyword, ""))
            if macro and (value := _raw(macro[0], keyword)):
                return value
        return _raw(self._places[-1], keyword)
