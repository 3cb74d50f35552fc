"""PDUs (PS3.8 9.3) from a connection: the payload of P-DATA straight to where it belongs, all others as a whole.

The header of the next PDU is received along with the payload before it, behind it: a payload costs one call where the
bytes are there, and none is copied. A length is believed only for what has come: nothing is allocated for it.
"""

import struct
from typing import Protocol

from service.wire.ends import UNEXPECTED_PDU, UNRECOGNIZED_PDU, PeerAborted, ProtocolError, ReleaseRequested

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASED, ABORT = range(0x01, 0x08)
MAXIMUM_REQUEST = 1 << 18
"""Bytes of an A-ASSOCIATE-RQ or -AC; 128 presentation contexts with all transfer syntaxes that there are need less."""

IS_COMMAND, IS_LAST = 0x01, 0x02
"""Bits of a fragment's message control header (PS3.8 E.2)."""

RELEASE_REQUEST = struct.pack(">BxI4x", RELEASE_RQ, 4)
RELEASE_RP = struct.pack(">BxI4x", RELEASED, 4)

_TLS_HANDSHAKE = 0x16
_KNOWN = range(0x01, 0x08)
_PDU = struct.Struct(">BxI")  # type, length of what follows
_PDV = struct.Struct(">IBB")  # length of what follows, presentation context, message control header
_PDV_HEADER = _PDV.size
_BOTH_HEADERS = _PDU.size + _PDV.size
_CHUNK = 1 << 14


class Source(Protocol):
    """What bytes come from (`service.wire.connection`)."""

    def receive(self, view: memoryview, fill: bool = False) -> int:
        """Receive at least one byte, or until the view is full; return how many."""


def abort(source: int, reason: int) -> bytes:
    """An A-ABORT PDU (PS3.8 9.3.8)."""
    return struct.pack(">BxI2xBB", ABORT, 4, source, reason)


def read_request(source: Source) -> bytes:
    """Read an A-ASSOCIATE-RQ as a whole, undecoded.

    Raises
    ------
    ProtocolError
        It is another PDU, or too long.
    PeerAborted
    """
    header = _exactly(source, _PDU.size)
    kind, length = _PDU.unpack(header)
    if kind == ABORT:
        raise PeerAborted("before the association was requested")
    if kind not in _KNOWN:
        hint = " (so TLS begins; does it mean tls.port?)" if kind == _TLS_HANDSHAKE else ""
        raise ProtocolError(f"no PDU has the type 0x{kind:02X}{hint}", UNRECOGNIZED_PDU)
    if kind != ASSOCIATE_RQ:
        raise ProtocolError(f"a PDU of type 0x{kind:02X} before an A-ASSOCIATE-RQ", UNEXPECTED_PDU)
    if length > MAXIMUM_REQUEST:
        raise ProtocolError(f"an A-ASSOCIATE-RQ of {length} bytes; {MAXIMUM_REQUEST} are enough for any")
    return header + _exactly(source, length)


def read_reply(source: Source, *expected: int) -> bytes:
    """Read the PDU that answers one of ours, as a whole, undecoded: its first byte is one of the expected types.

    Raises
    ------
    ProtocolError
        It is another PDU, or too long.
    PeerAborted
    """
    header = _exactly(source, _PDU.size)
    kind, length = _PDU.unpack(header)
    if kind not in (*expected, ABORT):
        reason = UNEXPECTED_PDU if kind in _KNOWN else UNRECOGNIZED_PDU
        raise ProtocolError(f"a PDU of type 0x{kind:02X} where an answer is due", reason)
    if length > MAXIMUM_REQUEST:
        raise ProtocolError(f"an answer of {length} bytes; {MAXIMUM_REQUEST} are enough for any")
    content = _exactly(source, length)
    if kind == ABORT:
        raise PeerAborted(f"source {content[2]}, reason {content[3]}" if length == 4 else "with a malformed PDU")
    return header + content


