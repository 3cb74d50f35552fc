"""One association (PS3.8 7, PS3.7 9), from its request to its end."""

from collections.abc import Callable

import structlog

from service.errors import told_by_place
from service.receive.conversation import Conversation, Takes
from service.receive.intake import new_association
from service.receive.peer import Peer
from service.receive.policy import Accepted, AssociationPolicy, Refused
from service.receive.request import AssociationRequest
from service.settings import NodeSettings
from service.wire.connection import Connection
from service.wire.ends import (
    NOT_SPECIFIED,
    SERVICE_USER,
    ConnectionLost,
    End,
    PeerAborted,
    ProtocolError,
    ReleaseRequested,
    TimedOut,
)
from service.wire.pdu import RELEASE_RP, abort, read_request

log = structlog.get_logger()

_ABORT = abort(SERVICE_USER, NOT_SPECIFIED)


class Association:
    """Answers one peer, in a thread of its own."""

    def __init__(
        self, connection: Connection, peer: Peer, settings: NodeSettings, policy: AssociationPolicy, intake: Takes
    ) -> None:
        self._connection = connection
        self._peer = peer
        self._settings = settings
        self._policy = policy
        self._intake = intake
        self._number = new_association()

    def serve(self, seated: Callable[[bool], None], stopping: Callable[[], bool]) -> None:
        """Serve it to its end, and close the connection; raises nothing that a peer can cause.

        Parameters
        ----------
        seated
            Called with True when the association is accepted, and with False when its seat is free again.
        stopping
            Whether a connection that is lost was hung up at this end.
        """
        try:
            self._connection.allow(self._settings.artim_seconds)
            decision = self._policy.decide(self._request(), self._peer)
            if isinstance(decision, Refused):
                self._connection.take_leave(decision.answer)
                return
            with decision.seat:
                seated(True)
                end = self._converse(decision)
            seated(False)
            self._finish(decision.sender, end, stopping)
        except ProtocolError as error:
            log.warning("association.refused", address=self._peer.address, reason=str(error))
            self._connection.take_leave(abort(error.source, error.reason))
        except (PeerAborted, ConnectionLost, TimedOut) as error:  # a health probe, or somebody who never speaks
            log.debug("connection.closed", address=self._peer.address, reason=str(error) or "nothing came in time")
        except Exception as error:  # ours to mend
            self._note(error)
        finally:
            self._connection.close()

    def _request(self) -> AssociationRequest:
        encoded = read_request(self._connection)
        try:
            return AssociationRequest.read(encoded)
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    def _converse(self, accepted: Accepted) -> End:
        """Answer messages until the association ends; return why it does."""
        try:
            self._connection.limit(self._settings.association_seconds)
            self._connection.send(accepted.answer)
            conversation = Conversation(self._connection, self._settings, accepted, self._intake, self._number)
            while True:
                conversation.answer_message()
        except End as end:
            return end.with_traceback(None)  # which would keep the buffer
        except Exception as error:  # ours to mend; the peer must not wait for it
            self._note(error)
            return ProtocolError("the node failed", NOT_SPECIFIED)

    def _finish(self, sender: str, end: End, stopping: Callable[[], bool]) -> None:
        if isinstance(end, ReleaseRequested):
            self._tell(self._intake.released)
            self._connection.take_leave(RELEASE_RP)
            return
        self._tell(self._intake.aborted)
        if isinstance(end, PeerAborted):
            reason, answer = f"aborted by the peer: {end}", b""
        elif stopping():
            reason, answer = "the node is stopping", _ABORT
        elif isinstance(end, ProtocolError):
            reason, answer = str(end), abort(end.source, end.reason)
        elif isinstance(end, TimedOut):
            reason, answer = "nothing came in time (node.idle_seconds, node.association_seconds)", _ABORT
        else:
            reason, answer = f"connection lost: {end}", b""
        log.warning("association.aborted", sender=sender, address=self._peer.address, reason=reason)
        if answer:
            self._connection.take_leave(answer)

    def _tell(self, listener: Callable[[int], None]) -> None:
        try:
            listener(self._number)
        except Exception as error:  # a full disk, a locked database: the peer cannot help it
            self._note(error)

    def _note(self, error: Exception) -> None:
        log.error("association.failed", address=self._peer.address, reason=told_by_place(error))
