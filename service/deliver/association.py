"""An association that this node asks for as an SCU of Storage and Verification: one thread, and no reactor beside it.

Every response is read here by whoever waits for it, so that none is lost.
"""

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from service.deliver import proposal
from service.errors import ArchiveUnavailable, ConfigurationError, Rejected
from service.results.storage import Storage
from service.tls import client_context
from service.types import Destination
from service.wire import dimse, pdu
from service.wire.connection import Connection
from service.wire.ends import ConnectionLost, End, PeerAborted, ProtocolError, ReleaseRequested, TimedOut
from service.wire.outgoing import DataSet, Outgoing
from service.wire.requestor import VERIFICATION, Patience

_VERIFICATION: Storage = (VERIFICATION, "1.2.840.10008.1.2")
_LAST_MESSAGE_ID = 0xFFFF
_LAST_WORDS_SECONDS = 0.5
_RELEASE_SECONDS = 2.0
_RESPONSE_ROOM = proposal.LONGEST_ANSWER + 16


@dataclass(frozen=True)
class Sendable:
    """A file, what must be negotiated for it, and where its data set begins."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_at: int

    @property
    def storage(self) -> Storage:
        """SOP class and transfer syntax."""
        return self.sop_class_uid, self.transfer_syntax_uid


class Association:
    """An accepted association (PS3.8 7.1). Use it as a context manager: it is released at the end, or aborted.

    Parameters
    ----------
    proposed
        SOP classes in transfer syntaxes, at most 127; Verification is proposed beside them.
    patience
        `Patience.answer` is also what the peer may take to read what it is sent.

    Attributes
    ----------
    proposed, accepted
        What was asked for, and what of it the peer takes.

    Raises
    ------
    ArchiveUnavailable
        The peer cannot be reached, or rejects the association for now; or our certificates for it are not right now.
        From each method: the association has ended.
    Rejected
        The peer rejects the association.
    """

    def __init__(
        self, to: Destination, calling_ae_title: str, proposed: Sequence[Storage], patience: Patience | None = None
    ) -> None:
        self._to = to
        self._patience = patience or Patience()
        self.proposed = frozenset(proposed)
        self._connection = Connection(_connected(to, self._patience), send_seconds=self._patience.answer)
        self._ended = False
        try:
            agreed = self._request(calling_ae_title, [_VERIFICATION, *proposed])
        except BaseException:
            self._connection.close()
            raise
        self._contexts, self._maximum = agreed.contexts, agreed.maximum_pdu
        self.accepted = frozenset(agreed.contexts) & self.proposed
        self._outgoing = Outgoing(self._connection.send, agreed.maximum_pdu)
        self._responses = memoryview(bytearray(_RESPONSE_ROOM))
        self._reader = pdu.FragmentReader(self._connection, self._responses, proposal.LONGEST_ANSWER)
        self._message_id = 0

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as can be told without a message."""
        return not self._ended and self._connection.silent()

    def store(self, file: Sendable) -> int:
        """Send a file by C-STORE (PS3.4 B), and wait for the status of its response.

        Parameters
        ----------
        file
            Of a storage that was `accepted`.

        Raises
        ------
        OSError
            It cannot be read.
        """
        context, message_id = self._contexts[file.storage], self._next_message_id()
        names = file.sop_class_uid, file.sop_instance_uid
        command = dimse.store_request(context, message_id, *names, self._maximum)
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            length = os.fstat(descriptor).st_size - file.data_set_at
            self._outgoing.message(context, command, DataSet(descriptor, file.data_set_at, length))
            return self._status(dimse.C_STORE_RQ, message_id)
        except OSError:
            self.abort()  # in the middle of a message
            raise
        except End as end:
            self._fail(end, "C-STORE")
        finally:
            os.close(descriptor)

    def echo(self) -> int:
        """Verify that the peer answers (C-ECHO, PS3.4 A); return the status."""
        if _VERIFICATION not in self._contexts:
            raise Rejected(f"{_where(self._to)} does not take C-ECHO")
        message_id = self._next_message_id()
        try:
            self._connection.send(dimse.echo_request(self._contexts[_VERIFICATION], message_id, self._maximum))
            return self._status(dimse.C_ECHO_RQ, message_id)
        except End as end:
            self._fail(end, "C-ECHO")

    def release(self) -> None:
        """Release it (PS3.8 7.2), where it has not ended yet; raises nothing."""
        if not self._ended:
            with contextlib.suppress(End):
                self._connection.send(pdu.RELEASE_REQUEST)
                self._connection.limit(_RELEASE_SECONDS)
                self._connection.allow(_RELEASE_SECONDS)
                if pdu.read_reply(self._connection, pdu.RELEASED, pdu.RELEASE_RQ)[0] == pdu.RELEASE_RQ:
                    self._connection.send(pdu.RELEASE_RP)  # both have asked (PS3.8 9.2, AR-8)
            self._close()

    def abort(self) -> None:
        """Abort it (PS3.8 7.3), where it has not ended yet; raises nothing."""
        if not self._ended:
            with contextlib.suppress(End):
                self._connection.send(pdu.abort(0, 0))
            self._close()

    def _close(self) -> None:
        self._ended = True
        self._connection.close()

    # ---- inner -----------------------------------------------------------------------------------------------------

    def _request(self, calling: str, proposed: Sequence[Storage]) -> proposal.Accepted:
        where = _where(self._to)
        try:
            self._connection.send(proposal.request(calling, self._to.ae_title, proposed))
            self._connection.limit(self._patience.association)
            self._connection.allow(self._patience.association)
            answer = pdu.read_reply(self._connection, pdu.ASSOCIATE_AC, pdu.ASSOCIATE_RJ)
            self._connection.limit(float("inf"))
            if answer[0] == pdu.ASSOCIATE_AC:
                return proposal.accepted(answer, proposed)
            refusal = proposal.rejected(answer)
        except TimedOut:
            raise ArchiveUnavailable(f"{where} does not answer the request for an association") from None
        except (ConnectionLost, PeerAborted) as error:
            why = "does it want TLS, or is this address not known to it?"
            raise ArchiveUnavailable(f"{where} hangs up when asked for an association ({error}); {why}") from None
        except (End, ValueError) as error:
            raise ArchiveUnavailable(f"{where} answers the request for an association wrongly: {error}") from None
        if refusal.for_now:
            raise ArchiveUnavailable(f"{where} rejects the association for now: {refusal.reason}")
        raise Rejected(f"{where} rejects the association: {refusal.reason}; it must know the AE title {calling}")

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % _LAST_MESSAGE_ID + 1
        return self._message_id

    def _status(self, request: int, message_id: int) -> int:
        """The status of the response to this message. Raises how the association ends."""
        self._connection.allow(self._patience.answer)
        at, control = 0, 0
        while not control & pdu.IS_LAST:
            _, control, length = self._reader.fragment()
            if not control & pdu.IS_COMMAND or at + length > proposal.LONGEST_ANSWER:
                raise ProtocolError("no command where a response is due")
            at = self._reader.payload(at, length)
            self._connection.prolong(length)
        answer = dimse.parse_response(self._responses[:at])
        if (answer.field, answer.message_id) != (request, message_id):
            raise ProtocolError("a response to another message")
        return answer.status

    def _fail(self, end: End, what: str) -> NoReturn:
        """End the association because of this, and raise it as what it is for a sender."""
        if isinstance(end, ConnectionLost):
            end = self._last_words() or end
        if isinstance(end, ReleaseRequested):
            with contextlib.suppress(End):
                self._connection.send(pdu.RELEASE_RP)
            self._close()
        elif isinstance(end, ConnectionLost | PeerAborted):
            self._close()
        else:
            self.abort()
        why = {TimedOut: "no answer in time", ReleaseRequested: "the peer has released it"}.get(type(end))
        words = why or (f"aborted by the peer ({end})" if isinstance(end, PeerAborted) else str(end))
        raise ArchiveUnavailable(f"{self._to.name}: the association ended at a {what}: {words}") from None

    def _last_words(self) -> End | None:
        """What the peer has said before it closed the connection that we were writing to."""
        try:
            self._connection.allow(_LAST_WORDS_SECONDS)
            self._reader.fragment()
        except (PeerAborted, ReleaseRequested) as end:
            return end
        except End:
            return None
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.release()
        else:
            self.abort()


def _where(to: Destination) -> str:
    return f"{to.name} ({to.ae_title} at {to.host}:{to.port})"


def _connected(to: Destination, patience: Patience) -> socket.socket:
    try:
        opened = socket.create_connection((to.host, to.port), patience.association)
    except OSError:
        why = "is not there or refuses the connection; start it, or correct host and port"
        raise ArchiveUnavailable(f"{_where(to)} {why}") from None
    if to.tls is None:
        return opened
    told: list[str] = []
    try:
        context = client_context(to.tls, f"archives.{to.name}.tls", told.append)
        return context.wrap_socket(opened, server_hostname=to.tls.name or to.host)
    except ConfigurationError as error:  # a file that is just being renewed, or an operator will: results wait
        opened.close()
        raise ArchiveUnavailable(f"{_where(to)}: {error}") from None
    except OSError as error:
        opened.close()
        raise ArchiveUnavailable(f"{_where(to)}: {told[0] if told else error.strerror}") from None
