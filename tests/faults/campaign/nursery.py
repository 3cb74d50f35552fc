"""Nodes as forks of one process that has loaded the node's code: a start costs half as much, and a run has several.

What runs then is `wetread serve` with the same arguments, in a process of its own that is killed, stopped and waited
for like any other.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Self

LONGEST = 1 << 16


class Nursery:
    """The process that has loaded the code. Use it as a context manager."""

    def __enter__(self) -> Self:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.faults.campaign.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._lock = threading.Lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()
        self._process.wait(30)

    def start(self, arguments: Sequence[str]) -> "Nursling":
        """Run ``wetread`` with these arguments."""
        ours, theirs = os.pipe()
        try:
            pid = self.ask({"start": list(arguments)}, theirs)
        finally:
            os.close(theirs)
        return Nursling(self, pid, os.fdopen(ours, "rb"))

    def ask(self, message: dict[str, Any], *descriptors: int) -> Any:
        """Send a message, and give the answer."""
        with self._lock:
            socket.send_fds(self._line, [json.dumps(message).encode()], descriptors)
            return json.loads(self._line.recv(LONGEST))


class Nursling:
    """A process from a nursery, with as much of `subprocess.Popen` as nodes need."""

    def __init__(self, nursery: Nursery, pid: int, stderr: IO[bytes]) -> None:
        self._nursery, self.pid, self.stderr = nursery, pid, stderr
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        with self._lock:
            if self.returncode is None:
                self.returncode = self._nursery.ask({"poll": self.pid})
            return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("wetread", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs. Its number is its own until it was waited for."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def serve(line: socket.socket) -> None:
    """Answer until the other end hangs up; what runs then is killed. There are no threads: a fork has all of it."""
    running: set[int] = set()
    while True:
        content, descriptors, _flags, _address = socket.recv_fds(line, LONGEST, 1)
        if not content:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return
        message = json.loads(content)
        if "start" in message:
            pid = os.fork()
            if pid == 0:
                line.close()
                _become(message["start"], descriptors[0])
            for descriptor in descriptors:
                os.close(descriptor)
            running.add(pid)
            answer: int | None = pid
        else:
            ended, status = os.waitpid(message["poll"], os.WNOHANG)
            running.discard(ended)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        line.send(json.dumps(answer).encode())


def _become(arguments: Sequence[str], stderr: int) -> None:
    from service.cli import main

    nothing = os.open(os.devnull, os.O_RDWR)
    for number, descriptor in enumerate((nothing, nothing, stderr)):
        os.dup2(descriptor, number)
    os.close(nothing)
    os.close(stderr)
    sys.argv[1:] = arguments
    code = 1
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import service.cli
    import service.node  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
