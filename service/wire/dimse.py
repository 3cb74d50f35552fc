"""Messages (PS3.7 6.3, Annex E): command sets parsed from bytes, responses and file meta information written as bytes.

Command sets are Implicit VR Little Endian and hold a few short elements, so this costs microseconds an instance.
"""

import struct
from dataclasses import dataclass

from service import __version__
from service.results.uids import IMPLEMENTATION_CLASS_UID
from service.wire.ends import NOT_SPECIFIED, SERVICE_USER, ProtocolError
from service.wire.pdu import IS_COMMAND, IS_LAST, P_DATA
from service.wire.requestor import VERIFICATION

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0030, 0x0FFF, 0x0100
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.10
INVALID_ARGUMENT = 0x0115
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213

MAXIMUM_COMMAND = 1 << 16
"""Bytes of a command set; those of the standard have some hundred."""
MAXIMUM_UID = 64
"""Characters of a UID (PS3.5 9.1)."""

_RESPONSE = 0x8000
_NO_DATA_SET, _HAS_DATA_SET = 0x0101, 0x0001
_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<HHIH")
_UL = struct.Struct("<HHII")
_NUMBER = struct.Struct("<H")
_PDV_HEADERS = struct.Struct(">BxIIBB")


@dataclass(frozen=True, slots=True)
class Command:
    """A request (PS3.7 9.3, 10.3).

    Attributes
    ----------
    field
        Which one, for example `C_STORE_RQ`.
    message_id
        What the response refers to.
    data_set
        Whether a data set follows.
    sop_class, sop_instance
        Of what it is about; empty where the command does not say.
    """

    field: int
    message_id: int
    data_set: bool
    sop_class: str
    sop_instance: str


def parse_command(encoded: memoryview | bytes) -> Command:
    """Parse a command set.

    Raises
    ------
    ProtocolError
        It is no command set, no request, or lacks what every request has.
    """
    values = _elements(encoded)
    field = _number(values, 0x0100)
    if field == C_CANCEL_RQ:
        return Command(field, 0, False, "", "")
    if field & _RESPONSE:
        raise ProtocolError(f"a response (0x{field:04X}) to nothing that was asked", NOT_SPECIFIED, SERVICE_USER)
    return Command(
        field,
        _number(values, 0x0110),
        _number(values, 0x0800) != _NO_DATA_SET,
        _uid(values.get(0x0002) or values.get(0x0003)),
        _uid(values.get(0x1000) or values.get(0x1001)),
    )


@dataclass(frozen=True, slots=True)
class Response:
    """A response without a data set (PS3.7 9.3.1.2).

    Attributes
    ----------
    message_id
        Of the request that it answers.
    status
        PS3.7 Annex C, and what the service adds.
    """

    field: int
    message_id: int
    status: int


def parse_response(encoded: memoryview | bytes) -> Response:
    """Parse the command set of a response.

    Raises
    ------
    ProtocolError
        It is no command set, no response, has a data set, or lacks what every response has.
    """
    values = _elements(encoded)
    field = _number(values, 0x0100)
    if not field & _RESPONSE or _number(values, 0x0800) != _NO_DATA_SET:
        raise ProtocolError(f"a command (0x{field:04X}) where a response is due", NOT_SPECIFIED, SERVICE_USER)
    return Response(field & ~_RESPONSE, _number(values, 0x0120), _number(values, 0x0900))


def _elements(encoded: memoryview | bytes) -> dict[int, memoryview | bytes]:
    values = {}
    at, end = 0, len(encoded)
    while at < end:
        if end - at < _ELEMENT.size:
            raise _malformed("ends within an element")
        group, element, length = _ELEMENT.unpack_from(encoded, at)
        at += _ELEMENT.size
        if group or length > end - at:
            raise _malformed("holds an element of another group, or one longer than itself")
        values[element] = encoded[at : at + length]
        at += length
    return values


def _number(values: dict[int, memoryview | bytes], element: int) -> int:
    value = values.get(element)
    if value is None or len(value) != _NUMBER.size:
        raise _malformed(f"has no (0000,{element:04X}), or not as a number")
    return int(_NUMBER.unpack(value)[0])


def _uid(value: memoryview | bytes | None) -> str:
    return "" if value is None else str(value, "latin-1").rstrip("\0 ")


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(f"a command set that {what}", NOT_SPECIFIED, SERVICE_USER)


