"""The Storage SCU (PS3.4 B): files to a peer over one association, each with its answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom.dsutils import split_dataset

from service.deliver.association import Association, Sendable
from service.deliver.proposal import MOST_CONTEXTS
from service.deliver.statuses import Verdict, verdict
from service.errors import ArchiveUnavailable, Rejected
from service.results.storage import Storage
from service.types import Destination
from service.walk import identity_of, meta_of
from service.wire.dimse import MAXIMUM_UID

MOST_PROPOSED = MOST_CONTEXTS - 1
"""Storages that one association can propose: Verification is another."""

_HEAD = 4096


def sendable(path: Path) -> Sendable:
    """What must be negotiated to send a file. Raises `Rejected` where it is no DICOM file (PS3.10), or has no UIDs."""
    try:
        file = _walked(path) or _parsed(path)
    except (InvalidDicomError, AttributeError, OSError, ValueError, KeyError) as error:
        raise Rejected("not a DICOM file with file meta information (PS3.10)") from error
    if not (file.sop_class_uid and file.sop_instance_uid and file.transfer_syntax_uid):
        raise Rejected("SOPClassUID or SOPInstanceUID is empty: no peer could tell which instance it is")
    if max(map(len, (*file.storage, file.sop_instance_uid))) > MAXIMUM_UID:
        raise Rejected(f"a UID is longer than {MAXIMUM_UID} characters (PS3.5 9.1)")
    return file


def _walked(path: Path) -> Sendable | None:
    """By its first bytes; None where something in them is unusual."""
    with path.open("rb", buffering=0) as stream:
        head = stream.read(_HEAD)
    meta, identity = meta_of(head), identity_of(head)
    return None if meta is None or identity is None else Sendable(path, *identity, str(meta[0]), meta[1])


def _parsed(path: Path) -> Sendable:
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    _, start = split_dataset(path)
    syntax = str(header.file_meta.TransferSyntaxUID)
    return Sendable(path, str(header.SOPClassUID), str(header.SOPInstanceUID), syntax, start)


@dataclass(frozen=True)
class Answer:
    """What the peer said to one file.

    Attributes
    ----------
    refusal
        Empty where it has taken it.
    warning
        What it remarks on one that it has taken (0xBnnn), or empty.
    unsupported
        It takes no file of this SOP class in this transfer syntax.
    """

    file: Sendable
    refusal: str = ""
    warning: str = ""
    unsupported: bool = False


def send(destination: Destination, calling_ae_title: str, files: Sequence[Sendable]) -> Iterator[Answer]:
    """Send all files, bit for bit in their own transfer syntax, and give each answer as it comes.

    Raises
    ------
    ArchiveUnavailable
        The peer cannot be reached, is out of resources (0xA7nn), or the association broke. Sending all again is safe.
    Rejected
        The peer rejects the association.
    OSError
        A file cannot be read.
    """
    waiting = list(files)
    while waiting:
        storages, batch = first_storages(waiting)
        with Association(destination, calling_ae_title, storages) as opened:
            for file in waiting[:batch]:
                yield store(opened, destination, file)
        waiting = waiting[batch:]


def first_storages(files: Sequence[Sendable], most: int = MOST_PROPOSED) -> tuple[list[Storage], int]:
    """What the first files need that fit into one association, and how many files that are."""
    needed: dict[Storage, None] = {}
    for number, file in enumerate(files):
        if file.storage not in needed and len(needed) == most:
            return list(needed), number
        needed[file.storage] = None
    return list(needed), len(files)


def store(opened: Association, destination: Destination, file: Sendable) -> Answer:
    """Send one file. Raises `ArchiveUnavailable` where the peer does not take it now, `OSError`."""
    if file.storage not in opened.accepted:
        return not_accepted(destination, file)
    return answer_of(destination, file, opened.store(file))


def not_accepted(destination: Destination, file: Sendable) -> Answer:
    """The answer to a file whose presentation context was not accepted."""
    return Answer(file, f"{UID(file.sop_class_uid).name} is not accepted by {destination.ae_title}", unsupported=True)


def answer_of(destination: Destination, file: Sendable, status: int) -> Answer:
    """What a status comes to. Raises `ArchiveUnavailable` where the peer is out of resources."""
    said = verdict(status)
    if said == Verdict.LATER:
        raise ArchiveUnavailable(f"{destination.name}: out of resources (0x{status:04X})")
    if said in (Verdict.TAKEN, Verdict.WARNED):
        return Answer(file, warning="" if said == Verdict.TAKEN else f"status 0x{status:04X}")
    words = f"{UID(file.sop_class_uid).name} is refused by {destination.ae_title} with status 0x{status:04X}"
    return Answer(file, words, unsupported=said == Verdict.UNSUPPORTED)


def echo(destination: Destination, calling_ae_title: str) -> None:
    """Verify that the peer answers (C-ECHO). Raises as `send`."""
    with Association(destination, calling_ae_title, ()) as opened:
        if opened.echo():
            raise ArchiveUnavailable(f"{destination.name}: no answer to C-ECHO")
