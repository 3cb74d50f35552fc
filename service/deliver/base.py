"""The seam between an archive's sender and the ways to send: C-STORE or STOW-RS."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from service.deliver.association import Sendable
from service.deliver.scu import Answer

Pacing = Callable[[int], object]
"""Called before an object of so many bytes is sent; returns when it may be."""


class Way(Protocol):
    """A way to send. Its methods may be called from several threads at once."""

    def send(self, files: Sequence[Sendable], pacing: Pacing) -> Generator[Answer]:
        """Send files that belong together, and give each answer as it comes.

        Where the archive takes one of them in no case, those that follow are not sent and not answered, because they
        may refer to it; where that is known before, none is sent.

        Raises
        ------
        ArchiveUnavailable, Rejected, OSError
            As `service.deliver.scu.send`.
        """

    def close(self) -> None:
        """Close what is kept open."""
