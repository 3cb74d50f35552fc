"""A listener on a free port, whose intake keeps in memory what it is given."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import OutOfResources
from service.receive.listener import Listener
from service.receive.policy import AssociationPolicy
from service.received import Received
from service.settings import parse
from service.spill import Spill


@dataclass
class Kept:
    """What an intake was told."""

    folder: Path
    status: int = 0
    error: Exception | None = None
    full: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    reports: list[tuple[str, bytes]] = field(default_factory=list)
    associations: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(
        self,
        received: Received,
        sender: str,
        association: int,
        named: tuple[str, str] | None = None,
        acknowledge: Callable[[], object] | None = None,
    ) -> int:
        if self.error is not None:
            raise self.error
        assert named is not None
        content = bytes(received.head) if received.file is None else received.file.read_bytes()
        assert len(content) == received.length
        assert content.startswith(bytes(received.head))
        with self._lock:
            self.files[named[1]] = content
            self.associations.add(association)
        return self.status

    def report(self, received: Received, sender: str) -> int:
        self.reports.append((sender, bytes(received.whole())))
        if self.error is not None:
            raise self.error
        return self.status

    def refuse(self, sender: str, reason: str) -> None:
        self.refusals.append(reason)

    def released(self, association: int) -> None:
        self.ends.append("released")

    def aborted(self, association: int) -> None:
        self.ends.append("aborted")

    def spool_file(self) -> Spill:
        def claim(length: int) -> None:
            if self.full:
                raise OutOfResources("the spool is full")

        return Spill(self.folder / f"{hashlib.sha1(str(len(self.files)).encode()).hexdigest()}.part", claim)

    def data_set(self, instance: str) -> bytes:
        """The data set of an instance: what follows the file meta information."""
        content = self.files[instance]
        assert content[:132] == bytes(128) + b"DICM"
        return content[144 + int.from_bytes(content[140:144], "little") :]


@dataclass
class Listening:
    listener: Listener
    kept: Kept

    @property
    def port(self) -> int:
        return self.listener.port


@contextmanager
def listening(folder: Path, **node: object) -> Iterator[Listening]:
    """A node NODE that takes everybody, with these settings."""
    settings = parse({"node": {"ae_title": "NODE", "port": 0, "accept_unknown_senders": True, **node}}, "test")
    kept = Kept(folder)
    listener = Listener(settings, AssociationPolicy(settings), kept)
    listener.start()
    try:
        yield Listening(listener, kept)
    finally:
        listener.stop()
