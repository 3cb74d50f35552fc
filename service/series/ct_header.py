"""The header of a CT instance as assembly needs it: read by walking over it, or by pydicom where it is unusual.

Values are taken as they were written, without the cost of their value representations; what a value means is worked
out once for all slices that have the same one.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pydicom
from pydicom import Dataset, config, uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag

from service.errors import Quarantined
from service.series.geometry import Axes, Plane, axes
from service.series.padding import Padding, padding
from service.series.pixel_description import PixelDescription, compression_notes, describe
from service.walk import Extent, pixel_data_at, walk

ENOUGH = 16384
"""Bytes in which most headers end."""
FAR_MM = 1e6
"""No slice lies so far from the origin; one that said so would spoil the arithmetic of all others."""

_PIXELS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "LossyImageCompression",
)  # fmt: skip
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
"""Functional group macro of each attribute (PS3.3 C.7.6.16)."""
_TAGS = {
    keyword: Tag(keyword)
    for keyword in (
        *_PIXELS, *_MACROS, "SOPClassUID", "SOPInstanceUID", "ImageType", "InstanceNumber", "AcquisitionNumber",
        "FrameOfReferenceUID", "TriggerTime", "TemporalPositionIdentifier", "InstanceCreationDate",
        "InstanceCreationTime", "ContentDate", "ContentTime", "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
}  # fmt: skip
_NUMBERS = {keyword: int(tag) for keyword, tag in _TAGS.items()}
_WANTED = {
    int(tag): [kind.encode() for kind in dictionary_VR(tag).split(" or ")]
    for tag in _TAGS.values()
    if dictionary_VR(tag) != "SQ"
}


@dataclass(frozen=True)
class Marks:
    """What may tell slices at one position apart, as written in the header; empty where not stated."""

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


@dataclass(frozen=True)
class Storage:
    """How the pixels are stored, which of them are padding, and what a reader should know of it."""

    description: PixelDescription
    padding: Padding | None
    notes: tuple[str, ...]


class _Source(Protocol):
    def raw(self, keyword: str, frame: int) -> bytes:
        """The value of an attribute of a frame, as written; empty where it is not there."""


@dataclass(frozen=True, eq=False)
class CTHeader:
    """A header.

    Attributes
    ----------
    multi_frame
        It has functional groups.
    """

    source: _Source
    storage: Storage
    sop_instance_uid: str
    multi_frame: bool

    def text(self, frame: int, *keywords: str) -> str:
        """The first of these attributes that is there; empty where none is."""
        for keyword in keywords:
            if value := self.source.raw(keyword, frame):
                return value.decode("ascii", "replace")
        return ""

    def numbers(self, frame: int, keyword: str) -> list[float]:
        """The values of an attribute. Raises `Quarantined` where it is missing or no number."""
        return _numbers(keyword, self.source.raw(keyword, frame))

    def number_of(self, frame: int, keyword: str) -> float:
        """The one value of an attribute. Raises `Quarantined` where it is missing or not one number."""
        values = self.numbers(frame, keyword)
        if len(values) != 1:
            raise Quarantined(f"{keyword} is not one number; repair the header and send it again")
        return values[0]

    def number(self) -> int | None:
        """InstanceNumber, or None where it is none."""
        try:
            return int(self.source.raw("InstanceNumber", 0))
        except ValueError:
            return None

    def plane(self, frame: int) -> Plane:
        """Where a frame lies. Raises `Quarantined` where that is not stated."""
        position = np.array(self.numbers(frame, "ImagePositionPatient"))
        if position.shape != (3,) or not (np.abs(position) < FAR_MM).all():  # no number is not near either
            raise Quarantined("ImagePositionPatient is not three numbers of mm; repair the header and send it again")
        orientation, spacing = (self.source.raw(name, frame) for name in ("ImageOrientationPatient", "PixelSpacing"))
        return Plane(position, _axes(orientation, spacing))

    def marks(self, frame: int) -> Marks:
        """What may tell a frame apart from another one at the same position."""

        def text(*keywords: str) -> str:
            return self.text(frame, *keywords)

        return Marks(
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


PixelData = Extent | bytes
"""Where the value of Pixel Data lies in the file, or the value itself where the file does not hold it as it is."""


def read_header(file: Path, accepted: tuple[uid.UID, ...]) -> tuple[CTHeader, PixelData] | str:
    """Read the header of a CT instance, and find its pixel data.

    Returns
    -------
    tuple or str
        The name of its SOP class where that is not an accepted one.

    Raises
    ------
    Quarantined
        It does not describe pixels that can be decoded, or there are none.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        walked = walk(os.pread(descriptor, ENOUGH, 0), _WANTED)
    finally:
        os.close(descriptor)
    if walked is None or walked.functional_groups or walked.pixel_data is None:
        return _parsed(file, accepted)
    source, values = _Walked(walked.values), walked.values
    sop_class = source.raw("SOPClassUID", 0).decode("ascii", "replace")
    if sop_class not in accepted:
        return _name(sop_class)
    storage = _storage(walked.syntax, *(values.get(_NUMBERS[keyword], b"") for keyword in _PIXELS))
    instance = source.raw("SOPInstanceUID", 0).decode("ascii", "replace")
    return CTHeader(source, storage, instance, multi_frame=False), walked.pixel_data


