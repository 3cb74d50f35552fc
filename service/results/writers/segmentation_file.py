"""The bulk of a Segmentation object: frames and what is said of each, written as they are made.

A SEG of a hundred organs has some 7000 frames. An object for each, and all of their pixels in memory, would cost
seconds and a gigabyte; here a frame costs a copy of its slice's functional groups, two numbers in it, and its bits.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import gcd
from typing import IO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from service.results.writers.segmentation_frames import Frames
from service.results.writers.segmentation_structure import Structure

LONGEST_VALUE = 0xFFFFFFFE
"""In bytes (PS3.5 7.1.1)."""
UNDEFINED_LENGTH = 0xFFFFFFFF

# headers of elements in Explicit VR Little Endian: tag, VR, length (PS3.5 7.1.2)
_PER_FRAME_GROUPS = struct.pack("<HH2sH", 0x5200, 0x9230, b"SQ", 0)
_PIXEL_DATA = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0)
_SEGMENT_NUMBER = struct.pack("<HH2sH", 0x0062, 0x000B, b"US", 2)
_DIMENSION_INDEX = struct.pack("<HH2sH", 0x0020, 0x9157, b"UL", 8)
_SEQUENCE_DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


@dataclass(frozen=True)
class Place:
    """Where a frame is from: channel and slice of `service.results.writers.segmentation_frames.Frames`."""

    channel: int
    index: int


def write_segmentation(file: IO[bytes], structure: Structure, frames: Frames, transfer_syntax_uid: str) -> None:
    """Write a Segmentation object as a DICOM file, frame by frame.

    Parameters
    ----------
    structure
        All but the frames.
    transfer_syntax_uid
        Explicit VR Little Endian, or one of RLE, JPEG-LS and JPEG 2000 lossless for frames of whole bytes.

    Raises
    ------
    ValueError
        The frames are too long for a DICOM element.
    """
    # segment by segment, each in the order of the slices
    places = [
        Place(channel, index)
        for channel, present in enumerate(frames.present)
        for index in structure.groups
        if present[index]
    ]
    dataset = structure.dataset
    dataset.NumberOfFrames = len(places)
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    dataset.save_as(file, enforce_file_format=True)
    _write_groups(file, structure, places)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _write_compressed(file, frames, places, transfer_syntax_uid)
    else:
        _write_native(file, frames, places)


def _write_groups(file: IO[bytes], structure: Structure, places: Sequence[Place]) -> None:
    length = sum(len(structure.groups[place.index]) for place in places)
    file.write(_PER_FRAME_GROUPS + struct.pack("<L", _sized(length)))
    for place in places:
        file.write(_of_segment(place.channel + 1, structure.groups[place.index]))


def _of_segment(number: int, first: bytes) -> bytes | bytearray:
    """Functional groups like those of the first segment, of another."""
    if number == 1:
        return first
    item = bytearray(first)
    for header, form in ((_SEGMENT_NUMBER, "<H"), (_DIMENSION_INDEX, "<L")):
        struct.pack_into(form, item, item.index(header) + len(header), number)
    return item


def _write_native(file: IO[bytes], frames: Frames, places: Sequence[Place]) -> None:
    """Frames follow each other without padding, bits too (PS3.5 8.1.1, 8.2)."""
    rows, columns = frames.shape
    bits = 1 if frames.type == "BINARY" else 8
    length = (len(places) * rows * columns * bits + 7) // 8
    file.write(_PIXEL_DATA + struct.pack("<L", _sized(length + length % 2)))
    together = 8 // gcd(8, rows * columns * bits)  # so many frames fill whole bytes
    # one array for all: a new one for each frame costs more than what is done in it
    block = np.zeros((together, rows, columns), np.uint8)
    for start in range(0, len(places), together):
        some = places[start : start + together]
        for frame, place in zip(block, some, strict=False):
            frames.draw(place.channel, place.index, frame)
        drawn = block[: len(some)]
        file.write((np.packbits(drawn, bitorder="little") if bits == 1 else drawn).data)
    file.write(b"\0" * (length % 2))


def _write_compressed(file: IO[bytes], frames: Frames, places: Sequence[Place], transfer_syntax_uid: str) -> None:
    """One fragment for each frame, after a basic offset table (PS3.5 A.4)."""
    compress = COMPRESS[transfer_syntax_uid]

    def compressed(place: Place) -> bytes:
        frame = np.zeros(frames.shape, np.uint8)
        frames.draw(place.channel, place.index, frame)
        return bytes(compress(frame))

    with ThreadPoolExecutor() as threads:
        fragments = list(threads.map(compressed, places))
    file.write(_PIXEL_DATA + struct.pack("<L", UNDEFINED_LENGTH))
    file.write(encapsulate(fragments) + _SEQUENCE_DELIMITER)


def _rle(frame: NDArray[np.uint8]) -> bytes:
    """One segment after a header that says where it is; rows are encoded each on its own (PS3.5 G)."""
    segment = imagecodecs.packbits_encode(frame, axis=-1)
    return struct.pack("<16L", 1, 64, *[0] * 14) + bytes(segment) + b"\0" * (len(segment) % 2)


COMPRESS: Mapping[str, Callable[[NDArray[np.uint8]], bytes | bytearray]] = {
    RLELossless: _rle,
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True),
}
"""What encodes a frame, by transfer syntax."""


def _sized(length: int) -> int:
    if length > LONGEST_VALUE:
        raise ValueError(f"{length} bytes are too long for a DICOM element; write a label map or compress it")
    return length