def response(context: int, to: Command, status: int, maximum: int) -> bytes:
    """A response without a data set (PS3.7 9.3, 10.3), as the P-DATA-TF PDUs that carry it.

    Parameters
    ----------
    context
        ID of the presentation context.
    maximum
        Maximum length of P-DATA-TF PDUs that the peer takes; 0 for any.
    """
    parts = [
        _element(0x0002, to.sop_class),
        _US.pack(0, 0x0100, 2, to.field | _RESPONSE),
        _US.pack(0, 0x0120, 2, to.message_id),
        _US.pack(0, 0x0800, 2, _NO_DATA_SET),
        _US.pack(0, 0x0900, 2, status),
        _element(0x1000, to.sop_instance),
    ]
    return _pdus(context, _command_set(parts), maximum)


def echo_request(context: int, message_id: int, maximum: int) -> bytes:
    """A C-ECHO-RQ (PS3.7 9.3.5.1); parameters as of `store_request`."""
    parts = [
        _element(0x0002, VERIFICATION),
        _US.pack(0, 0x0100, 2, C_ECHO_RQ),
        _US.pack(0, 0x0110, 2, message_id),
        _US.pack(0, 0x0800, 2, _NO_DATA_SET),
    ]
    return _pdus(context, _command_set(parts), maximum)


def store_request(context: int, message_id: int, sop_class: str, sop_instance: str, maximum: int) -> bytes:
    """The command of a C-STORE-RQ (PS3.7 9.3.1.1) with medium priority, as the P-DATA-TF PDUs that carry it.

    Parameters
    ----------
    context, maximum
        As of `response`.
    message_id
        1 to 65535.
    """
    parts = [
        _element(0x0002, sop_class),
        _US.pack(0, 0x0100, 2, C_STORE_RQ),
        _US.pack(0, 0x0110, 2, message_id),
        _US.pack(0, 0x0700, 2, 0),
        _US.pack(0, 0x0800, 2, _HAS_DATA_SET),
        _element(0x1000, sop_instance),
    ]
    return _pdus(context, _command_set(parts), maximum)


def _command_set(parts: list[bytes]) -> bytes:
    rest = b"".join(parts)
    return _UL.pack(0, 0, 4, len(rest)) + rest


def _pdus(context: int, command: bytes, maximum: int) -> bytes:
    size = max(maximum - 6, 2) if maximum else len(command)
    if len(command) <= size:
        return _fragment(context, IS_COMMAND | IS_LAST, command)
    cut = range(0, len(command), size - size % 2)
    return b"".join(
        _fragment(context, IS_COMMAND | (IS_LAST if at == cut[-1] else 0), command[at : at + cut.step]) for at in cut
    )


def _fragment(context: int, control: int, payload: bytes) -> bytes:
    return _PDV_HEADERS.pack(P_DATA, len(payload) + 6, len(payload) + 2, context, control) + payload


def _element(element: int, uid: str) -> bytes:
    value = _even(uid)
    return _ELEMENT.pack(0, element, len(value)) + value if value else b""


def file_meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """File meta information (PS3.10 7.1) of an instance that came by C-STORE, from its group length to its end.

    The source's AE title is left out, so that the same instance makes the same file from whomever it comes.

    Parameters
    ----------
    sop_class, sop_instance
        As the command says; at most `MAXIMUM_UID` characters.
    """
    rest = b"".join(
        (_VERSION, _meta(0x02, sop_class), _meta(0x03, sop_instance), _meta(0x10, transfer_syntax), _IMPLEMENTATION)
    )
    return struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(rest)) + rest


def _meta(element: int, uid: str) -> bytes:
    value = _even(uid)
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value


def _even(uid: str) -> bytes:
    value = uid.encode("latin-1")
    return value + b"\0" if len(value) % 2 else value


def _version_name() -> bytes:
    value = f"WETREAD_{__version__}"[:16].encode()
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", 2, 0x13, b"SH", len(value)) + value


_VERSION = struct.pack("<HH2s2xI2s", 2, 1, b"OB", 2, b"\0\1")
_IMPLEMENTATION = _meta(0x12, IMPLEMENTATION_CLASS_UID) + _version_name()
