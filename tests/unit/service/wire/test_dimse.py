"""Command sets from bytes, and back."""

import io
import struct

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from service.wire import dimse
from service.wire.dimse import Command, file_meta, parse_command, response
from service.wire.ends import ProtocolError
from tests.raw_peer import command_set, echo_command, store_command, uid, us

INSTANCE = "1.2.826.0.1.3680043.8.498.12345"


def test_a_command_of_pynetdicom_is_understood() -> None:
    store = C_STORE()
    store.MessageID, store.Priority = 65535, 2
    store.AffectedSOPClassUID, store.AffectedSOPInstanceUID = CTImageStorage, INSTANCE
    store.DataSet = io.BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(store)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    assert parse_command(memoryview(encoded)) == Command(dimse.C_STORE_RQ, 65535, True, CTImageStorage, INSTANCE)


@pytest.mark.parametrize("instance", [INSTANCE, INSTANCE + "6", ""])
@pytest.mark.parametrize("maximum", [0, 16384, 100, 7])
def test_pynetdicom_understands_a_response(instance: str, maximum: int) -> None:
    command = Command(dimse.C_STORE_RQ, 513, True, CTImageStorage, instance)
    pdus, encoded, control = response(5, command, 0xA700, maximum), b"", 0
    while pdus:
        kind, length, pdv_length, context, control = struct.unpack_from(">BxIIBB", pdus)
        assert (kind, context, pdv_length) == (4, 5, length - 4)
        assert not maximum or length <= max(maximum, 8)
        encoded += pdus[12 : 6 + length]
        pdus = pdus[6 + length :]
        assert control == (3 if not pdus else 1)
    elements = decode(io.BytesIO(encoded), True, True)
    assert elements.CommandGroupLength == len(encoded) - 12
    message = C_STORE_RSP()
    message.command_set = elements
    primitive = message.message_to_primitive()
    assert isinstance(primitive, C_STORE)
    assert (primitive.MessageIDBeingRespondedTo, primitive.Status) == (513, 0xA700)
    assert (primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID or "") == (CTImageStorage, instance)
    assert elements.CommandField == 0x8001
    assert elements.CommandDataSetType == 0x0101


def test_an_echo_is_answered_without_an_instance() -> None:
    command = parse_command(echo_command())
    assert command == Command(dimse.C_ECHO_RQ, 9, False, "1.2.840.10008.1.1", "")
    elements = decode(io.BytesIO(response(1, command, 0, 0)[12:]), True, True)
    message = C_ECHO_RSP()
    message.command_set = elements
    assert message.message_to_primitive().Status == 0


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0"])
def test_padding_is_no_part_of_a_uid(padding: bytes) -> None:
    elements = {0x0002: uid(CTImageStorage), 0x0100: us(1), 0x0110: us(1), 0x0800: us(1), 0x1000: b"1.2.3" + padding}
    assert parse_command(command_set(elements)).sop_instance == "1.2.3"


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0",
        store_command(INSTANCE)[:-1],
        store_command(INSTANCE) + b"\0\0\0",
        struct.pack("<HHI", 8, 0x16, 0),
        struct.pack("<HHI", 0, 0x02, 0xFFFFFFFF),
        command_set({0x0100: us(1)}),
        command_set({0x0100: us(1), 0x0110: us(1)}),
        command_set({0x0100: b"", 0x0110: us(1), 0x0800: us(1)}),
        command_set({0x0100: us(1) * 2, 0x0110: us(1), 0x0800: us(1)}),
        command_set({0x0100: us(0x8001), 0x0120: us(1), 0x0800: us(0x0101), 0x0900: us(0)}),
    ],
)
def test_what_is_no_request_is_a_protocol_error_of_the_service_user(encoded: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_command(encoded)
    assert (caught.value.source, caught.value.reason) == (0, 0)


def test_a_cancel_needs_nothing_else() -> None:
    assert parse_command(command_set({0x0100: us(0x0FFF), 0x0120: us(4), 0x0800: us(0x0101)})).field == 0x0FFF


@given(st.binary(max_size=200) | st.dictionaries(st.integers(0, 0x1100), st.binary(max_size=20)).map(command_set))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_command_or_a_protocol_error(encoded: bytes) -> None:
    try:
        command = parse_command(encoded)
    except ProtocolError:
        return
    assert response(1, command, 0, 0)


@pytest.mark.parametrize("instance", [INSTANCE, INSTANCE + "6"])
def test_the_file_meta_information_is_read_by_pydicom(instance: str) -> None:
    content = bytes(128) + b"DICM" + file_meta(CTImageStorage, instance, ExplicitVRLittleEndian)
    meta = pydicom.dcmread(io.BytesIO(content)).file_meta
    assert meta.FileMetaInformationGroupLength == len(content) - 144
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, instance)
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationVersionName.startswith("WETREAD_")
    again = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(again, meta)
    assert again.getvalue() == content[132:]
