"""Associations that this node asks for through pynetdicom, and what else rests on it."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from service.errors import ArchiveUnavailable, ConfigurationError, Rejected
from service.tls import client_context
from service.types import Destination

VERIFICATION = UID("1.2.840.10008.1.1")
"""Verification SOP Class (PS3.4 A.4)."""

_TRANSIENT = 0x02  # result of an A-ASSOCIATE-RJ (PS3.8 table 9-21)
_PEER_DOWN = "is not there or refuses the connection; start it, or correct host and port"


@dataclass(frozen=True)
class Patience:
    """How long an SCU waits, in seconds: to connect, to be accepted and to be released (each), and for an answer."""

    association: float = 15.0
    answer: float = 60.0


@contextmanager
def association(
    to: Destination,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[Any] = (),
    patience: Patience | None = None,
) -> Iterator[Association]:
    """An association with a peer, released at the end, and aborted where the body raises.

    Parameters
    ----------
    contexts
        At most 128 presentation contexts (PS3.8 9.3.2.2).
    roles, handlers
        SCP/SCU role selection (PS3.7 D.3.3.4) and pynetdicom's event handlers, for a peer that is to send to us.

    Raises
    ------
    ArchiveUnavailable
        The peer cannot be reached, or rejects the association for now; or our certificates for it are not right now.
    Rejected
        The peer rejects the association, or takes none of the presentation contexts.
    """
    patience = patience or Patience()
    ae = AE(ae_title=calling_ae_title)
    ae.acse_timeout = ae.connection_timeout = patience.association
    ae.dimse_timeout = ae.network_timeout = patience.answer
    ae.maximum_pdu_size = 131072
    told: list[str] = []
    try:
        tls = None
        if to.tls is not None:
            tls = client_context(to.tls, f"archives.{to.name}.tls", told.append), to.tls.name or to.host
    except ConfigurationError as error:  # a file that is just being renewed, or an operator will: results wait
        raise ArchiveUnavailable(f"{_where(to)}: {error}") from None
    opened = ae.associate(
        to.host,
        to.port,
        contexts=list(contexts),
        ae_title=to.ae_title,
        ext_neg=list(roles),
        evt_handlers=[(evt.EVT_CONN_OPEN, without_delay), *handlers],
        tls_args=tls,
    )
    if told:
        raise ArchiveUnavailable(f"{_where(to)}: {told[0]}")
    _require_established(opened, to, calling_ae_title)
    _leave_messages_to_the_caller(opened)
    try:
        yield opened
    except BaseException:
        if opened.is_established:
            opened.abort()
        raise
    if opened.is_established:
        opened.release()


def _require_established(opened: Association, to: Destination, calling_ae_title: str) -> None:
    where = _where(to)
    if (answer := rejection(opened)) is not None:
        if answer.result == _TRANSIENT:
            raise ArchiveUnavailable(f"{where} rejects the association for now: {answer.reason_str}")
        raise Rejected(
            f"{where} rejects the association: {answer.reason_str}; it must know the AE title {calling_ae_title}"
        )
    if opened.rejected_contexts and not opened.accepted_contexts:
        classes = sorted({UID(str(context.abstract_syntax)).name for context in opened.rejected_contexts})
        raise Rejected(f"{where} takes none of: {', '.join(classes)}")
    if not opened.is_established:
        raise ArchiveUnavailable(f"{where} {_PEER_DOWN}")


def rejection(opened: Association) -> A_ASSOCIATE | None:
    """What a peer has rejected an association with; None where it has not.

    A rejection that comes at once is at times none to pynetdicom 3.0.4: where its other thread has closed the
    connection already when it asks whether there is one, it gives up as if there had never been one, and leaves the
    answer unread.
    """
    answer = opened.acceptor.primitive if opened.is_rejected else opened.dul.peek_next_pdu()
    return answer if isinstance(answer, A_ASSOCIATE) and answer.result else None


def _where(to: Destination) -> str:
    return f"{to.name} ({to.ae_title} at {to.host}:{to.port})"


def _leave_messages_to_the_caller(opened: Association) -> None:
    """Keep pynetdicom's reactor from taking messages that the thread of an SCU waits for.

    In pynetdicom 3.0.4 the reactor, which is meant to pause while a ``send_c_*`` call waits, at times takes a response
    before that call, and drops it; the wait then ends in a time-out and an abort. The reactor alone does not block.
    """
    get = opened.dimse.get_msg

    def get_when_waiting(block: bool = False) -> Any:
        return get(block=True) if block else (None, None)

    opened.dimse.get_msg = get_when_waiting  # type: ignore[method-assign]


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