def _exactly(source: Source, count: int) -> bytes:
    parts = bytearray()
    chunk = memoryview(bytearray(min(count, _CHUNK)))
    while len(parts) < count:
        parts += chunk[: source.receive(chunk[: count - len(parts)])]
    return bytes(parts)


class FragmentReader:
    """Reads the fragments of messages (the PDVs of P-DATA-TF PDUs) into a buffer.

    Call `fragment` and `payload` in turn.

    Parameters
    ----------
    view
        The buffer; `payload` needs 12 bytes of room behind each payload, for headers.
    maximum
        Maximum length of P-DATA-TF PDUs that the peer was told (PS3.8 D.1).
    at
        Where the first header may be put.
    """

    def __init__(self, source: Source, view: memoryview, maximum: int, at: int = 0) -> None:
        self._receive = source.receive
        self._view = view
        self._maximum = maximum
        self._at = at  # where bytes lie that have come beyond the last payload, and how many
        self._ahead = 0
        self._left = 0  # bytes of the current PDU behind its current fragment

    def fragment(self) -> tuple[int, int, int]:
        """The next fragment's presentation context, message control header (PS3.8 E.2), and length of its payload.

        Raises
        ------
        ReleaseRequested, PeerAborted
            Another PDU came.
        ProtocolError
            It must not come, is longer than agreed, or its lengths contradict each other.
        """
        at = self._at
        if not self._left:
            self._look_ahead(_PDU.size, _BOTH_HEADERS)
            kind, self._left = _PDU.unpack_from(self._view, at)
            if kind != P_DATA:
                self._end(kind, self._left)
            if self._left > self._maximum:
                raise ProtocolError(f"a P-DATA-TF PDU of {self._left} bytes; {self._maximum} were agreed")
            if self._left < _PDV_HEADER:
                raise ProtocolError("a P-DATA-TF PDU without a presentation data value")
            self._look_ahead(_BOTH_HEADERS, _BOTH_HEADERS)
            at += _PDU.size
        else:
            self._look_ahead(_PDV_HEADER, _PDV_HEADER)
        length, context, control = _PDV.unpack_from(self._view, at)
        self._ahead = 0
        self._left -= length + 4
        if length < 2 or self._left < 0 or 0 < self._left < _PDV_HEADER:
            raise ProtocolError("a presentation data value that does not fit its P-DATA-TF PDU")
        return context, control, length - 2

    def payload(self, at: int, length: int, followed: bool | None = None) -> int:
        """Receive the payload of the fragment to this place in the buffer; return where it ends.

        Parameters
        ----------
        followed
            Whether another fragment must come before the peer is answered; None where that is not known.
        """
        end = at + length
        most = end if followed is False else end + (_PDV_HEADER if self._left else _BOTH_HEADERS)
        view, receive, fill = self._view, self._receive, followed is not None
        while at < end:
            at += receive(view[at:most], fill)
        self._at, self._ahead = end, at - end
        return end

    def _look_ahead(self, enough: int, most: int) -> None:
        while self._ahead < enough:
            self._ahead += self._receive(self._view[self._at + self._ahead : self._at + most])

    def _end(self, kind: int, length: int) -> None:
        if kind not in _KNOWN:
            raise ProtocolError(f"no PDU has the type 0x{kind:02X}", UNRECOGNIZED_PDU)
        if kind not in (RELEASE_RQ, ABORT):
            raise ProtocolError(f"a PDU of type 0x{kind:02X} within an association", UNEXPECTED_PDU)
        if length != 4:
            raise ProtocolError(f"a PDU of type 0x{kind:02X} with {length} bytes instead of 4")
        self._look_ahead(10, 10)
        if kind == ABORT:
            source, reason = self._view[self._at + 8], self._view[self._at + 9]
            raise PeerAborted(f"source {source}, reason {reason}")
        raise ReleaseRequested
