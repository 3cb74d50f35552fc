"""From the stored bytes of one frame to an array, for every transfer syntax that the node accepts.

imagecodecs decodes; it was exact on all files of the public test sets and releases the interpreter's lock, so that
several slices decode at once.
"""

from collections.abc import Callable

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames

from service.errors import Quarantined

LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K})
"""Transfer syntaxes whose values may differ from the scanner's."""

_DECODERS: dict[str, Callable[[bytes], NDArray[np.generic]]] = {
    uid.JPEGBaseline8Bit: imagecodecs.jpeg_decode,
    uid.JPEGExtended12Bit: imagecodecs.jpeg_decode,
    uid.JPEGLossless: imagecodecs.ljpeg_decode,
    uid.JPEGLosslessSV1: imagecodecs.ljpeg_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
    uid.HTJ2KLossless: imagecodecs.htj2k_decode,
    uid.HTJ2KLosslessRPCL: imagecodecs.htj2k_decode,
    uid.HTJ2K: imagecodecs.htj2k_decode,
}


def stored_values(data_set: Dataset) -> list[NDArray[np.int32]]:
    """All frames of an image as stored values (before the modality transform), each ``[row, column]``.

    Raises
    ------
    Quarantined
        There is no pixel data, it is shorter than the header says, it is colour, or it cannot be decoded.
    """
    if "PixelData" not in data_set:
        raise Quarantined("no pixel data; send the image again from its source")
    colour = data_set.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2")
    if colour or int(data_set.get("SamplesPerPixel") or 1) != 1:
        raise Quarantined("a colour image, where a greyscale one is needed; no model runs on it")
    try:
        rows, columns = int(data_set.Rows), int(data_set.Columns)
        allocated, stored = int(data_set.BitsAllocated), int(data_set.BitsStored)
        shift = int(data_set.get("HighBit", stored - 1)) + 1 - stored
        signed = bool(data_set.get("PixelRepresentation", 0))
        frames = int(data_set.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError) as error:
        raise Quarantined(
            f"the description of the pixels is incomplete ({error}); repair the header and send it again"
        ) from error
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated or shift < 0 or rows < 1 or columns < 1:
        raise Quarantined(
            f"{rows} rows, {columns} columns, {stored} of {allocated} bits: no such image; repair the header"
        )
    raw = _raw_frames(data_set, frames, rows, columns, allocated)
    return [_meaningful_bits(frame, stored, shift, signed) for frame in raw]


def _raw_frames(data_set: Dataset, frames: int, rows: int, columns: int, allocated: int) -> list[NDArray[np.generic]]:
    syntax = data_set.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        kind = np.dtype(f"u{allocated // 8}").newbyteorder("<" if syntax.is_little_endian else ">")
        needed = frames * rows * columns * kind.itemsize
        if len(data_set.PixelData) < needed:
            raise Quarantined(
                f"truncated: {len(data_set.PixelData)} bytes of pixel data where {needed} are needed; "
                "send the image again from its source"
            )
        return list(np.frombuffer(data_set.PixelData, kind, frames * rows * columns).reshape(frames, rows, columns))
    try:
        coded = list(generate_frames(data_set.PixelData, number_of_frames=frames))
        decoded = [_decode(frame, str(syntax), rows, columns, allocated) for frame in coded]
    except MemoryError:
        raise
    except Exception as error:  # each codec has exceptions of its own; whatever it is, this image cannot be decoded
        raise Quarantined(
            f"the pixel data cannot be decoded ({syntax.name}, {type(error).__name__}); send the image again"
        ) from error
    if len(decoded) != frames or any(frame.shape != (rows, columns) for frame in decoded):
        shapes = sorted({frame.shape for frame in decoded})
        raise Quarantined(
            f"{len(decoded)} frames of {shapes} decoded where {frames} of {(rows, columns)} are announced"
        )
    return decoded


def _decode(frame: bytes, syntax: str, rows: int, columns: int, allocated: int) -> NDArray[np.generic]:
    if syntax == uid.RLELossless:
        kind = np.dtype(f"<u{allocated // 8}")
        return np.frombuffer(imagecodecs.dicomrle_decode(frame, kind), kind, rows * columns).reshape(rows, columns)
    return np.asarray(_DECODERS[syntax](frame))


def _meaningful_bits(frame: NDArray[np.generic], stored: int, shift: int, signed: bool) -> NDArray[np.int32]:
    """Drop what is not between the high bit and the low bit (overlays in old images), extend the sign."""
    values = frame.astype(np.int64) >> shift if shift else frame.astype(np.int64)
    values &= (1 << stored) - 1
    if signed:
        values = np.where(values >> (stored - 1), values - (1 << stored), values)
    return values.astype(np.int32)
