"""What an instance says, however it is encoded: archives wrap what they pass on anew.

Lengths of sequences and items become defined or undefined, group lengths and what trails behind the pixels come and go,
values get their padding, and the file meta information is of whoever wrote the file (PS3.5 6.2, 7.2, 7.5, 8.2;
PS3.10 7.1). None of that is another image.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pydicom
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element

from service.record import PREAMBLE

_TRAILING_PADDING = 0xFFFCFFFC
_TEXT = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_BYTES = frozenset({"OB", "UN"})


def fingerprint(content: bytes | memoryview | Path) -> str:
    """A digest of the transfer syntax and the elements of a whole DICOM file; of its bytes where these are unreadable.

    Two files with the same fingerprint are the same instance in two wrappings. Values are compared as they lie there:
    the number 1.0 is another value than 1.00.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
        digest = hashlib.sha256()
        try:
            file = _parsed(stream)
            digest.update(str(file.file_meta.get("TransferSyntaxUID", "")).encode())
            for piece in _pieces(file):
                digest.update(b"%d:" % len(piece))  # where one ends is part of what they say
                digest.update(piece)
        except MemoryError:
            raise
        except Exception:  # a parser can fail in many ways on hostile bytes
            return _bytes_of(stream)
        return digest.hexdigest()


def _bytes_of(stream: IO[bytes]) -> str:
    stream.seek(PREAMBLE)
    if stream.read(4) != b"DICM":
        stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _parsed(stream: IO[bytes]) -> pydicom.FileDataset:
    file = pydicom.dcmread(stream)
    if stream.read(1):
        raise ValueError("the parser has stopped before the end, and what follows may differ")
    return file


def _pieces(data_set: Dataset) -> Iterator[bytes]:
    """Tag, VR and value of each element; those of items in between."""
    for tag in sorted(data_set.keys()):
        if tag.element == 0 or tag == _TRAILING_PADDING:
            continue
        element = data_set.get_item(tag, keep_deferred=True)  # an empty value must not be parsed
        vr = _vr(element)
        yield f"{tag:08x}{vr}".encode()
        if vr == "SQ":
            # not by data_set[tag], which parses other elements on its way
            items = convert_raw_data_element(element) if isinstance(element, RawDataElement) else element
            for item in items.value or ():
                yield b"item"
                yield from _pieces(item)
            yield b"end"
        else:
            yield _value(element, vr)


def _vr(element: DataElement | RawDataElement) -> str:
    if element.VR:
        return str(element.VR)
    return dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN"  # implicit VR


def _value(element: DataElement | RawDataElement, vr: str) -> bytes:
    """The value as it lies there, but for its padding."""
    if not isinstance(element, RawDataElement):  # (0008,0005), which the parser needs itself
        return str(element.value).encode()
    value = element.value or b""
    if vr in _TEXT:
        return value.rstrip(b" \0")
    return value[:-1] if vr in _BYTES and len(value) % 2 == 0 and value.endswith(b"\0") else value
