"""The Storage SCU (PS3.4 B): files to a peer over one association, each with its answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from service.errors import ArchiveUnavailable, Rejected
from service.types import Destination
from service.wire import VERIFICATION, association


@dataclass(frozen=True)
class Sendable:
    """A file and what must be negotiated for it."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def sendable(path: Path) -> Sendable:
    """What must be negotiated to send a file. Raises `Rejected` where it is no DICOM file (PS3.10), or has no UIDs."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        file = Sendable(
            path, str(header.SOPClassUID), str(header.SOPInstanceUID), str(header.file_meta.TransferSyntaxUID)
        )
    except (InvalidDicomError, AttributeError, OSError, ValueError, KeyError) as error:
        raise Rejected("not a DICOM file with file meta information (PS3.10)") from error
    if not (file.sop_class_uid and file.sop_instance_uid):
        raise Rejected("SOPClassUID or SOPInstanceUID is empty: no peer could tell which instance it is")
    return file


@dataclass(frozen=True)
class Answer:
    """What the peer said to one file; ``refusal`` is empty where it has taken it (perhaps with a warning, 0xBnnn)."""

    file: Sendable
    refusal: str


def send(destination: Destination, calling_ae_title: str, files: Sequence[Sendable]) -> Iterator[Answer]:
    """Send all files, bit for bit in their own transfer syntax, and give each answer as it comes.

    Raises
    ------
    ArchiveUnavailable
        The peer cannot be reached, is out of resources (0xA7nn), or the association broke. Sending all again is safe.
    Rejected
        The peer rejects the association, or takes none of the SOP classes.
    """
    waiting = list(files)
    while waiting:
        batch, contexts = _batch(waiting)
        with association(destination, calling_ae_title, contexts) as opened:
            for file in batch:
                yield Answer(file, _store(opened, destination, file))
        waiting = waiting[len(batch) :]


def echo(destination: Destination, calling_ae_title: str) -> None:
    """Verify that the peer answers (C-ECHO). Raises as `send`."""
    with association(destination, calling_ae_title, [build_context(VERIFICATION)]) as opened:
        status = opened.send_c_echo()
        if "Status" not in status or status.Status != 0:
            raise ArchiveUnavailable(f"{destination.name}: no answer to C-ECHO")


def _batch(files: list[Sendable]) -> tuple[list[Sendable], list[PresentationContext]]:
    """The first files that fit into one association of at most 128 presentation contexts (PS3.8 9.3.2.2)."""
    needed: dict[tuple[str, str], None] = {}
    for number, file in enumerate(files):
        pair = (file.sop_class_uid, file.transfer_syntax_uid)
        if pair not in needed and len(needed) == 128:
            return files[:number], [build_context(*each) for each in needed]
        needed[pair] = None
    return files, [build_context(*each) for each in needed]


def _store(opened: Association, destination: Destination, file: Sendable) -> str:
    """Send one file; return why it was refused for good, or nothing (status codes: PS3.4 table B.2-1)."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # otherwise the file would be parsed and encoded again, not sent as it is
    sop_class = UID(file.sop_class_uid).name
    try:
        answer = opened.send_c_store(file.path)
    except ValueError:  # no accepted presentation context
        return f"{sop_class} is not accepted by {destination.ae_title}"
    except (AttributeError, RuntimeError) as error:
        raise ArchiveUnavailable(f"{destination.name}: the association ended while sending") from error
    if "Status" not in answer:
        raise ArchiveUnavailable(f"{destination.name}: no answer to C-STORE; the association ended")
    status = int(answer.Status)
    if status & 0xFF00 == 0xA700:
        raise ArchiveUnavailable(f"{destination.name}: out of resources (0x{status:04X})")
    if status == 0 or 0xB000 <= status <= 0xBFFF:
        return ""
    return f"{sop_class} is refused by {destination.ae_title} with status 0x{status:04X}"
