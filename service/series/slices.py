"""One CT instance to the slices that it holds: where each lies, what tells it apart, its values in a slab.

The pixels are read straight from the file: nothing is parsed or held twice.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from service.errors import PermanentError, Quarantined
from service.series.ct_header import CTHeader, Marks, PixelData, read_header
from service.series.geometry import Plane
from service.series.padding import without_padding
from service.series.pixel_description import PixelDescription
from service.series.pixels import coded_frames, decode_frame, native_frame
from service.series.slab import Slab, Slot, copy_of

SLICES = (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)


class NotMeant(PermanentError):
    """No model is meant to see this instance; nothing is wrong with it."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One CT slice; its values, in modality units, lie in ``slot``.

    Attributes
    ----------
    frame
        Frame number (from 1) within a multi-frame image.
    number
        Instance number, or the frame's number; slices in a row have numbers in a row. 0 where there is none.
    """

    file: Path
    header: CTHeader
    frame: int | None
    number: int
    plane: Plane
    slot: Slot

    @property
    def uid(self) -> str:
        """The SOP instance that it is from."""
        return self.header.sop_instance_uid

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.slot.slab.shape

    @property
    def frame_of_reference(self) -> str:
        """FrameOfReferenceUID."""
        return self.header.text(0, "FrameOfReferenceUID")

    @cached_property
    def marks(self) -> Marks:
        """What may tell it apart from another slice at the same position."""
        return self.header.marks((self.frame or 1) - 1)


Slabs = Callable[[tuple[int, int], np.dtype[Any]], Slab]
"""Gives the slab for slices of a shape and type."""

INT16 = np.dtype(np.int16)


@dataclass(frozen=True, eq=False)
class Image:
    """A CT instance whose header was read: its frames can be read one by one, by several threads."""

    file: Path
    header: CTHeader
    frames: Sequence[Callable[[], NDArray[Any]]]

    def slice(self, index: int, slabs: Slabs, counted: int) -> Slice:
        """Read a frame and keep its values.

        Parameters
        ----------
        slabs
            Where the values go.
        counted
            Stands in for an instance number that is not there, to find a place in a slab.

        Raises
        ------
        NotMeant
            It is a localiser.
        Quarantined
            The frame has no place, or cannot be decoded.
        """
        header = self.header
        if "LOCALIZER" in header.text(index, "FrameType", "ImageType"):
            raise NotMeant("a localiser, which is not part of the volume")
        plane = header.plane(index)
        slope, intercept = header.number_of(index, "RescaleSlope"), header.number_of(index, "RescaleIntercept")
        number = index if header.multi_frame else header.number()
        slot = self._keep(index, slabs, counted if number is None else number, plane.along, slope, intercept)
        return Slice(
            file=self.file,
            header=header,
            frame=index + 1 if header.multi_frame else None,
            number=number or 0,
            plane=plane,
            slot=slot,
        )

    def _keep(self, index: int, slabs: Slabs, number: int, along: float, slope: float, intercept: float) -> Slot:
        frame, storage = self.frames[index], self.header.storage
        shape = storage.description.rows, storage.description.columns
        plain = storage.description.allocated == 16 and storage.padding is None
        if plain and isinstance(frame, Native) and slope == 1 and intercept.is_integer():
            with suppress(_TooWide):
                return slabs(shape, INT16).write(number, along, partial(frame.read_shifted, int(intercept)))
        stored = frame()
        values = in_modality_units(stored, slope, intercept)
        if storage.padding is not None:
            values = without_padding(values, storage.padding.mask(stored))
        return slabs(shape, values.dtype).write(number, along, copy_of(values))


def open_image(file: Path) -> Image:
    """Read the header of a CT instance and find its frames.

    Raises
    ------
    NotMeant
        It is none.
    Quarantined
        The header does not describe pixels that can be decoded, or there are too few of them.
    """
    found = read_header(file, SLICES)
    if isinstance(found, str):
        raise NotMeant(f"{found}: carried along, never processed")
    header, pixel_data = found
    return Image(file, header, _frames(file, header.storage.description, pixel_data))


def in_modality_units(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.int16] | NDArray[np.float32]:
    """The modality transform of CT (PS3.3 C.11.1): int16 where that is exact, else float32.

    Raises
    ------
    Quarantined
        Slope and intercept leave no image.
    """
    low, high = (float(end) * slope + intercept for end in (stored.min(), stored.max()))
    if slope == 0 or not max(abs(low), abs(high)) <= _LARGEST:  # also where one of them is no number
        raise Quarantined(f"rescale slope {slope:g}, intercept {intercept:g}: no image is left; repair the header")
    if slope.is_integer() and intercept.is_integer():
        low, high = (int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max()))
        if low in _INT16_RANGE and high in _INT16_RANGE:
            # modulo 2**16, and so exact where the result fits
            values = stored.astype(np.int16)
            values *= _modulo(int(slope))
            values += _modulo(int(intercept))
            return values
    return (stored * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def _modulo(value: int) -> np.int16:
    return np.uint16(value & 0xFFFF).astype(np.int16)


def _bounds(description: PixelDescription) -> tuple[int, int]:
    """The lowest and the highest value that can be stored."""
    if description.signed:
        return -(1 << description.stored - 1), (1 << description.stored - 1) - 1
    return 0, (1 << description.stored) - 1


_INT16_RANGE = range(-32768, 32768)
_LARGEST = float(np.finfo(np.float32).max)


class _TooWide(Exception):
    """The values need more than 16 bits."""


@dataclass(frozen=True)
class Native:
    """An uncompressed frame in a file."""

    file: Path
    start: int
    description: PixelDescription
    index: int

    def __call__(self) -> NDArray[Any]:
        """Read the stored values."""
        content = np.empty(self.description.frame_bytes, np.uint8)
        self._read(content)
        return native_frame(content.data, self.description)

    def read_shifted(self, intercept: int, target: NDArray[np.int16]) -> None:
        """Read 16-bit values to where they stay, and add the intercept there. Raises `_TooWide`."""
        of = self.description
        self._read(target)
        cells = target.view(of.kind)
        if of.stored < 16:
            cells <<= 15 - of.high_bit
            cells >>= 16 - of.stored
        low, high = _bounds(of)
        if low + intercept not in _INT16_RANGE or high + intercept not in _INT16_RANGE:
            low, high = int(cells.min()), int(cells.max())
        if low + intercept not in _INT16_RANGE or high + intercept not in _INT16_RANGE:
            raise _TooWide
        if intercept:
            target += _modulo(intercept)  # modulo 2**16, and so exact where the sum fits

    def _read(self, target: NDArray[Any]) -> None:
        file = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.preadv(file, [target.data], self.start + self.index * self.description.frame_bytes)
        finally:
            os.close(file)
        if size != self.description.frame_bytes:
            raise Quarantined("truncated: the file ends within the pixel data; send the image again from its source")


def _frames(file: Path, description: PixelDescription, pixel_data: PixelData) -> Sequence[Callable[[], NDArray[Any]]]:
    if isinstance(pixel_data, bytes):
        return [partial(native_frame, pixel_data, description, index) for index in range(description.frames)]
    if description.encapsulated:
        with file.open("rb") as stream:
            stream.seek(pixel_data.start)
            coded = stream.read(-1 if pixel_data.length is None else pixel_data.length)
        return [partial(decode_frame, frame, description) for frame in coded_frames(coded, description)]
    if pixel_data.length is None:
        raise Quarantined("compressed pixel data that is announced as uncompressed; send the image again")
    needed = description.frame_bytes * description.frames
    if pixel_data.length < needed:
        raise Quarantined(
            f"truncated: {pixel_data.length} bytes of pixel data where {needed} are needed; "
            "send the image again from its source"
        )
    return [Native(file, pixel_data.start, description, index) for index in range(description.frames)]