def _name(sop_class: str) -> str:
    return uid.UID(sop_class, validation_mode=config.IGNORE).name or "no SOP class"


@dataclass(frozen=True, eq=False)
class _Walked:
    values: dict[int, bytes]

    def raw(self, keyword: str, frame: int) -> bytes:
        return self.values.get(_NUMBERS[keyword], b"").strip(b" \0")


@lru_cache(256)
def _storage(syntax: uid.UID, *values: bytes) -> Storage:
    """What the elements say, as pydicom reads them; nearly always the same for all slices of a series."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    for keyword, value in zip(_PIXELS, values, strict=True):
        if value:
            tag = _TAGS[keyword]
            data_set[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)
    return _storage_of(data_set)


def _storage_of(data_set: Dataset) -> Storage:
    description = describe(data_set)
    return Storage(description, padding(data_set, description), compression_notes(data_set))


@lru_cache(256)
def _axes(orientation: bytes, spacing: bytes) -> Axes:
    return axes(_numbers("ImageOrientationPatient", orientation), _numbers("PixelSpacing", spacing))


def _numbers(keyword: str, value: bytes) -> list[float]:
    try:
        return [float(one) for one in value.split(b"\\")]
    except ValueError:
        raise Quarantined(
            f"{keyword} is missing or not a number: the slice has no {'scale' if 'Rescale' in keyword else 'place'}; "
            "repair the header and send it again"
        ) from None


# ---- unusual headers -------------------------------------------------------------------------------------------------


def _parsed(file: Path, accepted: tuple[uid.UID, ...]) -> tuple[CTHeader, PixelData] | str:
    with file.open("rb") as stream:
        data_set = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS.values()))
        position = stream.tell()
        head = os.pread(stream.fileno(), 12, position)
    sop_class = str(data_set.get("SOPClassUID") or "")
    if sop_class not in accepted:
        return _name(sop_class)
    pixel_data: PixelData | None
    if data_set.file_meta.TransferSyntaxUID in (uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        data_set = pydicom.dcmread(file)  # retired or rare: not worth a fast way
        pixel_data = data_set.get("PixelData")
    else:
        pixel_data = pixel_data_at(head, position, bool(data_set.original_encoding[0]))
    if not pixel_data:
        raise Quarantined("no pixel data; send the image again from its source")
    groups = _Groups.of(data_set)
    instance = str(data_set.get("SOPInstanceUID") or "")
    return CTHeader(groups, _storage_of(data_set), instance, bool(groups.per_frame)), pixel_data


@dataclass(frozen=True, eq=False)
class _Groups:
    """Attributes of each frame: from its functional groups (PS3.3 C.7.6.16), the shared ones, or the top level."""

    top: Dataset
    shared: Dataset
    per_frame: list[Dataset]

    @classmethod
    def of(cls, data_set: Dataset) -> "_Groups":
        shared = data_set.get("SharedFunctionalGroupsSequence") or [Dataset()]
        return cls(data_set, shared[0], list(data_set.get("PerFrameFunctionalGroupsSequence") or []))

    def raw(self, keyword: str, frame: int) -> bytes:
        if self.per_frame and frame >= len(self.per_frame):
            raise Quarantined(f"frame {frame + 1} is not described (PerFrameFunctionalGroupsSequence); send it again")
        for place in (self.per_frame[frame] if self.per_frame else None, self.shared):
            macro = place.get(_MACROS.get(keyword, "")) if place else None
            if macro and (value := _written(macro[0], keyword)):
                return value
        return _written(self.top, keyword)


def _written(item: Dataset, keyword: str) -> bytes:
    element = item.get_item(keyword) if keyword in item else None
    value: Any = b"" if element is None else element.value
    if isinstance(value, bytes):
        return value.strip(b" \0")
    if value is None:
        return b""
    values = [value] if isinstance(value, (str, int, float)) else value
    return "\\".join(str(one) for one in values).encode()
