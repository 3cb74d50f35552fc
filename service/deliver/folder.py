"""Send a folder of DICOM files, with a progress bar and a report."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from service.deliver.association import Sendable
from service.deliver.scu import send, sendable
from service.errors import ArchiveUnavailable, Rejected
from service.types import Destination

ATTEMPTS = 3


@dataclass(frozen=True)
class Report:
    """How many files the peer has taken; which it has not, or were no DICOM, with the reason."""

    sent: int
    skipped: tuple[tuple[Path, str], ...]


def send_folder(path: Path, destination: Destination, calling_ae_title: str, console: Console) -> Report:
    """Send all DICOM files of a folder and below; what was answered before a broken association is not sent again.

    Raises
    ------
    ArchiveUnavailable
        The peer cannot be reached, or the association broke several times.
    Rejected
        The peer rejects the association.
    """
    waiting: dict[Path, Sendable] = {}
    skipped: list[tuple[Path, str]] = []
    for file in _files(path):
        try:
            waiting[file] = sendable(file)
        except Rejected as error:
            skipped.append((file, str(error)))
    sent = 0
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"to {destination.ae_title}", total=len(waiting))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for answer in send(destination, calling_ae_title, list(waiting.values())):
                    del waiting[answer.file.path]
                    progress.advance(task)
                    if answer.refusal:
                        skipped.append((answer.file.path, answer.refusal))
                    else:
                        sent += 1
                break
            except ArchiveUnavailable:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(attempt)
    return Report(sent, tuple(skipped))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from sorted(file for file in path.rglob("*") if file.is_file())
