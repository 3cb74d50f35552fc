"""What the node reads of an instance's header, once, while the pixels stay where they are.

By a walk over the elements (`service.walk`), which takes a twentieth of the time; by pydicom, with the same results,
where an instance is encoded or says things in an unusual way.
"""

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom import Dataset, uid
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from service.errors import Quarantined
from service.inflating import inflated_head
from service.received import Received
from service.walk import meta_of, walk

_TAGS = {
    keyword: int(Tag(keyword))
    for keyword in (
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
        "InstanceNumber", "AcquisitionNumber", "ImagesInAcquisition", "NumberOfFrames",
        "ImagePositionPatient", "ImageOrientationPatient",
    )
}  # fmt: skip
_MANUFACTURER = int(Tag("Manufacturer"))
_ENOUGH = 65536
"""Bytes in which nearly all headers end."""
_LARGEST_HEADER = 16 << 20
_WANTED = {tag: (dictionary_VR(tag).encode(),) for tag in _TAGS.values()}


@dataclass(frozen=True)
class HeaderFacts:
    """Which study, series and instance it is, and what tells whether its series is whole.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, study_uid, series_uid
        Never empty.
    modality
        May be empty.
    instance_number, acquisition_number, images_in_acquisition
        None where absent or not a number.
    position, orientation
        ImagePositionPatient in LPS mm and ImageOrientationPatient; None where absent, malformed, or per frame.
    frames
        1 for a single-frame image.
    transfer_syntax_uid
        Of the file; empty where it does not say.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str
    instance_number: int | None = None
    acquisition_number: int | None = None
    images_in_acquisition: int | None = None
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    frames: int = 1
    transfer_syntax_uid: str = ""


def read_facts(received: Received) -> HeaderFacts:
    """Read them.

    Raises
    ------
    Quarantined
        The header cannot be read, or a UID is missing or empty.
    """
    facts = walked_facts(received) or parsed_facts(received)
    named = {
        "SOPInstanceUID": facts.sop_instance_uid,
        "StudyInstanceUID": facts.study_uid,
        "SeriesInstanceUID": facts.series_uid,
    }
    if not all(named.values()):
        empty = ", ".join(name for name, value in named.items() if not value)
        raise Quarantined(f"{empty} missing or empty: a result could not be filed; repair the header and send it again")
    return facts


def facts_of(file: Path) -> HeaderFacts:
    """Read them of a file; of a large one only its beginning, where the header ends in it.

    Raises
    ------
    OSError
        The file cannot be read.
    Quarantined
        As `read_facts`.
    """
    with file.open("rb", buffering=0) as stream:
        head, length = stream.read(_ENOUGH), os.fstat(stream.fileno()).st_size
    return read_facts(Received(memoryview(head), length, file if length > len(head) else None))


def manufacturer_of(received: Received) -> str:
    """Manufacturer (0008,0070): who made the equipment that made the instance; empty where the header does not say."""
    walked = walk(received.head, {_MANUFACTURER: (b"LO",)}, whole=received.file is None)
    if walked is not None:
        return walked.values.get(_MANUFACTURER, b"").decode("latin-1").strip(" \0")
    try:
        header = pydicom.dcmread(_source(received), stop_before_pixels=True, specific_tags=[_MANUFACTURER])
        return str(header.get("Manufacturer") or "")
    except MemoryError:
        raise
    except Exception:  # as in parsed_facts; here it only means that nothing is known
        return ""


# ---- the usual -------------------------------------------------------------------------------------------------------

_UID = re.compile(rb"[0-9.]*")
_CODE = re.compile(rb"[0-9A-Z_]*")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,9}")
_NUMBER = rb" *[+-]?[0-9]{1,12}(?:\.[0-9]{0,16})?(?:[eE][+-]?[0-9]{1,2})? *"
_POSITION = re.compile(rb"\\".join([_NUMBER] * 3))
_ORIENTATION = re.compile(rb"\\".join([_NUMBER] * 6))


class _Unusual(Exception):
    """A value that is not written as those of all scanners are."""


def walked_facts(received: Received) -> HeaderFacts | None:
    """Read them by a walk; None where something is unusual. They are what `parsed_facts` would read, where it can."""
    walked = walk(received.head, _WANTED, whole=received.file is None)
    if walked is None:
        return None
    try:
        return _usual(walked.values, walked.syntax)
    except _Unusual:
        return None


def _usual(values: Mapping[int, bytes], syntax: uid.UID) -> HeaderFacts:
    def written(keyword: str) -> bytes | None:
        return values.get(_TAGS[keyword])

    return HeaderFacts(
        sop_class_uid=_text(written("SOPClassUID")),
        sop_instance_uid=_text(written("SOPInstanceUID")),
        study_uid=_text(written("StudyInstanceUID")),
        series_uid=_text(written("SeriesInstanceUID")),
        modality=_text(written("Modality"), _CODE),
        instance_number=_number(written("InstanceNumber")),
        acquisition_number=_number(written("AcquisitionNumber")),
        images_in_acquisition=_number(written("ImagesInAcquisition")),
        position=_split(written("ImagePositionPatient"), _POSITION),
        orientation=_split(written("ImageOrientationPatient"), _ORIENTATION),
        frames=_number(written("NumberOfFrames")) or 1,
        transfer_syntax_uid=syntax,
    )


# from slice to slice nearly all values stay, or come again in another series of the study


@lru_cache(1024)
def _text(value: bytes | None, pattern: re.Pattern[bytes] = _UID) -> str:
    return _written(value, pattern).decode("ascii")


@lru_cache(1024)
def _number(value: bytes | None) -> int | None:
    written = _written(value, _INTEGER)
    return int(written) if written else None


@lru_cache(1024)
def _split(value: bytes | None, pattern: re.Pattern[bytes]) -> tuple[float, ...] | None:
    written = _written(value, pattern)
    return tuple(float(one) for one in written.split(b"\\")) if written else None


def _written(value: bytes | None, pattern: re.Pattern[bytes]) -> bytes:
    written = (value or b"").rstrip(b" \0")
    if written and not pattern.fullmatch(written):
        raise _Unusual
    return written


# ---- the unusual -----------------------------------------------------------------------------------------------------


def parsed_facts(received: Received) -> HeaderFacts:
    """Read them by a parser. Raises `Quarantined` where it fails; UIDs may be empty."""
    try:
        header = pydicom.dcmread(_source(received), stop_before_pixels=True, specific_tags=list(_TAGS.values()))
        meta = meta_of(received.head)  # that of a deflated source says that it is not
        return HeaderFacts(
            sop_class_uid=str(header.get("SOPClassUID") or ""),
            sop_instance_uid=str(header.get("SOPInstanceUID") or ""),
            study_uid=str(header.get("StudyInstanceUID") or ""),
            series_uid=str(header.get("SeriesInstanceUID") or ""),
            modality=str(header.get("Modality") or ""),
            instance_number=_integer(header, "InstanceNumber"),
            acquisition_number=_integer(header, "AcquisitionNumber"),
            images_in_acquisition=_integer(header, "ImagesInAcquisition"),
            position=_numbers(header, "ImagePositionPatient", 3),
            orientation=_numbers(header, "ImageOrientationPatient", 6),
            frames=_integer(header, "NumberOfFrames") or 1,
            transfer_syntax_uid=str(meta[0] if meta else header.file_meta.get("TransferSyntaxUID") or ""),
        )
    except (MemoryError, Quarantined):
        raise
    except Exception as error:  # a parser can fail in many ways on hostile bytes; the answer is always the same
        raise Quarantined(
            f"the header cannot be read ({type(error).__name__}); send the instance again from its source"
        ) from error


def _source(received: Received) -> Path | BinaryIO:
    """The file, or as much of a deflated one as its header needs: a parser would inflate all of it."""
    meta = meta_of(received.head)
    if meta is None or meta[0] != uid.DeflatedExplicitVRLittleEndian:
        return received.file or io.BytesIO(received.head)
    end = meta[1]
    plain = uid.ExplicitVRLittleEndian.ljust(len(uid.DeflatedExplicitVRLittleEndian), "\0")
    before = bytes(received.head[:end]).replace(uid.DeflatedExplicitVRLittleEndian.encode(), plain.encode())
    return io.BytesIO(before + inflated_head(received.whole()[end:], _LARGEST_HEADER))


def _integer(header: Dataset, name: str) -> int | None:
    """A number, or None: what cannot be read here is told where it is needed."""
    try:
        value = header.get(name)
        return None if value in (None, "") else int(value)
    except (TypeError, ValueError):
        return None


def _numbers(header: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(value) for value in header.get(name) or ())
    except (TypeError, ValueError):
        return None
    return values if len(values) == count else None
