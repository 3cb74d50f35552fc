"""From the stored bytes of a frame to its stored values, for every transfer syntax that the node accepts.

imagecodecs decodes; it was exact on all files of the public test sets and releases the interpreter's lock, so that
several slices decode at once. What the header says of the smallest and largest value is never used: it is often wrong.
"""

from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames

from service.errors import Quarantined
from service.series.pixel_description import PixelDescription, describe

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


def stored_values(data_set: Dataset) -> list[NDArray[Any]]:
    """All frames of an image as stored values (before the modality transform).

    Returns
    -------
    list
        One array ``[row, column]`` per frame, of the type `PixelDescription.kind`; it may be a read-only view of the
        pixel data.

    Raises
    ------
    Quarantined
        There is no pixel data, it is shorter than the header says, it is not greyscale, or it cannot be decoded.
    """
    if "PixelData" not in data_set:
        raise Quarantined("no pixel data; send the image again from its source")
    description = describe(data_set)
    if description.encapsulated:
        return [decode_frame(coded, description) for coded in coded_frames(data_set.PixelData, description)]
    return [native_frame(data_set.PixelData, description, index) for index in range(description.frames)]


def coded_frames(pixel_data: bytes, description: PixelDescription) -> Iterator[bytes]:
    """Split encapsulated pixel data (PS3.5 A.4) into the compressed bytes of its frames, fragments put together.

    Raises
    ------
    Quarantined
        It is not encapsulated pixel data, or does not hold as many frames as announced.
    """
    found = 0
    try:
        for coded in generate_frames(pixel_data, number_of_frames=description.frames):
            found += 1
            yield coded
    except MemoryError:
        raise
    except Exception as error:  # pydicom and struct raise many kinds; whatever it is, there are no frames
        raise Quarantined(
            f"the frames of the pixel data cannot be told apart ({type(error).__name__}); send the image again"
        ) from error
    if found != description.frames:
        raise Quarantined(f"{found} frames in the pixel data where {description.frames} are announced; send it again")


def decode_frame(coded: bytes, description: PixelDescription) -> NDArray[Any]:
    """Decode one compressed frame to stored values.

    A code stream that says otherwise than the header whether values are signed is read as the header says: its bits
    are kept, and the sign is that of the high bit.

    Returns
    -------
    array
        ``[row, column]`` of the type `PixelDescription.kind`.

    Raises
    ------
    Quarantined
        The frame cannot be decoded, or is of another size or wider than the header says.
    """
    shape = (description.rows, description.columns)
    try:
        if description.syntax == uid.RLELossless:
            kind = np.dtype(f"<u{description.allocated // 8}")
            decoded = np.frombuffer(imagecodecs.dicomrle_decode(coded, kind), kind, shape[0] * shape[1]).reshape(shape)
        else:
            decoded = np.asarray(_DECODERS[description.syntax](coded))
    except MemoryError:
        raise
    except Exception as error:  # each codec has exceptions of its own; whatever it is, this image cannot be decoded
        raise Quarantined(
            f"the pixel data cannot be decoded ({description.syntax.name}, {type(error).__name__}); "
            "send the image again"
        ) from error
    if decoded.shape != shape or decoded.dtype.itemsize > description.kind.itemsize:
        raise Quarantined(
            f"a compressed frame holds {decoded.shape} values of {8 * decoded.dtype.itemsize} bits where {shape} of "
            f"{description.allocated} are announced; send the image again"
        )
    return _meaningful_bits(decoded, description)


def native_frame(pixel_data: bytes | memoryview, description: PixelDescription, index: int = 0) -> NDArray[Any]:
    """Give the stored values of an uncompressed frame.

    Parameters
    ----------
    pixel_data
        The value of Pixel Data, or any buffer that begins with it; bytes after the last frame are padding.
    index
        Of the frame, from 0.

    Returns
    -------
    array
        ``[row, column]`` of the type `PixelDescription.kind`; where nothing had to be changed, a view of the buffer.

    Raises
    ------
    Quarantined
        The pixel data ends before the frame does.
    """
    shape = (description.rows, description.columns)
    start = index * description.frame_bytes
    if len(pixel_data) < start + description.frame_bytes:
        raise Quarantined(
            f"truncated: {len(pixel_data)} bytes of pixel data where {start + description.frame_bytes} are needed; "
            "send the image again from its source"
        )
    if description.swapped_words:
        stop = start + description.frame_bytes
        words = np.frombuffer(pixel_data, "u1", len(pixel_data) // 2 * 2).reshape(-1, 2)[start // 2 : (stop + 1) // 2]
        cells = words[:, ::-1].ravel()[start % 2 :][: shape[0] * shape[1]]
    else:
        kind = description.kind.newbyteorder(">" if description.syntax == uid.ExplicitVRBigEndian else "<")
        cells = np.frombuffer(pixel_data, kind, shape[0] * shape[1], start)
    return _meaningful_bits(cells.reshape(shape), description)


def _meaningful_bits(cells: NDArray[Any], description: PixelDescription) -> NDArray[Any]:
    """Drop what is above the high bit or below the low bit (overlays in old images), extend the sign.

    Two shifts do it in the type of the cell: the first one drops the bits above, the second one those below, and
    repeats the sign where there is one.
    """
    values = cells.astype(description.kind, copy=False)
    if description.stored == description.allocated:
        return values
    values = values << (description.allocated - 1 - description.high_bit)
    values >>= description.allocated - description.stored
    return values
