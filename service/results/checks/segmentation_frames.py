"""Does each frame of this Segmentation object lie where its source lies, and show what was found there?

Nothing here uses what encoded the object. Frames are read from the file one by one: a SEG of a hundred organs decodes
to 1.8 GB. Of the functional groups, an item that differs from one that was checked in the number of its segment alone
needs no second look: 7000 items become 300.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from service.results.source import SAME_PLACE_MM, Plane

Require = Callable[[bool, str], None]

# headers of the elements that differ between segments in one plane, and how long what differs is:
# ReferencedSegmentNumber (US), the first of two DimensionIndexValues (UL)
_OF_SEGMENT = ((b"\x62\x00\x0b\x00US\x02\x00", 2), (b"\x20\x00\x57\x91UL\x08\x00", 4))

DECODE: dict[str, Callable[[bytes], NDArray[np.uint8]]] = {
    RLELossless: lambda frame: np.frombuffer(imagecodecs.dicomrle_decode(frame, dtype="uint8"), np.uint8),
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
}


@dataclass(frozen=True, eq=False)
class Shown:
    """What the frames must show.

    Attributes
    ----------
    pixels
        The values of a frame, ``[row, column]``, by number of its segment (0 in a label map) and slice.
    total
        How many of all values are not 0; a frame that is missing shows in it.
    segments
        How many there are.
    """

    pixels: Callable[[int, int], NDArray[np.uint8] | NDArray[np.bool_]]
    total: int
    segments: int


@dataclass(frozen=True)
class _Frame:
    """What the functional groups say: ``segment`` is 0 in a label map, ``rank`` the dimension index of the plane."""

    segment: int
    index: int
    rank: int


def check_frames(dataset: Dataset, shown: Shown, planes: Sequence[Plane], require: Require) -> None:
    """Compare all frames with what they must show.

    Parameters
    ----------
    dataset
        As read from its file; its pixel data need not be in memory.
    planes
        Of the source, in the order of the slices.
    require
        Refuses what does not hold.
    """
    frames = list(_frames(dataset, planes, require))
    require(len(frames) == int(dataset.NumberOfFrames), "NumberOfFrames is not the number of frames described")
    require(len({(frame.segment, frame.index) for frame in frames}) == len(frames), "a frame is there twice")
    _check_ranks(frames, require)
    label_map = dataset.SegmentationType == "LABELMAP"
    total, differs = 0, np.empty(int(dataset.Rows) * int(dataset.Columns), np.bool_)
    for number, (frame, pixels) in enumerate(zip(frames, _pixels(dataset, require), strict=True), start=1):
        known = frame.segment == 0 if label_map else 1 <= frame.segment <= shown.segments
        require(known, f"frame {number} is of a segment that does not exist")
        expected = shown.pixels(frame.segment, frame.index).reshape(-1)
        np.not_equal(pixels, expected, out=differs)
        require(not differs.any(), f"frame {number} does not show the voxels that were found")
        voxels = int(np.count_nonzero(expected))
        require(voxels > 0, f"frame {number} is empty")
        total += voxels
    require(total == shown.total, f"frames of {shown.total - total} voxels are missing")


def _frames(dataset: Dataset, planes: Sequence[Plane], require: Require) -> Iterator[_Frame]:
    slices = {(plane.sop_instance_uid, plane.frame): index for index, plane in enumerate(planes)}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    checked: dict[bytes, _Frame] = {}
    for number, item in enumerate(_items(dataset, require), start=1):
        of_plane, of_segment = _parted(item)
        require(len(set(of_segment)) <= 1, f"frame {number} has another segment in its dimension index")
        if of_plane in checked:
            known = checked[of_plane]
            yield _Frame(of_segment[0] if known.segment else 0, known.index, known.rank)
            continue
        group = read_dataset(BytesIO(item), is_implicit_VR=False, is_little_endian=True)
        for element in group.iterall():  # decodes every element
            _ = element.value
        index = slices.get(_source_of(group, number, require), -1)
        require(index >= 0, f"frame {number} refers to an image that is not in the source")
        _check_position(group, planes[index], number, require)
        values = group.FrameContentSequence[0]["DimensionIndexValues"]
        ranks = list(values.value) if values.VM > 1 else [values.value]
        segment = _segment_number(group, shared)
        require(ranks[:-1] == ([segment] if segment else []), f"frame {number} has another dimension index")
        frame = checked[of_plane] = _Frame(segment, index, int(ranks[-1]))
        yield frame


def _items(dataset: Dataset, require: Require) -> Iterator[bytes]:
    """The items of the per-frame functional groups, as they are in the file."""
    element = _as_stored(dataset, "PerFrameFunctionalGroupsSequence")
    with Path(str(dataset.filename)).open("rb") as file:
        file.seek(element.value_tell)
        value, at = file.read(element.length), 0
    while at < len(value):
        group, number, length = struct.unpack_from("<HHL", value, at)
        at += 8 + length
        require((group, number) == (0xFFFE, 0xE000) and at <= len(value), "the items of the frames are malformed")
        yield value[at - length : at]


def _as_stored(dataset: Dataset, keyword: str) -> RawDataElement:
    """Where in the file the value of an element is; nobody has decoded it yet."""
    element: object = dataset.get_item(keyword, keep_deferred=True)
    if not isinstance(element, RawDataElement):  # there is none, or it is a sequence of unknown length
        raise TypeError(keyword)
    return element


def _parted(item: bytes) -> tuple[bytes, list[int]]:
    """An item without what tells its segment, and that."""
    numbers = []
    for header, size in _OF_SEGMENT:
        before, found, after = item.partition(header)
        if found:
            numbers.append(int.from_bytes(after[:size], "little"))
            item = before + found + after[size:]
    return item, numbers


def _segment_number(group: Dataset, shared: Dataset) -> int:
    # a SEG of one segment may say so once for all frames; a label map has no segments of frames
    for item in (group, shared):
        if "SegmentIdentificationSequence" in item:
            return int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return 0


def _source_of(group: Dataset, number: int, require: Require) -> tuple[str, int | None]:
    derivations = group.get("DerivationImageSequence") or []
    images = [item for derivation in derivations for item in derivation.SourceImageSequence]
    require(len(images) == 1, f"frame {number} refers to {len(images)} source images instead of one")
    frame = images[0].get("ReferencedFrameNumber")
    return str(images[0].ReferencedSOPInstanceUID), None if frame is None else int(frame)


def _check_position(group: Dataset, plane: Plane, number: int, require: Require) -> None:
    position = group.PlanePositionSequence[0].ImagePositionPatient
    same = np.allclose(position, plane.position, atol=SAME_PLACE_MM)
    require(bool(same), f"ImagePositionPatient of frame {number} is not that of its source image")


def _check_ranks(frames: Sequence[_Frame], require: Require) -> None:
    """The dimension index of a plane is its place among those that have a frame, one way or the other."""
    ranks = dict(sorted((frame.index, frame.rank) for frame in frames))
    one_to_one = all(ranks[frame.index] == frame.rank for frame in frames)
    counted = list(range(1, len(ranks) + 1))
    require(one_to_one and list(ranks.values()) in (counted, counted[::-1]), "the planes are numbered in another order")


def _pixels(dataset: Dataset, require: Require) -> Iterator[NDArray[np.uint8]]:
    """The values of one frame after the other, decoded, ``[row * column]``."""
    count, size = int(dataset.NumberOfFrames), int(dataset.Rows) * int(dataset.Columns)
    decode = DECODE.get(dataset.file_meta.TransferSyntaxUID)
    if decode is None:
        yield from _native(dataset, count, size * int(dataset.BitsAllocated), require)
        return
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        yield decode(frame).reshape(-1)[:size]


def _native(dataset: Dataset, count: int, bits: int, require: Require) -> Iterator[NDArray[np.uint8]]:
    """So many frames of so many bits follow each other without padding (PS3.5 8.1.1, 8.2)."""
    element = _as_stored(dataset, "PixelData")
    end = element.value_tell + (count * bits + 15) // 16 * 2
    with Path(str(dataset.filename)).open("rb") as file:
        whole = element.value_tell + element.length == end <= file.seek(0, os.SEEK_END)
        require(whole, "the pixel data have the wrong length")
        for first in range(0, count * bits, bits):
            file.seek(element.value_tell + first // 8)
            stored = np.frombuffer(file.read((first + bits + 7) // 8 - first // 8), np.uint8)
            if dataset.BitsAllocated == 1:
                stored = np.unpackbits(stored, bitorder="little")[first % 8 : first % 8 + bits]
            yield stored
