"""The engines of one device, in a process of their own.

What hangs or dies in there, a driver or a native library, takes neither the node nor its other devices with it: the
process is ended and started again, and whoever waited gets `InferenceLost`, to try again. A thread could not be ended
so.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Pipe
from types import TracebackType
from typing import Any, Self

import structlog

from engines.errors import InferenceLost, RuntimeUnavailable, WetreadError
from engines.runtimes.base import RuntimeSettings
from engines.serving.line import Line
from engines.serving.messages import (
    Answer,
    EngineSpec,
    EngineStatus,
    Logged,
    Opened,
    Pulse,
    Request,
    SentImage,
    VerifyAgain,
)
from engines.types import Findings, Image

log = structlog.get_logger()

RESTART_SECONDS = 10.0
"""Between attempts to start a process that does not come up."""

CLOSING = "the engines are being closed"


class EngineProcess:
    """One process, kept alive. `run` may be called from several threads."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None
        self._pulse = Pulse()
        self.statuses: tuple[EngineStatus, ...] = ()
        self.fell_back = False
        self._thread = threading.Thread(target=self._supervise, name=f"engines-{spec.settings.device}", daemon=True)

    def start(self) -> None:
        """Start the process, and wait until every model is verified.

        Raises
        ------
        WetreadError
            As from `engines.serving.engine_set.open_engines`.
        InferenceLost
            The process hung or died before that, also with the fallback.
        """
        self._open()
        self._thread.start()

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Let the process end; what still waits gets `InferenceLost`."""
        self.give_up()
        if self._thread.is_alive():
            self._thread.join()
        self._close(grace_seconds)

    def give_up(self) -> None:
        """Let a `start` that is under way in another thread end with `InferenceLost`; does not wait for it."""
        self._stopping.set()

    def drain(self) -> None:
        """Take no more requests, and stop once those that are there are answered."""
        threading.Thread(target=self._drain, name="draining-engines", daemon=True).start()

    def _drain(self) -> None:
        while self._waiting and self._ready.is_set():
            time.sleep(0.05)
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process's number, None while there is none."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether it serves just now."""
        return self._ready.is_set()

    @property
    def busy(self) -> int:
        """How many requests it has."""
        return len(self._waiting)

    def run(self, model: str, image: Image, *, probabilities: bool = False, urgent: bool = False) -> Findings:
        """Run a model over an image; see `engines.serving.engine_set.EngineSet.run`.

        Raises
        ------
        WetreadError
            As there.
        InferenceLost
            The process hung or died meanwhile; it is being started again.
        RuntimeUnavailable
            It does not come up.
        """
        sent = SentImage.of(image)
        findings: Findings = self._ask(lambda number: Request(number, model, sent, probabilities, urgent))
        return findings

    def verify_again(self) -> tuple[EngineStatus, ...]:
        """Compare every engine with its golden outputs once more, as routine work; serve by what came of it."""
        self.statuses = self._ask(VerifyAgain)
        return self.statuses

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, message: Callable[[int], Request | VerifyAgain]) -> Any:
        given_up = time.monotonic() + self._spec.hang_seconds
        while not self._ready.wait(0.2):
            if self._stopping.is_set():
                raise InferenceLost(CLOSING)
            if time.monotonic() > given_up:
                raise RuntimeUnavailable("the engines' process does not come up; see engine.process_failed in the log")
        answer: Future[Any] = Future()
        number = next(self._numbers)
        with self._lock:
            line = self._line
            if line is None:
                raise InferenceLost("the engines' process is being started again")
            self._waiting[number] = answer
        try:
            line.send(message(number))  # not under `_lock`: a process that takes nothing must not hold up its own end
        except Exception as error:
            with self._lock:
                self._waiting.pop(number, None)
            if not isinstance(error, OSError):
                raise
            raise InferenceLost(f"the engines' process is gone ({error}); it is being started again") from error
        return answer.result()

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except InferenceLost as error:
                self._lose(error)
                self._come_up_again()
        self._lose(InferenceLost(CLOSING))

    def _listen(self) -> None:
        """Take what the process says, until it hangs or dies."""
        line, heard = self._line, time.monotonic()
        assert line is not None
        while not self._stopping.is_set():
            try:
                while (message := line.next(0.2)) is not None:
                    self._take(message)
                    heard = time.monotonic()
            except EOFError:
                raise InferenceLost(f"the engines' process died ({self._ended()}); it is started again") from None
            silent = time.monotonic() - heard
            if self._pulse.seconds and self._pulse.seconds + silent > self._spec.hang_seconds:
                raise InferenceLost(
                    f"an inference gave no answer for {self._spec.hang_seconds:g} s and was ended; if it only needs "
                    "longer, raise engines.hang_seconds"
                )
            if silent > self._spec.hang_seconds:
                raise InferenceLost(f"the engines' process was silent for {silent:.0f} s and was ended")

    def _take(self, message: Any) -> None:
        match message:
            case Pulse():
                self._pulse = message
            case Logged():
                getattr(log, message.level)(message.event, **message.fields)
            case Answer():
                with self._lock:
                    waiting = self._waiting.pop(message.number, None)
                if waiting is not None and message.error is not None:
                    waiting.set_exception(message.error)
                elif waiting is not None:
                    waiting.set_result(message.value)

    def _lose(self, error: InferenceLost) -> None:
        """End the process, and tell everybody who waits; only those whose inference ran are to blame."""
        blamed = self._pulse.requests
        with self._lock:
            self._ready.clear()
            waiting, self._waiting = self._waiting, {}
        if not self._stopping.is_set():
            log.error("engine.process_lost", reason=str(error), requests=len(waiting))
        self._close(0.0)
        for number, future in waiting.items():
            future.set_exception(InferenceLost(str(error), blamed=number in blamed))

    def _come_up_again(self) -> None:
        while not self._stopping.is_set():
            try:
                self._open()
            except WetreadError as error:
                log.error("engine.process_failed", reason=str(error), retry_seconds=RESTART_SECONDS)  # noqa: TRY400
                self._stopping.wait(RESTART_SECONDS)
            else:
                log.info("engine.process_restarted")
                return

    def _open(self) -> None:
        try:
            self._open_on(self._spec.settings)
            self.fell_back = False
        except InferenceLost as error:
            if self._spec.fallback is None or self._stopping.is_set():
                raise
            log.error("engine.unavailable", runtime=self._spec.settings.runtime, reason=str(error))  # noqa: TRY400
            self._open_on(self._spec.fallback)
            self.fell_back = True

    def _open_on(self, settings: RuntimeSettings) -> None:
        ours, theirs = Pipe()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "engines.serving", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise RuntimeUnavailable(f"no process can be started for the engines ({error.strerror})") from error
        with self._lock:
            self._line = line = Line(ours)
        try:
            opened = self._first_word(line, replace(self._spec, settings=settings))
        except WetreadError:
            self._close(0.0)
            raise
        self._pulse = Pulse()
        self.statuses = opened.statuses
        self._ready.set()

    def _first_word(self, line: Line, spec: EngineSpec) -> Opened:
        """Ask for engines, and wait until the process says that all are verified."""
        heard, at = time.monotonic(), "the engines"
        try:
            line.send(spec)
            while time.monotonic() - heard < spec.hang_seconds:
                if self._stopping.is_set():
                    raise InferenceLost(CLOSING)
                message = line.next(0.2)
                if isinstance(message, Opened):
                    return _whole(message)
                if message is not None:
                    heard = time.monotonic()
                    self._take(message)
                if isinstance(message, Logged):
                    at = str(message.fields.get("model", at))
        except (EOFError, OSError):
            raise InferenceLost(f"the engines' process died while it opened {at} ({self._ended()})") from None
        raise InferenceLost(
            f"the engines' process was at {at} for {spec.hang_seconds:g} s, and was ended before it served; if it only "
            "needs longer, raise engines.hang_seconds"
        )

    def _ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        if -code == signal.SIGKILL:
            return "signal 9, as the kernel ends what takes more memory than there is"
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def _close(self, grace_seconds: float) -> None:
        with self._lock:
            line, self._line = self._line, None
            process, self._process = self._process, None
        if line is not None and grace_seconds:
            line.close()
        if process is not None:
            try:
                process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if line is not None:
            line.close()


def _whole(opened: Opened) -> Opened:
    if opened.error is None:
        return opened
    if isinstance(opened.error, WetreadError):
        raise opened.error
    raise RuntimeUnavailable(f"the engines cannot be opened: {opened.error}") from opened.error
