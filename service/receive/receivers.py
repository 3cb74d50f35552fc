"""Several processes that receive, where one is not enough (``node.receivers``).

The node accepts each connection and hands it to the receiver that has the fewest. A receiver that dies takes its
associations with it and nothing else: what it acknowledged is stored and noted, what it had not yet given its place is
put in order by the next one, and the node hears of the associations by their lines.
"""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import structlog

from service.errors import OutOfResources
from service.receive.control import Asked, Associated, Begin, Begun, Control, Ended, Here, Logged, Serve, Stop
from service.receive.desk import Desk, Informed
from service.receive.policy import Seats
from service.receive.port import Port
from service.settings import Settings
from service.spool import Spool

log = structlog.get_logger()

START_SECONDS = 60.0
RESTART_SECONDS = 1.0
"""Before a process is started again that has died."""
ASK_SECONDS = 5.0
"""How often each is asked whether it is there ..."""
SILENT = 6
"""... and after so many times without an answer it is ended, and started again."""
STOP_SECONDS = 25.0
"""A receiver ends associations within ten seconds for each port."""


class Receivers:
    """The processes of a node; there are none where it receives by itself.

    Parameters
    ----------
    spool
        Locked; each process keeps the lock as long as it lives.
    arrivals
        Told of every instance and association.
    count
        Called once for each instance with what became of it.
    """

    def __init__(
        self, settings: Settings, spool: Spool, seats: Seats, arrivals: Informed, count: Callable[[str], None]
    ) -> None:
        several = settings.node.receivers if settings.node.receivers > 1 else 0
        desk = Desk(seats, arrivals, count)
        self._settings = settings
        self._turns = itertools.count()
        self._ask_at = 0.0
        self._processes = tuple(ReceiverProcess(number + 1, settings, spool, desk) for number in range(several))

    def start(self) -> None:
        """Start them, and wait until all can serve. Raises `WetreadError` where one cannot."""
        for process in self._processes:
            process.start()
        for process in self._processes:
            process.wait()

    def stop(self) -> None:
        """Have them end what is open, when what it is storing is stored, and themselves."""
        for process in self._processes:
            process.tell_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def ask(self) -> None:
        """Ask now and then whether they are there; one that hangs is ended. Call it often."""
        if time.monotonic() > self._ask_at:
            self._ask_at = time.monotonic() + ASK_SECONDS
            for process in self._processes:
                process.ask()

    @property
    def lost(self) -> int:
        """How many do not serve just now, and are being started again."""
        return sum(not process.serving for process in self._processes)

    @property
    def serving(self) -> bool:
        """Whether there is one that serves, or none is needed."""
        return not self._processes or self.lost < len(self._processes)

    def ports(self) -> "tuple[HandingOver, ...]":
        """Those that the settings ask for, plain or with TLS, to be started; empty where there are no processes."""
        tls = self._settings.tls
        kinds = [secured for secured in (False, True) if (tls.on if secured else not tls.only)]
        return tuple(HandingOver(self._settings, secured, self) for secured in kinds if self._processes)

    def take(self, opened: socket.socket, secured: bool) -> bool:
        """Hand a connection to the one with the fewest, by turns where that are several; False where none serves."""
        for process in sorted(self._processes, key=ReceiverProcess.load):
            if process.serving:
                process.turn = next(self._turns)
                with suppress(OSError):  # it is gone, and nobody has noticed yet
                    process.serve(opened, secured)
                    return True
        return False


class HandingOver(Port):
    """A port whose connections receivers serve."""

    def __init__(self, settings: Settings, secured: bool, receivers: Receivers) -> None:
        super().__init__(settings, secured, self._hand_over)
        self._receivers = receivers

    def _hand_over(self, opened: socket.socket) -> None:
        with opened:
            while self.listening and not self._receivers.take(opened, self._secured):
                time.sleep(0.05)  # they are being started again; who comes now has to wait for that


