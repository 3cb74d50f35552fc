"""How the pixels of an image are stored, as its header says."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset, uid

from service.errors import Quarantined

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
"""Transfer syntaxes in which pixels are not compressed, or only together with all else."""

LOSSLESS = frozenset(
    {
        uid.RLELossless,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
    }
)
"""Transfer syntaxes in which each frame is compressed and comes back exactly."""

LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K})
"""Transfer syntaxes whose values may differ from the scanner's."""

LARGEST_FRAME = 1 << 27
"""Pixels of a frame, 134 million: five times the largest detectors. A few compressed bytes can claim more."""

LOSSY_NOTE = "The source image was compressed with loss."


@dataclass(frozen=True)
class PixelDescription:
    """How the pixels of a greyscale image are stored (Image Pixel Module, PS3.3 C.7.6.3).

    Attributes
    ----------
    rows, columns, frames
        Size of a frame in pixels, and how many frames there are.
    allocated, stored, high_bit
        BitsAllocated (8, 16 or 32), BitsStored and HighBit of one pixel cell.
    signed
        The stored values are two's complement.
    syntax
        Transfer syntax UID.
    swapped_words
        8-bit pixels lie in big endian 16-bit words (OW), so that neighbours have changed places (PS3.5 8.1.1).
    """

    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    syntax: uid.UID
    swapped_words: bool = False

    @property
    def encapsulated(self) -> bool:
        """Each frame is compressed on its own."""
        return self.syntax not in NATIVE

    @property
    def frame_bytes(self) -> int:
        """Length of one uncompressed frame."""
        return self.rows * self.columns * self.allocated // 8

    @property
    def kind(self) -> np.dtype[Any]:
        """Type of the stored values: as wide as the pixel cell, in this machine's byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")


def describe(data_set: Dataset) -> PixelDescription:
    """Read how the pixels of an image are stored. The pixels themselves need not have been read.

    Raises
    ------
    Quarantined
        The image is colour, a mask of single bits or packed, or its description is incomplete or contradicts itself.
    """
    photometric = data_set.get("PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        raise Quarantined("an image in palette colours, where a greyscale one is needed; no model runs on it")
    try:
        syntax = uid.UID(str(data_set.file_meta.TransferSyntaxUID))
        if syntax not in NATIVE | LOSSLESS | LOSSY:
            raise Quarantined(f"the transfer syntax {syntax.name} is not read; send the image in another one")
        if photometric not in ("MONOCHROME1", "MONOCHROME2") or int(data_set.get("SamplesPerPixel") or 1) != 1:
            raise Quarantined("a colour image, where a greyscale one is needed; no model runs on it")
        stored = int(data_set.BitsStored)
        high_bit = data_set.get("HighBit")
        description = PixelDescription(
            rows=int(data_set.Rows),
            columns=int(data_set.Columns),
            frames=int(data_set.get("NumberOfFrames") or 1),
            allocated=int(data_set.BitsAllocated),
            stored=stored,
            high_bit=stored - 1 if high_bit is None else int(high_bit),
            signed=bool(int(data_set.get("PixelRepresentation") or 0)),
            syntax=syntax,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise Quarantined(
            f"the description of the pixels is incomplete ({error}); repair the header and send it again"
        ) from error
    _require_sense(description)
    big_endian_words = (
        syntax == uid.ExplicitVRBigEndian and "PixelData" in data_set and data_set["PixelData"].VR == "OW"
    )
    if big_endian_words and description.allocated == 8:
        return replace(description, swapped_words=True)
    return description


def _require_sense(of: PixelDescription) -> None:
    if of.allocated == 1:
        raise Quarantined("one bit per pixel: a mask, where a greyscale image is needed; no model runs on it")
    if of.allocated == 12:
        raise Quarantined("12-bit pixels packed without gaps, a retired form that is not read; convert the image")
    if (
        of.allocated not in (8, 16, 32)
        or not 0 < of.stored <= of.high_bit + 1 <= of.allocated
        or min(of.rows, of.columns, of.frames) < 1
    ):
        raise Quarantined(
            f"{of.rows} rows, {of.columns} columns, {of.frames} frames, {of.stored} of {of.allocated} bits up to bit "
            f"{of.high_bit}: no such image; repair the header"
        )
    if of.rows * of.columns > LARGEST_FRAME:
        raise Quarantined(
            f"{of.rows} × {of.columns} pixels in one frame: no CT slice or X-ray is that large; repair the header"
        )


def compression_notes(header: Dataset) -> tuple[str, ...]:
    """Tell the reader of results that the image was compressed with loss, now or ever before (PS3.3 C.7.6.1.1.5)."""
    lossy = header.file_meta.TransferSyntaxUID in LOSSY or header.get("LossyImageCompression") == "01"
    return (LOSSY_NOTE,) if lossy else ()
