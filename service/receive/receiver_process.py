"""``python -m service.receive.receiver_process``: started by `service.receive.receivers` and by nothing else.

It serves the connections that the node hands over: negotiation, TLS, PDUs, header facts and the spool are here; what
must be in one place is asked of the node (`service.receive.desk`).
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import structlog

from service.errors import OutOfResources, WetreadError, told_by_place
from service.logs import silence_libraries
from service.receive.connections import Connections
from service.receive.control import Asked, Associated, Begin, Begun, Control, Ended, Here, Logged, Serve, Stop
from service.receive.desk import AtDesk
from service.receive.intake import Intake
from service.receive.policy import AssociationPolicy
from service.receive.tls import Tls
from service.settings import Settings
from service.shared_spool import open_spool
from service.spool import Spool

log = structlog.get_logger()


def main() -> None:
    """Serve until the node says stop, or is no more."""
    # The node decides when to end, also where a terminal or systemd tells all of its processes to.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    silence_libraries()
    control = Control(Connection(int(sys.argv[1])))
    with suppress(EOFError, OSError):
        begin, _ = control.receive()
        structlog.configure(
            processors=[Forwarding(control)],
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelNamesMapping()[begin.settings.log.level.upper()]
            ),
        )
        try:
            receiver = Receiver(control, begin)
        except Exception as error:
            expected = isinstance(error, WetreadError)
            control.send(
                Begun(error if expected else OutOfResources(f"a receiver cannot begin: {told_by_place(error)}"))
            )
            return
        control.send(Begun())
        receiver.serve()
    # At once, whatever the associations are at: without the node nothing may be acknowledged.
    os._exit(0)


class Receiver:
    """Serves what it is handed over. Raises `WetreadError`, `OSError` where it cannot."""

    def __init__(self, control: Control, begin: Begin) -> None:
        settings = begin.settings
        self._control = control
        self._spool = spool_of(settings, begin.number)
        self._spool.join()
        desk = AtDesk(self._call)
        intake = Intake(self._spool, desk.count, desk)
        intake.tell(desk)
        policy = AssociationPolicy(settings, desk)
        self._connections = {False: Connections(settings, policy, intake, ended=self._ended)}
        if settings.tls.on:
            self._connections[True] = Connections(settings, policy, intake, Tls(settings.tls), self._ended)

    def serve(self) -> None:
        """Do as the node says. Raises `EOFError`, `OSError` where it is gone."""
        while True:
            message, descriptor = self._control.receive()
            match message:
                case Serve():
                    self._begin(self._connections[message.secured], socket.socket(fileno=descriptor))
                case Asked():
                    self._control.send(Here())
                case Stop():  # in a thread, for the node may be gone before all are ended
                    threading.Thread(target=self._stop, name="stop", daemon=True).start()

    def _begin(self, connections: Connections, opened: socket.socket) -> None:
        try:
            connections.begin(opened)
        except (OSError, RuntimeError) as error:  # no descriptors or threads left; or it was gone already
            log.warning("connection.not_taken", reason=getattr(error, "strerror", None) or str(error))
            opened.close()
            self._ended()

    def _ended(self) -> None:
        with suppress(OSError):  # the node is gone, and so are we
            self._control.send(Ended())

    def _call(self) -> Connection:
        """A line to the node for this thread's association."""
        ours, theirs = Pipe()
        with theirs:
            self._control.send(Associated(), theirs.fileno())
        return ours

    def _stop(self) -> None:
        for connections in self._connections.values():
            connections.stop()
        self._spool.leave()
        os._exit(0)


def spool_of(settings: Settings, number: int) -> Spool:
    """The spool as a receiver works with it: it has its part of the ready files."""
    ready_mb = settings.spool.ready_mb // settings.node.receivers
    return open_spool(settings, ready_mb=ready_mb, receiver=number, node=settings.shared)


class Forwarding:
    """Has the node log what is logged here, so that there is one log, and nobody writes into another's line."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def __call__(self, _logger: Any, level: str, fields: MutableMapping[str, Any]) -> Any:
        """Send an event; nothing is left to be written here."""
        event = str(fields.pop("event", ""))
        with suppress(OSError):
            self._control.send(Logged(level, event, {key: _plain(value) for key, value in fields.items()}))
        raise structlog.DropEvent


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


if __name__ == "__main__":
    main()
