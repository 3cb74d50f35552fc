"""The smallest DICOM files that say something."""

import struct
from pathlib import Path

from service.received import Received

_SYNTAX = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
_BEFORE = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(_SYNTAX)) + _SYNTAX


def dicom(content: bytes) -> Received:
    """A file whose pixels are these bytes."""
    return Received.of(_BEFORE + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, len(content)) + content)


def said(file: Path) -> bytes:
    """The pixels of such a file."""
    return file.read_bytes()[len(_BEFORE) + 12 :]
