"""One instance while it is uploaded: in memory, and, where it is large, in a file of the spool."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from pydicom.filereader import read_dataset

from service.receive.buffer import IN_MEMORY
from service.received import Received
from service.record import PREAMBLE
from service.spill import Spill

WRITTEN_AT_ONCE = 4 << 20


class TooLarge(ValueError):
    """More comes than a single instance may have."""


class Upload:
    """Takes the bytes of one DICOM file as they come.

    Parameters
    ----------
    spill
        Opens a file for a large one.
    largest
        Bytes that it may have.
    """

    def __init__(self, spill: Callable[[], Spill], largest: int) -> None:
        self._open, self._largest = spill, largest
        self._head, self._more = bytearray(), bytearray()
        self._file: Spill | None = None
        self._length = 0

    def add(self, data: bytes) -> bool:
        """Take more bytes; return whether it is time to `flush`. Raises `TooLarge`."""
        self._length += len(data)
        if self._length > self._largest:
            raise TooLarge
        room = IN_MEMORY - len(self._head)
        self._head += data[:room]
        if len(data) > room:
            self._more += data[room:]
        return len(self._more) >= WRITTEN_AT_ONCE

    def flush(self) -> None:
        """Write to the file what is to go there. Raises `OutOfResources`."""
        if self._file is None:
            self._file = self._open()
            self._clear_preamble()
            self._write(self._head)
        self._write(self._more)
        self._more = bytearray()

    def whole(self) -> Received:
        """Nothing more comes: the instance, good until this is discarded. Raises `OutOfResources`."""
        self._clear_preamble()
        if self._more:
            self.flush()
        if self._file is None:
            return Received(memoryview(self._head), self._length)
        self._file.close()
        return Received(memoryview(self._head), self._length, self._file.path)

    def discard(self) -> None:
        """Remove the file, where nobody has taken it."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _write(self, data: bytearray) -> None:
        assert self._file is not None
        with memoryview(data) as view:
            self._file.write(view)

    def _clear_preamble(self) -> None:
        """A sender's preamble can make a program of an image (PS3.10 7.1); ours is empty, as over C-STORE."""
        if len(self._head) >= PREAMBLE:
            self._head[:PREAMBLE] = bytes(PREAMBLE)


@dataclass(frozen=True)
class FileMeta:
    """What the file meta information (PS3.10 7.1) says an instance is; what C-STORE's command and context say."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def file_meta(head: memoryview) -> FileMeta | None:
    """Read it from the beginning of a file; None where it is no DICOM file, or says not what it is."""
    if bytes(head[PREAMBLE : PREAMBLE + 4]) != b"DICM":
        return None
    try:
        meta = read_dataset(
            BytesIO(head[PREAMBLE + 4 : PREAMBLE + 65536]),
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag.group != 2,
        )
        found = FileMeta(
            str(meta.get("MediaStorageSOPClassUID") or ""),
            str(meta.get("MediaStorageSOPInstanceUID") or ""),
            str(meta.get("TransferSyntaxUID") or ""),
        )
    except MemoryError:
        raise
    except Exception:  # a parser can fail in many ways on hostile bytes; the answer is always the same
        return None
    return found if all(vars(found).values()) else None