class ReceiverProcess:
    """One process, started again whenever it ends."""

    def __init__(self, number: int, settings: Settings, spool: Spool, desk: Desk) -> None:
        self._number = number
        self._settings = settings
        self._spool = spool
        self._desk = desk
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name=f"receiver-{number}", daemon=True)
        self._begun: Future[None] = Future()  # done when it serves for the first time, or cannot
        self.serving = False
        self.connections = 0
        self.turn = -1
        self._unanswered = 0

    def load(self) -> tuple[bool, int, int]:
        """The least takes the next connection: not one that may hang, that with the fewest, by turns."""
        return self._unanswered > 1, self.connections, self.turn

    def ask(self) -> None:
        """Ask it whether it is there; end it where it has not answered for too long."""
        if not self.serving or self._control is None or self._process is None:
            return
        # so many times, and not so long: where the whole machine has stood still, its answer is on its way
        if self._unanswered >= SILENT:
            log.error("receiver.hangs", receiver=self._number, connections=self.connections)
            self._process.kill()
            return
        self._unanswered += 1
        with suppress(OSError):  # it is gone, and `_run` notices
            self._control.send(Asked())

    def start(self) -> None:
        """Start it; `wait` tells whether it could be."""
        self._thread.start()

    def wait(self) -> None:
        """Wait until it serves. Raises `WetreadError` where it cannot."""
        try:
            self._begun.result(START_SECONDS)
        except TimeoutError:
            raise OutOfResources(f"receiver {self._number} does not serve within {START_SECONDS:g} s") from None

    def serve(self, opened: socket.socket, secured: bool) -> None:
        """Hand over a connection, which can be closed here then. Raises `OSError` where the process is gone."""
        with self._lock:
            self.connections += 1
        if self._control is not None:
            self._control.send(Serve(secured), opened.fileno())

    def tell_to_stop(self) -> None:
        """Let it end; `join` waits for that."""
        self._stopping.set()
        with suppress(OSError):
            if self._control is not None:
                self._control.send(Stop())

    def join(self, seconds: float) -> None:
        """Wait until it has ended; one that takes longer is killed."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._process is not None and self._thread.is_alive():
            log.error("receiver.killed", receiver=self._number, reason="it does not end")
            self._process.kill()
            self._thread.join()

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            try:
                self._run()
            except Exception as error:
                if not self._begun.done():
                    self._begun.set_exception(error)
                    return
                log.error("receiver.failed", receiver=self._number, reason=str(error), retry_seconds=RESTART_SECONDS)  # noqa: TRY400
            self._stopping.wait(RESTART_SECONDS)

    def _run(self) -> None:
        """Start a process, and take what it says until it ends. Raises what it cannot start for."""
        process, control = self._launch()
        try:
            control.send(Begin(self._number, self._settings))
            if self._stopping.is_set():  # and nobody has told it
                control.send(Stop())
            while True:
                self._take(*control.receive())
        except (EOFError, OSError):
            pass
        finally:
            self.serving = False
            process.kill()  # where it has not ended, but cannot be understood
            code = process.wait()
            control.close()
        if not self._begun.done():
            raise OutOfResources(f"receiver {self._number} ended before it served ({_how(code)})")
        if not self._stopping.is_set():
            log.error("receiver.lost", receiver=self._number, reason=_how(code), connections=self.connections)

    def _launch(self) -> tuple[subprocess.Popen[bytes], Control]:
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "service.receive.receiver_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), self._spool.lock_descriptor],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # what we have, and no other
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.connections = self._unanswered = 0
        self._control = Control(ours)
        return self._process, self._control

    def _take(self, message: Any, descriptor: int) -> None:
        match message:
            case Associated():
                self._attend(Connection(descriptor))
            case Ended():
                with self._lock:
                    self.connections -= 1
            case Here():
                self._unanswered = 0
            case Logged():
                getattr(log, message.level)(message.event, **message.fields)
            case Begun(error=None):
                self.serving = True
                assert self._process is not None
                log.info("receiver.started", receiver=self._number, pid=self._process.pid)
                if not self._begun.done():
                    self._begun.set_result(None)
            case Begun(error=Exception() as error):
                raise error

    def _attend(self, line: Connection) -> None:
        try:
            threading.Thread(target=self._desk.attend, args=(line,), name="receiver-line", daemon=True).start()
        except RuntimeError as error:  # no threads left: there will be no association
            log.warning("connection.not_taken", reason=str(error))
            line.close()


def _how(code: int) -> str:
    """How a process has ended."""
    if -code == signal.SIGKILL:
        return "signal 9, as the kernel ends what takes more memory than there is"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
