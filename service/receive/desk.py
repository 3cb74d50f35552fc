"""What is in one place however many processes receive: seats, what has arrived, and the counts of the metrics.

An association in a receiver has a line to the node. The node answers it in a thread, as if the association were in that
thread; where the line breaks, since the receiver died, the association was aborted and its seat is free.
"""

import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

import structlog
from sqlalchemy.exc import DBAPIError

from service.commitment import Report
from service.errors import OutOfResources, told_by_place
from service.header import HeaderFacts
from service.receive.intake import Arrivals, Results, new_association
from service.receive.policy import Refused, Seat, Seats

log = structlog.get_logger()

_COUNT = "count"


class Informed(Arrivals, Results, Protocol):
    """Whoever is told of arrivals and knows of results (`service.receive.intake`)."""


class Desk:
    """The node's end.

    Parameters
    ----------
    arrivals
        Told of every instance and association.
    count
        Called once for each instance with what became of it.
    """

    def __init__(self, seats: Seats, arrivals: Informed, count: Callable[[str], None]) -> None:
        self._seats = seats
        self._arrivals = arrivals
        self._count = count

    def attend(self, line: Connection) -> None:
        """Answer what is asked for one association, until its line ends."""
        visitor = _Visitor(new_association(), self._seats, self._arrivals, self._count)
        try:
            while True:
                name, arguments = line.recv()
                answer = _answer(visitor, name, arguments)
                if name != _COUNT:
                    line.send(answer)
        except (EOFError, OSError):
            pass
        finally:
            _answer(visitor, "leave", ())
            line.close()


class _Visitor:
    """An association as the node knows it: its number is the node's, for those of receivers can be the same."""

    def __init__(self, number: int, seats: Seats, arrivals: Informed, count: Callable[[str], None]) -> None:
        self._number, self._seats, self._arrivals = number, seats, arrivals
        self._seat: Seat | None = None
        self.count = count

    def take(self, sender: str) -> Refused | None:
        seat = self._seats.take(sender)
        if isinstance(seat, Refused):
            return seat
        self._seat = seat
        return None

    def free(self) -> None:
        if self._seat is not None:
            with self._seat:
                pass

    def arrived(self, facts: HeaderFacts, sender: str) -> None:
        self._arrivals.arrived(self._number, facts, sender)

    def released(self) -> None:
        self._arrivals.released(self._number)

    def aborted(self) -> None:
        self._arrivals.aborted(self._number)

    def is_result(self, sop_instance_uid: str) -> bool:
        return self._arrivals.is_result(sop_instance_uid)

    def reported(self, report: Report, archive: str) -> bool:
        return self._arrivals.reported(report, archive)

    def leave(self) -> None:
        self.free()
        self.aborted()  # of one that has ended before, nobody takes notice


def _answer(visitor: _Visitor, name: str, arguments: tuple[Any, ...]) -> tuple[Exception | None, Any]:
    """The error or what is returned. Errors go as what a receiver may answer them with, in words for the log."""
    try:
        return None, getattr(visitor, name)(*arguments)
    except (OutOfResources, DBAPIError) as error:
        return OutOfResources(str(error.__cause__ or error)), None
    except Exception as error:  # ours to mend
        log.error("association.failed", reason=told_by_place(error))  # noqa: TRY400
        return RuntimeError(told_by_place(error)), None


class AtDesk(threading.local):
    """A receiver's end: what `Seats`, `Arrivals` and the metrics are in the node, each thread with a line of its own.

    Parameters
    ----------
    call
        Opens a line. Raises `OSError`.
    """

    def __init__(self, call: Callable[[], Connection]) -> None:
        self._call = call
        self._line: Connection | None = None

    def take(self, sender: str) -> Seat | Refused:
        """A seat for the association of this thread, or why there is none. Raises `OSError`."""
        self._line = self._call()
        refused: Refused | None = self._ask("take", sender)
        if refused is None:
            return Seat(self, sender)
        self._hang_up()
        return refused

    def free(self, _sender: str) -> None:
        """Give it back."""
        self._ask("free")

    def expects(self, _association: int, _facts: HeaderFacts) -> bool:
        """Never: to ask the node would cost as much as to tell it."""
        return False

    def arrived(self, _association: int, facts: HeaderFacts, sender: str) -> None:
        """An instance is stored and not yet acknowledged. Raises `OutOfResources` where the node cannot note that."""
        self._ask("arrived", facts, sender)

    def released(self, _association: int) -> None:
        """The association was released: the line is needed no more."""
        try:
            self._ask("released")
        finally:
            self._hang_up()

    def aborted(self, _association: int) -> None:
        """It was aborted, or its connection lost."""
        try:
            self._ask("aborted")
        finally:
            self._hang_up()

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether it is an instance that the node has made. Raises `OutOfResources` where the node cannot tell."""
        return bool(self._ask("is_result", sop_instance_uid))

    def reported(self, report: Report, archive: str) -> bool:
        """An archive reports on storage commitment; whether anybody had asked. Raises as `arrived`."""
        return bool(self._ask("reported", report, archive))

    def count(self, outcome: str) -> None:
        """Count an instance; nobody waits for an answer."""
        assert self._line is not None
        self._line.send((_COUNT, (outcome,)))

    def _ask(self, name: str, *arguments: object) -> Any:
        assert self._line is not None
        self._line.send((name, arguments))
        error, value = self._line.recv()
        if error is not None:
            raise error
        return value

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
