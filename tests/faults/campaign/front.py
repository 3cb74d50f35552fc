"""What stands in front of the real archive: it passes DICOM on, PDU by PDU, and does to it what a fault says.

What it does not pass on the archive has never seen; what it answers itself the archive has never said. So whatever it
does, the truth is what the archive behind it has.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from tests.raw_peer import COMMAND, LAST, command_set, elements, p_data, pdv, uid, us
from tests.relay import Line, Relay

ASSOCIATE_RQ, ASSOCIATE_AC, P_DATA = 0x01, 0x02, 0x04
C_STORE_RQ, N_ACTION_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0130, 0x0100
IS_RESPONSE, NO_DATA_SET = 0x8000, 0x0101
ABORT = bytes.fromhex("07 00 00000004 0000 0200")
"""An A-ABORT of the service provider (PS3.8 9.3.8)."""


@dataclass
class Message:
    """A message from the node, as far as it has come.

    Attributes
    ----------
    syntax
        Transfer syntax of its presentation context.
    data_set
        Bytes of its data set so far; kept for an N-ACTION alone.
    length
        How many bytes of its data set have come.
    """

    context: int
    field: int
    message_id: int
    sop_class: str
    instance: str
    has_data_set: bool
    syntax: str = ""
    data_set: bytes = b""
    length: int = 0


@dataclass
class Talk:
    """What is known of one association."""

    line: Line
    classes: dict[int, str] = field(default_factory=dict)
    syntaxes: dict[int, str] = field(default_factory=dict)
    asked: dict[int, Message] = field(default_factory=dict)
    """Messages from the node by message ID."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def to_node(self, content: bytes) -> None:
        """Send whole PDUs."""
        with self.lock:
            self.line.near.sendall(content)

    def answer(self, to: Message, status: int) -> None:
        """Answer a message in the archive's place."""
        also = {0x1008: us(1)} if to.field == N_ACTION_RQ else {}
        fields = {
            0x0002: uid(to.sop_class),
            0x0100: us(to.field | IS_RESPONSE),
            0x0120: us(to.message_id),
            0x0800: us(NO_DATA_SET),
            0x0900: us(status),
            0x1000: uid(to.instance),
            **also,
        }
        self.to_node(p_data(pdv(to.context, COMMAND | LAST, command_set(fields))))

    def abort(self) -> None:
        """Abort it, towards both."""
        with contextlib.suppress(OSError):
            self.to_node(ABORT)
        with contextlib.suppress(OSError):
            self.line.far.sendall(ABORT)
        self.line.hang_up()


Decide = Callable[[Talk, Message], int | None]
"""The status that a message is answered with in the archive's place; None: it is passed on."""


