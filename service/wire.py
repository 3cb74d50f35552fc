"""What both ends of an association share on top of pynetdicom."""

import socket

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

VERIFICATION = UID("1.2.840.10008.1.1")
"""Verification SOP Class (PS3.4 A.4)."""


def without_delay(event: evt.Event) -> None:
    """Handle ``EVT_CONN_OPEN``: messages are small, and with Nagle's algorithm on each would wait 40 ms."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def affected(event: evt.Event) -> tuple[str, str]:
    """SOP class and SOP instance UID of a C-STORE request, as its command says."""
    request = event.request
    assert isinstance(request, C_STORE)
    return str(request.AffectedSOPClassUID or ""), str(request.AffectedSOPInstanceUID or "")
