"""The messages of an association (PS3.7 6.3, 9): requests and their data sets, and the responses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from pydicom.uid import UID
from sqlalchemy.exc import DBAPIError

from service.commitment import STORAGE_COMMITMENT
from service.errors import OutOfResources, told_by_place
from service.receive.buffer import COMMAND, InstanceBuffer
from service.receive.policy import Accepted
from service.received import Received
from service.settings import NodeSettings
from service.spill import Spill
from service.wire import VERIFICATION, dimse, pdu
from service.wire.connection import Connection
from service.wire.ends import NOT_SPECIFIED, SERVICE_USER, ConnectionLost, ProtocolError

log = structlog.get_logger()

OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3
OPERATIONS = {VERIFICATION: dimse.C_ECHO_RQ, STORAGE_COMMITMENT: dimse.N_EVENT_REPORT_RQ}
"""What is asked for in the presentation contexts of a SOP class; in those of all others, C-STORE."""


class Takes(Protocol):
    """What becomes of instances (`service.receive.intake`)."""

    def take(
        self,
        received: Received,
        sender: str,
        association: int,
        named: tuple[str, str] | None = None,
        acknowledge: Callable[[], object] | None = None,
    ) -> int:
        """Keep an instance; return the status of C-STORE, of which a success may be told earlier, by ``acknowledge``.

        Raises `OutOfResources`, `DBAPIError`.
        """

    def report(self, received: Received, sender: str) -> int:
        """Take an archive's report on storage commitment; return the status of N-EVENT-REPORT. Raises as `take`."""

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
    operation: int
    """What it is for: the field of the requests that may come in it."""


class _Answer:
    """The response to a request: given once, and early where the request was a success before all is done."""

    def __init__(self, connection: Connection, context: Context, command: dimse.Command, maximum: int) -> None:
        self._connection = connection
        self._about = context.id, command
        self._maximum = maximum
        self._lost: ConnectionLost | None = None
        self.given = False

    def acknowledge(self) -> None:
        """Tell of success now. Where the peer cannot be told any more, `give` says so: what is begun must be ended."""
        self.given = True
        try:
            self._send(dimse.SUCCESS)
        except ConnectionLost as lost:
            self._lost = lost

    def give(self, status: int) -> None:
        """Answer, unless that was done. Raises `ConnectionLost`."""
        if not self.given:
            self._send(status)
        elif self._lost is not None:
            raise self._lost

    def _send(self, status: int) -> None:
        self._connection.send(dimse.response(*self._about, status, self._maximum))


class Conversation:
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
            number: Context(
                number,
                str(context.abstract_syntax),
                str(context.transfer_syntax[0]),
                OPERATIONS.get(UID(context.abstract_syntax or ""), dimse.C_STORE_RQ),
            )
            for number, context in accepted.contexts.items()
        }
        self._buffer = InstanceBuffer(intake.spool_file)
        connection.meanwhile = self._buffer.shrink
        self._reader = pdu.FragmentReader(connection, self._buffer.view, settings.maximum_pdu, COMMAND)

    def answer_message(self) -> None:
        """Receive the next message and answer it. Raises how the association ends."""
        self._connection.allow(self._idle_seconds)
        context, command = self._command()
        if command.field == dimse.C_CANCEL_RQ:
            return  # what it could cancel was answered before it could be read
        answer = _Answer(self._connection, context, command, self._maximum)
        status = self._unfit(context, command)
        if status == dimse.SUCCESS and command.data_set:
            status = self._store(context, command, answer)
        else:
            self._pass_over(context, command, status)
        answer.give(status)

    def _command(self) -> tuple[Context, dimse.Command]:
        reader, at, control = self._reader, COMMAND, 0
        first = None
        while not control & pdu.IS_LAST:
            context_id, control, length = reader.fragment()
            if first is None:
                first = context_id
                if first not in self._contexts:
                    raise ProtocolError(f"presentation context {first} was not accepted")
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
            at = reader.payload(place(at, length), length, not control & pdu.IS_LAST)
            prolong(length)
        return at

    def _unfit(self, context: Context, command: dimse.Command) -> int:
        """The status of a request that is refused whatever its data set is; success for one that is not."""
        if command.field != context.operation:
            return dimse.UNRECOGNIZED_OPERATION
        if command.sop_class != context.sop_class:
            return dimse.SOP_CLASS_NOT_SUPPORTED
        if command.data_set == (command.field == dimse.C_ECHO_RQ):
            return dimse.MISTYPED_ARGUMENT
        if len(command.sop_instance) > dimse.MAXIMUM_UID:
            return dimse.INVALID_SOP_INSTANCE
        return dimse.SUCCESS

    def _pass_over(self, context: Context, command: dimse.Command, status: int) -> None:
        if command.data_set:
            self._data_set(context.id, COMMAND, lambda at, length: COMMAND)  # each fragment over the last one
        if command.field == dimse.C_STORE_RQ:
            self._intake.refuse(self._sender, f"the command is not one for this association (0x{status:04X})")

    def _store(self, context: Context, command: dimse.Command, answer: "_Answer") -> int:
        named = (command.sop_class, command.sop_instance)
        begin = self._buffer.begin(dimse.file_meta(*named, context.transfer_syntax))
        keep = self._report if command.field == dimse.N_EVENT_REPORT_RQ else self._keep
        try:
            return keep(self._data_set(context.id, begin, self._buffer.place), named, answer)
        finally:
            self._buffer.clear()

    def _report(self, end: int, _named: tuple[str, str], _answer: "_Answer") -> int:
        try:
            return self._intake.report(self._buffer.received(end), self._sender)
        except (OutOfResources, DBAPIError) as error:  # the archive may report again; if not, it is asked again
            log.warning("commitment.not_kept", archive=self._sender, reason=str(error.__cause__ or error))
            return dimse.RESOURCE_LIMITATION

    def _keep(self, end: int, named: tuple[str, str], answer: "_Answer") -> int:
        try:
            received = self._buffer.received(end)
            return self._intake.take(received, self._sender, self._association, named, answer.acknowledge)
        except (OutOfResources, DBAPIError) as error:
            if answer.given:  # what was acknowledged is durable; no more should come until it has its place
                raise
            self._intake.refuse(self._sender, str(error.__cause__ or error))
            return OUT_OF_RESOURCES
        except Exception as error:  # of ours, not of the peer's; the next instance may do
            if answer.given:
                raise
            self._intake.refuse(self._sender, told_by_place(error))
            return dimse.PROCESSING_FAILURE


def _out_of_turn(words: str) -> ProtocolError:
    return ProtocolError(words, NOT_SPECIFIED, SERVICE_USER)