class Front(Relay):
    """Stands in front of an archive. What it does is set by a fault, while it works.

    Attributes
    ----------
    refused
        SOP classes whose presentation contexts are not accepted (PS3.8 table 9-18, abstract syntax not supported).
    decide
        What becomes of each message of the node.
    cut_at
        How many bytes of a message's data set pass before the association is aborted; None: all do.
    before_answer
        Called before an answer of the archive to a message is passed on. It may take its time; where it is False the
        association is aborted, and the node never knows.
    whole
        Called with each message that was answered in the archive's place, when all of it has come.
    """

    def __init__(self, port: int) -> None:
        self.refused: frozenset[str] = frozenset()
        self.decide: Decide = lambda talk, message: None
        self.cut_at: Callable[[Message], int | None] = lambda message: None
        self.before_answer: Callable[[Message], bool] = lambda message: True
        self.whole: Callable[[Talk, Message], object] = lambda talk, message: None
        super().__init__(port)

    def _ways(self, line: Line) -> list[Callable[[], None]]:
        talk = Talk(line)
        return [lambda: self._from_node(talk), lambda: self._from_archive(talk)]

    # ---- node to archive -------------------------------------------------------------------------------------------

    def _from_node(self, talk: Talk) -> None:
        command, message, status = b"", None, None
        while pdu := _pdu(talk.line.near):
            if pdu[0] == ASSOCIATE_RQ:
                talk.classes = _classes(pdu)
            pass_on, answer = True, False
            for context, control, content in _values(pdu):
                if control & COMMAND:
                    command += content
                    if control & LAST:
                        message = _message(context, command, talk)
                        command = b""
                        status = self._decided(talk, message)
                elif message is not None:
                    message.length += len(content)
                    if message.field == N_ACTION_RQ:
                        message.data_set += content
                    cut = self.cut_at(message)
                    if cut is not None and message.length > cut:
                        return talk.abort()
                if message is not None and status is not None:
                    pass_on = False
                    answer = bool(control & LAST) and (not control & COMMAND or not message.has_data_set)
            self._passing.wait()
            if pass_on:
                talk.line.far.sendall(pdu)
            elif answer and message is not None and status is not None:
                if not message.field & IS_RESPONSE:
                    talk.answer(message, status)
                self.whole(talk, message)
                message = status = None

    def _decided(self, talk: Talk, message: Message) -> int | None:
        if message.field & IS_RESPONSE:  # to a report that was made here: the archive does not know of it
            return 0
        talk.asked[message.message_id] = message
        return self.decide(talk, message)

    # ---- archive to node -------------------------------------------------------------------------------------------

    def _from_archive(self, talk: Talk) -> None:
        while pdu := _pdu(talk.line.far):
            if pdu[0] == ASSOCIATE_AC:
                pdu = self._without_refused(pdu, talk)
                talk.syntaxes = _syntaxes(pdu)
            for _, control, content in _values(pdu):
                if control & COMMAND and control & LAST:
                    found = elements(content)
                    to = talk.asked.get(int.from_bytes(found.get(0x0120, b""), "little"))
                    if to is not None and not self.before_answer(to):
                        return talk.abort()
            self._passing.wait()
            talk.to_node(pdu)

    def _without_refused(self, pdu: bytes, talk: Talk) -> bytes:
        """An A-ASSOCIATE-AC in which some presentation contexts are not accepted (PS3.8 9.3.3.2)."""
        changed = bytearray(pdu)
        at = 74
        while at + 4 <= len(changed):
            kind, length = struct.unpack_from(">BxH", changed, at)
            if kind == 0x21 and talk.classes.get(changed[at + 4]) in self.refused:
                changed[at + 6] = 3
            at += 4 + length
        return bytes(changed)


def _pdu(source: socket.socket) -> bytes:
    """The next PDU; empty where the connection has ended."""
    header = _exactly(source, 6)
    return header + _exactly(source, int.from_bytes(header[2:], "big")) if header else b""


def _exactly(source: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        piece = source.recv(count - len(content))
        if not piece:
            return b""
        content += piece
    return bytes(content)


def _values(pdu: bytes) -> list[tuple[int, int, bytes]]:
    """Presentation context, control header and content of each value of a P-DATA-TF PDU; none of another."""
    found, at = [], 6
    while pdu[0] == P_DATA and at < len(pdu):
        length, context, control = struct.unpack_from(">IBB", pdu, at)
        found.append((context, control, pdu[at + 6 : at + 4 + length]))
        at += 4 + length
    return found


def _message(context: int, command: bytes, talk: Talk) -> Message:
    found = elements(command)

    def number(tag: int) -> int:
        return int.from_bytes(found.get(tag, b""), "little")

    def name(*tags: int) -> str:
        return next((found[tag].rstrip(b"\0 ").decode() for tag in tags if tag in found), "")

    what = number(0x0100), number(0x0110), name(0x0002, 0x0003), name(0x1000, 0x1001)
    return Message(context, *what, number(0x0800) != NO_DATA_SET, talk.syntaxes.get(context, ""))


def _classes(pdu: bytes) -> dict[int, str]:
    """SOP classes by presentation context, of an A-ASSOCIATE-RQ."""
    asked = A_ASSOCIATE_RQ()
    asked.decode(pdu)
    contexts = asked.to_primitive().presentation_context_definition_list
    return {one.context_id or 0: str(one.abstract_syntax) for one in contexts}


def _syntaxes(pdu: bytes) -> dict[int, str]:
    """Transfer syntaxes by presentation context, of an A-ASSOCIATE-AC."""
    told = A_ASSOCIATE_AC()
    told.decode(pdu)
    contexts = told.to_primitive().presentation_context_definition_results_list
    return {one.context_id or 0: str(one.transfer_syntax[0]) for one in contexts if one.result == 0}
