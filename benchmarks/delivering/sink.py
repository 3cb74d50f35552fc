"""A Storage SCP that costs as little as can be: it answers every object with success and keeps nothing.

Run as a process: it says its port, and for each association, when it is over, a line of JSON: seconds from its request
to its release, and how many objects and bytes came.
"""

import json
import socket
import struct
import time

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from service.wire.dimse import C_STORE_RQ, parse_command, response

MAXIMUM_PDU = 131072
_CONTROL = struct.Struct(">IBB")
_RELEASE_RP = bytes.fromhex("06 00 00000004 00000000")


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            serve(connection)


def serve(connection: socket.socket) -> None:
    """Serve one association to its end."""
    buffer = memoryview(bytearray(MAXIMUM_PDU + 64))
    objects = received = 0
    command = b""
    began = 0.0
    while (header := _pdu(connection, buffer)) is not None:
        kind, length = header
        received += length
        if kind == 0x01:
            began = time.perf_counter()
            connection.sendall(_accepted(struct.pack(">BxI", kind, length) + bytes(buffer[:length])))
        elif kind == 0x04:
            at = 0
            while at < length:
                size, context, control = _CONTROL.unpack_from(buffer, at)
                if control & 1:
                    command += bytes(buffer[at + 6 : at + 4 + size])
                    if control & 2 and not (asked := parse_command(command)).data_set:
                        connection.sendall(response(context, asked, 0, 0))
                        command = b""
                elif control & 2:
                    asked = parse_command(command)
                    command = b""
                    objects += asked.field == C_STORE_RQ
                    connection.sendall(response(context, asked, 0, 0))
                at += 4 + size
        else:
            if kind == 0x05:
                connection.sendall(_RELEASE_RP)
            break
    told = {"seconds": time.perf_counter() - began, "objects": objects, "bytes": received}
    print(json.dumps(told), flush=True)


def _pdu(connection: socket.socket, buffer: memoryview) -> tuple[int, int] | None:
    header = connection.recv(6, socket.MSG_WAITALL)
    if len(header) < 6:
        return None
    kind, length = struct.unpack(">BxI", header)
    if length and connection.recv_into(buffer[:length], length, socket.MSG_WAITALL) < length:
        return None
    return kind, length


def _accepted(encoded: bytes) -> bytes:
    request = A_ASSOCIATE_RQ()
    request.decode(encoded)
    asked = request.to_primitive()
    answer = A_ASSOCIATE()
    answer.application_context_name = UID("1.2.840.10008.3.1.1.1")
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    results = []
    for proposed in asked.presentation_context_definition_list:
        context = build_context(proposed.abstract_syntax, proposed.transfer_syntax[0])
        context.context_id, context.result = proposed.context_id, 0
        results.append(context)
    answer.presentation_context_definition_results_list = results
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = MAXIMUM_PDU, UID("1.2.3")
    answer.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_AC(answer).encode())


if __name__ == "__main__":
    main()
