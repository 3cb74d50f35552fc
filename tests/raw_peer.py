"""A DICOM peer that sends whatever bytes a test wants, on a socket of its own."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext, build_context

from service.wire import VERIFICATION

ECHO, STORE = 1, 3
"""Presentation contexts that `RawPeer.associate` asks for."""
COMMAND, DATA, LAST = 1, 0, 2

RELEASE_RQ = bytes.fromhex("05 00 00000004 00000000")
ABORT_RQ = bytes.fromhex("07 00 00000004 00000000")
RELEASE_RP, ABORT, ACCEPTED, REJECTED = 0x06, 0x07, 0x02, 0x03


def request(contexts: Sequence[PresentationContext], calling: str, called: str, maximum: int = 16384) -> bytes:
    """An A-ASSOCIATE-RQ."""
    asked = A_ASSOCIATE()
    asked.application_context_name = UID("1.2.840.10008.3.1.1.1")
    asked.calling_ae_title, asked.called_ae_title = calling, called
    asked.presentation_context_definition_list = list(contexts)
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = maximum
    implementation.implementation_class_uid = UID("1.2.3")
    asked.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def pdv(context: int, control: int, payload: bytes) -> bytes:
    return struct.pack(">IBB", len(payload) + 2, context, control) + payload


def p_data(*pdvs: bytes) -> bytes:
    content = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(content)) + content


def uid(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def command_set(elements: dict[int, bytes]) -> bytes:
    content = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(content)) + content


def store_command(instance: str, sop_class: str = CTImageStorage, data_set: int = 0x0001, message: int = 7) -> bytes:
    return command_set(
        {
            0x0002: uid(sop_class),
            0x0100: us(0x0001),
            0x0110: us(message),
            0x0700: us(0),
            0x0800: us(data_set),
            0x1000: uid(instance),
        }
    )


def echo_command(message: int = 9) -> bytes:
    return command_set({0x0002: uid(VERIFICATION), 0x0100: us(0x0030), 0x0110: us(message), 0x0800: us(0x0101)})


def elements(encoded: bytes) -> dict[int, bytes]:
    """The elements of a command set."""
    found, at = {}, 0
    while at < len(encoded):
        _, tag, length = struct.unpack_from("<HHI", encoded, at)
        found[tag] = encoded[at + 8 : at + 8 + length]
        at += 8 + length
    return found


@dataclass
class RawPeer:
    """One connection."""

    port: int
    calling: str = "SCANNER"
    maximum: int = 16384
    called: str = "NODE"
    line: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.line = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.line.close()

    def associate(self, sop_class: str = CTImageStorage, syntax: str = ExplicitVRLittleEndian) -> None:
        contexts = [build_context(VERIFICATION), build_context(sop_class, syntax)]
        for number, context in zip((ECHO, STORE), contexts, strict=True):
            context.context_id = number
        self.send(request(contexts, self.calling, self.called, self.maximum))
        assert self.receive()[0] == ACCEPTED

    def send(self, content: bytes) -> None:
        self.line.sendall(content)

    def receive(self) -> tuple[int, bytes]:
        """Type and content of the next PDU; type 0 where the connection has ended."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            try:
                more = self.line.recv(count - len(content))
            except ConnectionResetError:
                more = b""
            if not more:
                break
            content += more
        return content

    def response(self) -> dict[int, bytes]:
        """The elements of the next response, however many PDUs carry it."""
        encoded, control = b"", 0
        while not control & LAST:
            kind, content = self.receive()
            assert kind == 4, f"PDU 0x{kind:02X} {content.hex()}"
            length, _, control = struct.unpack_from(">IBB", content)
            assert control & COMMAND
            assert length == len(content) - 4
            encoded += content[6:]
        return elements(encoded)

    def status(self) -> int:
        """The status of the next response."""
        return int.from_bytes(self.response()[0x0900], "little")

    def echo(self) -> int:
        self.send(p_data(pdv(ECHO, COMMAND | LAST, echo_command())))
        return self.status()

    def store(self, instance: str, data_set: bytes, size: int = 1 << 14) -> int:
        """Send an instance in fragments of so many bytes; return the status."""
        for content in stored(instance, data_set, size):
            self.send(content)
        return self.status()

    def release(self) -> int:
        """Ask for the release; return the type of the PDU that answers."""
        self.send(RELEASE_RQ)
        return self.receive()[0]

    def aborted(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that must come next."""
        kind, content = self.receive()
        assert kind == ABORT, f"PDU 0x{kind:02X} {content.hex()}"
        assert len(content) == 4
        return content[2], content[3]


def stored(instance: str, data_set: bytes, size: int = 1 << 14) -> Iterator[bytes]:
    """The PDUs of a C-STORE request."""
    yield p_data(pdv(STORE, COMMAND | LAST, store_command(instance)))
    for at in range(0, len(data_set), size):
        last = LAST if at + size >= len(data_set) else 0
        yield p_data(pdv(STORE, DATA | last, data_set[at : at + size]))


@contextmanager
def associated(port: int, **kwargs: str) -> Iterator[RawPeer]:
    """A peer with an association."""
    with RawPeer(port, **kwargs) as peer:  # type: ignore[arg-type]
        peer.associate()
        yield peer
