"""One association (PS3.8 7, PS3.7 9), from its request to its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.exc import DBAPIError

from service.errors import OutOfResources, told_by_place
from service.receive import dimse, pdu
from service.receive.buffer import COMMAND, InstanceBuffer
from service.receive.connection import Connection, ConnectionLost, TimedOut
from service.receive.peer import Peer
from service.receive.policy import Accepted, AssociationPolicy, Refused
from service.receive.request import AssociationRequest
from service.received import Received
from service.settings import NodeSettings
from service.spill import Spill
from service.wire import VERIFICATION

log = structlog.get_logger()

OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3

_ABORT = pdu.abort(pdu.SERVICE_USER, pdu.NOT_SPECIFIED)
_Ends = (pdu.ReleaseRequested, pdu.PeerAborted, pdu.ProtocolError, ConnectionLost, TimedOut)


class Takes(Protocol):
    """What becomes of instances (`service.receive.intake`)."""

    def take(self, received: Received, sender: str, association: int, named: tuple[str, str] | None = None) -> int:
        """Keep an instance; return the status of C-STORE. Raises `OutOfResources`, `DBAPIError`."""

    def refuse(self, sender: str, reason: str) -> None:
        """Note that an instance was not taken."""

    def released(self, association: int) -> None:
        """An association was released."""

    def aborted(self, association: int) -> None:
        """An association was aborted, or its connection lost."""

    def spool_file(self) -> Spill:
        """Open a file for an instance that is too large for memory. Raises `OutOfResources`."""


@dataclass(frozen=True)
class Context:
    """A presentation context that was accepted."""

    id: int
    sop_class: str
    transfer_syntax: str


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
        except pdu.ProtocolError as error:
            log.warning("association.refused", address=self._peer.address, reason=str(error))
            self._connection.take_leave(pdu.abort(error.source, error.reason))
        except (pdu.PeerAborted, ConnectionLost, TimedOut) as error:  # a health probe, or somebody who never speaks
            log.debug("connection.closed", address=self._peer.address, reason=str(error) or "nothing came in time")
        except Exception as error:
            self._note(error)
        finally:
            self._connection.close()

    def _request(self) -> AssociationRequest:
        encoded = pdu.read_request(self._connection)
        try:
            return AssociationRequest.read(encoded)
        except ValueError as error:
            raise pdu.ProtocolError(str(error)) from None

    def _converse(self, accepted: Accepted) -> Exception:
        """Answer messages until the association ends; return why it does."""
        try:
            self._connection.limit(self._settings.association_seconds)
            self._connection.send(accepted.answer)
            conversation = _Conversation(self._connection, self._settings, accepted, self._intake, id(self))
            while True:
                conversation.answer_message()
        except _Ends as end:
            return end.with_traceback(None)  # which would keep the buffer
        except Exception as error:  # ours to mend; the peer must not wait for it
            self._note(error)
            return pdu.ProtocolError("the node failed", pdu.NOT_SPECIFIED)

    def _finish(self, sender: str, end: Exception, stopping: Callable[[], bool]) -> None:
        if isinstance(end, pdu.ReleaseRequested):
            self._tell(self._intake.released)
            self._connection.take_leave(pdu.RELEASE_RP)
            return
        self._tell(self._intake.aborted)
        if isinstance(end, pdu.PeerAborted):
            reason, answer = f"aborted by the peer: {end}", b""
        elif stopping():
            reason, answer = "the node is stopping", _ABORT
        elif isinstance(end, pdu.ProtocolError):
            reason, answer = str(end), pdu.abort(end.source, end.reason)
        elif isinstance(end, TimedOut):
            reason, answer = "nothing came in time (node.idle_seconds, node.association_seconds)", _ABORT
        else:
            reason, answer = f"connection lost: {end}", b""
        log.warning("association.aborted", sender=sender, address=self._peer.address, reason=reason)
        if answer:
            self._connection.take_leave(answer)

    def _tell(self, listener: Callable[[int], None]) -> None:
        try:
            listener(id(self))
        except Exception as error:  # a full disk, a locked database: the peer cannot help it
            self._note(error)

    def _note(self, error: Exception) -> None:
        log.error("association.failed", address=self._peer.address, reason=told_by_place(error))


class _Conversation:
    """The messages of an association: requests with their data sets in turn, and the responses to them."""

    def __init__(
        self, connection: Connection, settings: NodeSettings, accepted: Accepted, intake: Takes, association: int
    ) -> None:
        self._connection = connection
        self._idle_seconds = settings.idle_seconds
        self._maximum = accepted.maximum_pdu
        self._sender = accepted.sender
        self._intake = intake
        self._association = association
        self._contexts = {
            number: Context(number, str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for number, context in accepted.contexts.items()
        }
        self._buffer = InstanceBuffer(intake.spool_file)
        self._reader = pdu.FragmentReader(connection, self._buffer.view, settings.maximum_pdu, COMMAND)

    def answer_message(self) -> None:
        """Receive the next message and answer it. Raises how the association ends."""
        self._connection.allow(self._idle_seconds)
        context, command = self._command()
        if command.field == dimse.C_CANCEL_RQ:
            return  # what it could cancel was answered before it could be read
        status = self._unfit(context, command)
        if status is None and command.field == dimse.C_STORE_RQ:
            status = self._store(context, command)
        elif command.data_set:
            self._data_set(context.id, COMMAND, lambda at, length: COMMAND)
        self._connection.send(dimse.response(context.id, command, status or dimse.SUCCESS, self._maximum))

    def _command(self) -> tuple[Context, dimse.Command]:
        reader, at, control = self._reader, COMMAND, 0
        first = None
        while not control & pdu.IS_LAST:
            context_id, control, length = reader.fragment()
            if first is None:
                first = context_id
                if first not in self._contexts:
                    raise pdu.ProtocolError(f"presentation context {first} was not accepted")
            if context_id != first or not control & pdu.IS_COMMAND:
                raise _out_of_turn("a fragment of a data set, or of another context, where a command is due")
            if at + length - COMMAND > dimse.MAXIMUM_COMMAND:
                raise _out_of_turn(f"a command set of more than {dimse.MAXIMUM_COMMAND} bytes")
            at = reader.payload(at, length)
            self._connection.prolong(length)
        assert first is not None
        return self._contexts[first], dimse.parse_command(self._buffer.view[COMMAND:at])

    def _data_set(self, context_id: int, at: int, place: Callable[[int, int], int]) -> int:
        """Receive a data set to where each fragment has its place; return where the last one ends."""
        reader, prolong, control = self._reader, self._connection.prolong, 0
        while not control & pdu.IS_LAST:
            fragment_context, control, length = reader.fragment()
            if fragment_context != context_id or control & pdu.IS_COMMAND:
                raise _out_of_turn("a fragment of a command, or of another context, where a data set is due")
            at = reader.payload(place(at, length), length)
            prolong(length)
        return at

    def _unfit(self, context: Context, command: dimse.Command) -> int | None:
        """The status of a request that is refused whatever its data set is."""
        echo = context.sop_class == VERIFICATION
        if command.field != (dimse.C_ECHO_RQ if echo else dimse.C_STORE_RQ):
            return dimse.UNRECOGNIZED_OPERATION
        if command.sop_class != context.sop_class:
            return dimse.SOP_CLASS_NOT_SUPPORTED
        if command.data_set == echo:
            return dimse.MISTYPED_ARGUMENT
        if len(command.sop_instance) > dimse.MAXIMUM_UID:
            return dimse.INVALID_SOP_INSTANCE
        return None

    def _store(self, context: Context, command: dimse.Command) -> int:
        buffer = self._buffer
        named = (command.sop_class, command.sop_instance)
        try:
            at = self._data_set(
                context.id, buffer.begin(dimse.file_meta(*named, context.transfer_syntax)), buffer.place
            )
            return self._intake.take(buffer.received(at), self._sender, self._association, named)
        except (OutOfResources, DBAPIError) as error:
            self._intake.refuse(self._sender, str(error.__cause__ or error))
            return OUT_OF_RESOURCES
        except _Ends:
            raise
        except Exception as error:  # of ours, not of the peer's; the next instance may do
            self._intake.refuse(self._sender, told_by_place(error))
            return dimse.PROCESSING_FAILURE
        finally:
            buffer.clear()


def _out_of_turn(words: str) -> pdu.ProtocolError:
    return pdu.ProtocolError(words, pdu.NOT_SPECIFIED, pdu.SERVICE_USER)
