"""A DICOM archive that answers whatever a test wants, on a socket of its own: the counterpart of `tests.raw_peer`."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from service.types import Destination
from tests.raw_peer import COMMAND, LAST, command_set, elements, p_data, pdv, uid, us

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT = 0x01, 0x04, 0x05, 0x07
RELEASE_RP = bytes.fromhex("06 00 00000004 00000000")
ECHO_RQ = 0x0030


class Hangup(Exception):
    """The peer has ended the connection, released or aborted the association."""


@dataclass(frozen=True)
class Request:
    """A message that came, its data set put together again."""

    context: int
    field: int
    message_id: int
    sop_class: str
    instance: str
    data_set: bytes


@dataclass
class Line:
    """One connection to the archive.

    Attributes
    ----------
    longest
        Bytes of the longest P-DATA-TF PDU that came.
    end
        How it ended: ``released``, ``aborted`` or ``closed``.
    """

    connection: socket.socket
    proposed: dict[int, tuple[str, str]] = field(default_factory=dict)
    longest: int = 0
    end: str = ""

    def asked(self) -> A_ASSOCIATE:
        """Read the A-ASSOCIATE-RQ."""
        kind, content = self.pdu()
        assert kind == ASSOCIATE_RQ
        request = A_ASSOCIATE_RQ()
        request.decode(struct.pack(">BxI", kind, len(content)) + content)
        primitive = request.to_primitive()
        contexts = primitive.presentation_context_definition_list
        self.proposed = {
            one.context_id or 0: (str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in contexts
        }
        return primitive

    def accept(self, refuse: Collection[str] = (), maximum: int = 16384) -> None:
        """Read the A-ASSOCIATE-RQ and accept it, but for some SOP classes or transfer syntaxes."""
        asked = self.asked()
        answer = A_ASSOCIATE()
        answer.application_context_name = UID("1.2.840.10008.3.1.1.1")
        answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
        answer.result, answer.result_source = 0, 1
        results = []
        for number, storage in self.proposed.items():
            context = build_context(*storage)
            context.context_id, context.result = number, 3 if set(storage) & set(refuse) else 0
            results.append(context)
        answer.presentation_context_definition_results_list = results
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received, implementation.implementation_class_uid = maximum, UID("1.2.3")
        answer.user_information = [length, implementation]
        self.send(bytes(A_ASSOCIATE_AC(answer).encode()))

    def reject(self, result: int = 1, source: int = 1, reason: int = 3) -> None:
        """Read the A-ASSOCIATE-RQ and reject it."""
        self.asked()
        answer = A_ASSOCIATE()
        answer.result, answer.result_source, answer.diagnostic = result, source, reason
        self.send(bytes(A_ASSOCIATE_RJ(answer).encode()))

    def request(self) -> Request:
        """Read the next message. Raises `Hangup`, after it has answered a release."""
        command, content, control, context = b"", b"", 0, 0
        while not control & LAST or (control & COMMAND and elements(command)[0x0800] != us(0x0101)):
            kind, payload = self.pdu()
            if kind != P_DATA:
                self.end = {RELEASE_RQ: "released", ABORT: "aborted"}.get(kind, "closed")
                if kind == RELEASE_RQ:
                    self.send(RELEASE_RP)
                raise Hangup
            self.longest = max(self.longest, len(payload))
            length, context, control = struct.unpack_from(">IBB", payload)
            assert length == len(payload) - 4, "more than one value in a PDU"
            if control & COMMAND:
                command += payload[6:]
            else:
                content += payload[6:]
        found = elements(command)
        sop_class, instance = (found.get(tag, b"").rstrip(b"\0").decode() for tag in (0x0002, 0x1000))
        field, message_id = (int.from_bytes(found[tag], "little") for tag in (0x0100, 0x0110))
        return Request(context, field, message_id, sop_class, instance, content)

    def respond(self, to: Request, status: int = 0, message_id: int | None = None, field: int | None = None) -> None:
        """Answer a message."""
        self.send(self.response(to, status, message_id, field))

    @staticmethod
    def response(to: Request, status: int = 0, message_id: int | None = None, field: int | None = None) -> bytes:
        """The PDU of a response."""
        answer = {
            0x0002: uid(to.sop_class),
            0x0100: us(to.field | 0x8000 if field is None else field),
            0x0120: us(to.message_id if message_id is None else message_id),
            0x0800: us(0x0101),
            0x0900: us(status),
            0x1000: uid(to.instance),
        }
        return p_data(pdv(to.context, COMMAND | LAST, command_set(answer)))

    def pdu(self) -> tuple[int, bytes]:
        """Type and content of the next PDU; type 0 where the connection has ended."""
        header = self.exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self.exactly(length)

    def exactly(self, count: int) -> bytes:
        content = b""
        with contextlib.suppress(ConnectionResetError):
            while len(content) < count and (more := self.connection.recv(count - len(content))):
                content += more
        return content

    def wait(self, reading: bool = True) -> None:
        """Say nothing until the peer has hung up, or ``reading`` nothing until the test ends."""
        if reading:
            while self.pdu()[0]:
                pass
        else:
            time.sleep(3)

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)


Script = Callable[[Line], None]


def takes_all(line: Line) -> None:
    """The script of an archive that takes everything."""
    line.accept()
    while True:
        line.respond(line.request())


class RawArchive:
    """Plays a script on each connection: the first one on the first, and so on, the last one on all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.lines: list[Line] = []
        self.failures: list[BaseException] = []
        self._scripts = scripts or (takes_all,)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.destination = Destination("archive", "ARCHIVE", "127.0.0.1", self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for line in self.lines:
            with contextlib.suppress(OSError):
                line.connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        if error is None and self.failures:
            raise self.failures[0]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(20)
                line = Line(connection)
                script = self._scripts[min(len(self.lines), len(self._scripts) - 1)]
                self.lines.append(line)
                self._threads.append(threading.Thread(target=self._play, args=(script, line), daemon=True))
                self._threads[-1].start()

    def _play(self, script: Script, line: Line) -> None:
        try:
            script(line)
        except (Hangup, OSError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            line.connection.close()
