"""A C-STORE SCU that costs little: PDUs are laid out beforehand, and the kernel gathers them from mapped files.

Run as a process: it says ``ready``, waits for a line, sends everything over one association, and says how long it took.
"""

import mmap
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

CONTEXT = 1
MOST_BUFFERS = 1000  # IOV_MAX is 1024
LONGEST_PDU = 1 << 20
"""Where the peer takes any."""

Buffers = list[bytes | memoryview]


def main() -> None:
    port, called, calling = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    images = [Image(path) for path in sorted(Path(sys.argv[4]).iterdir())]
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    longest = associate(connection, called, calling, images[0])
    messages = [list(image.pdus(number + 1, longest)) for number, image in enumerate(images)]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for message in messages:
        send(connection, message)
        status = answer(connection)
        if status != 0:
            raise SystemExit(f"{called} answers {status:04X}")
    seconds = time.perf_counter() - began
    release = A_RELEASE_RQ()
    release.from_primitive(A_RELEASE())
    connection.sendall(release.encode())
    connection.recv(16)
    print(seconds, flush=True)


class Image:
    """A file's data set, mapped, and what its command says."""

    def __init__(self, path: Path) -> None:
        meta = pydicom.dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta
        self.sop_class = str(meta.MediaStorageSOPClassUID)
        self.instance = str(meta.MediaStorageSOPInstanceUID)
        self.syntax = str(meta.TransferSyntaxUID)
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED))
        sum(content[::4096])  # so that it is in memory
        start = 128 + 4 + 12 + meta.FileMetaInformationGroupLength
        self.data_set = content[start:]

    def pdus(self, message: int, longest: int) -> Iterator[bytes | memoryview]:
        """The C-STORE-RQ (PS3.7 9.3.1.1) in P-DATA-TF PDUs (PS3.8 9.3.5), a value each."""
        command = b"".join(
            (
                _element(0x0002, _uid(self.sop_class)),
                _element(0x0100, struct.pack("<H", 0x0001)),
                _element(0x0110, struct.pack("<H", message)),
                _element(0x0700, struct.pack("<H", 0)),
                _element(0x0800, struct.pack("<H", 1)),
                _element(0x1000, _uid(self.instance)),
            )
        )
        command = _element(0x0000, struct.pack("<L", len(command))) + command
        yield _header(len(command), 0x03) + command
        room = longest - 6
        for start in range(0, len(self.data_set), room):
            part = self.data_set[start : start + room]
            yield _header(len(part), 0x02 if start + room >= len(self.data_set) else 0x00)
            yield part


def _uid(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _header(length: int, control: int) -> bytes:
    return struct.pack(">BxLLBB", 0x04, length + 6, length + 2, CONTEXT, control)


def associate(connection: socket.socket, called: str, calling: str, image: Image) -> int:
    """Open the association; return the longest PDU that the peer takes."""
    wanted = A_ASSOCIATE()
    wanted.application_context_name = "1.2.840.10008.3.1.1.1"
    wanted.calling_ae_title, wanted.called_ae_title = calling, called
    context = build_context(image.sop_class, image.syntax)
    context.context_id = CONTEXT
    wanted.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.826.0.1.3680043.10.2"
    wanted.user_information = [length, implementation]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(wanted)
    connection.sendall(request.encode())
    header = receive(connection, 6)
    body = receive(connection, struct.unpack(">L", header[2:])[0])
    if header[0] != 0x02:
        raise SystemExit(f"{called} does not accept the association")
    accepted = A_ASSOCIATE_AC()
    accepted.decode(header + body)
    primitive = accepted.to_primitive()
    if primitive.presentation_context_definition_results_list[0].result != 0:
        raise SystemExit(f"{called} does not accept the images")
    return primitive.maximum_length_received or LONGEST_PDU


def send(connection: socket.socket, buffers: Buffers) -> None:
    """All of these bytes, in as few calls as there can be."""
    for start in range(0, len(buffers), MOST_BUFFERS):
        left = buffers[start : start + MOST_BUFFERS]
        sent = connection.sendmsg(left)
        while sent < sum(map(len, left)):
            while sent >= len(left[0]):
                sent -= len(left.pop(0))
            left[0] = memoryview(left[0])[sent:]
            sent = connection.sendmsg(left)


def answer(connection: socket.socket) -> int:
    """The status of the next C-STORE-RSP."""
    header = receive(connection, 6)
    body = receive(connection, struct.unpack(">L", header[2:])[0])
    at = body.rfind(b"\0\0\0\x09\x02\0\0\0")  # (0000,0900), two bytes; message 521 looks like it, and comes before
    if header[0] != 0x04 or at < 0:
        raise SystemExit("the peer ends the association")
    return int.from_bytes(body[at + 8 : at + 10], "little")


def receive(connection: socket.socket, count: int) -> bytes:
    """So many bytes."""
    content = connection.recv(count, socket.MSG_WAITALL)
    if len(content) < count:
        raise SystemExit("the peer closes the connection")
    return content


if __name__ == "__main__":
    main()
