"""Who receives. Each is started on an empty folder for every measurement, and ended after it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.presentation import build_context

from benchmarks.receiving.senders import CALLING
from service.errors import WetreadError
from service.settings import SpoolSettings
from service.types import Destination
from service.wire import VERIFICATION, Patience, association
from tests.running_node import RunningNode, Section, free_ports

DURABLE, GROUP, OFF = "node, durable", "node, sync group", "node, sync off"
ALONE, ALONE_OFF = "receiver alone, durable", "receiver alone, sync off"
TWO = "node, 2 receivers"
RECEIVERS = {TWO: 2}
STORESCP, ORTHANC, TUTORIAL = "storescp", "Orthanc", "pynetdicom"
SYNC = {DURABLE: "each", TWO: "each", GROUP: "group", OFF: "off", ALONE: "each", ALONE_OFF: "off"}
READY_MB = SpoolSettings().ready_mb
SETTLED_SECONDS = 2.0
"""After so long without a further ready file it makes no more."""


@dataclass(frozen=True)
class Receiving:
    """A subject that listens.

    Attributes
    ----------
    pid
        Of the process that it is, whatever that has started included.
    kept
        Counts the files of instances that it has stored; None where it does not say.
    settle
        Waits until it has done what it does while nothing comes.
    """

    port: int
    ae_title: str
    pid: int
    kept: Callable[[], int] | None = None
    settle: Callable[[], None] = lambda: None


def available() -> list[str]:
    """The subjects that this machine has, in the order in which they are shown."""
    tools = {STORESCP: shutil.which("storescp"), ORTHANC: _orthanc(), TUTORIAL: sys.executable}
    return [*SYNC, *(name for name, path in tools.items() if path)]


@contextmanager
def receiving(name: str, folder: Path, engines: Section, senders: int) -> Iterator[Receiving]:
    """Start a subject that works in a folder, for so many senders at a time; it is ended at the end."""
    if name in (ALONE, ALONE_OFF):
        start = _alone(name, folder, engines)
    elif name in SYNC:
        start = _node(name, folder, engines)
    else:
        start = {STORESCP: _storescp, ORTHANC: _run_orthanc, TUTORIAL: _tutorial}[name](folder, senders)
    with start as subject:
        yield subject


@contextmanager
def _node(name: str, folder: Path, engines: Section) -> Iterator[Receiving]:
    """``wetread serve``, with engines that nothing is routed to within the time of a measurement."""
    node = _configured(name, folder, engines)
    with node:
        yield _receiving(name, node, node.process.pid)


@contextmanager
def _alone(name: str, folder: Path, engines: Section) -> Iterator[Receiving]:
    node = _configured(name, folder, engines)
    command = [sys.executable, "-m", "benchmarks.receiving.receiver_alone", str(node.config)]
    with _process(command, node.destination.port, "WETREAD", folder) as process:
        yield _receiving(name, node, process.pid)


def _configured(name: str, folder: Path, engines: Section) -> RunningNode:
    return RunningNode(
        folder,
        Destination("nowhere", "NOWHERE", "127.0.0.1", free_ports(1)[0]),
        senders=[CALLING],
        sections={
            "engines": engines,
            "archives.nowhere": {"count": "no"},
            "series": {"quiet_seconds": 3600.0, "quiet_ceiling_seconds": 3600.0, "limit_seconds": 7200.0},
            "spool": {"sync": SYNC[name], "ready_mb": READY_MB},
            "node": {"receivers": RECEIVERS.get(name, 1)},
        },
    )


def _receiving(name: str, node: RunningNode, pid: int) -> Receiving:
    def settle() -> None:
        _settle(name, node.spool)

    return Receiving(node.destination.port, "WETREAD", pid, lambda: len(node.stored()), settle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it was of no use, and made anew
        return 0


def _settle(name: str, spool: Path) -> None:
    """Wait until a subject has made its ready files."""
    made, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED_SECONDS:
        now = sum(map(_size, spool.glob("**/ready/*.dcm")))
        made, since = now, since if now == made else time.monotonic()
        time.sleep(0.1)


@contextmanager
def _storescp(folder: Path, senders: int) -> Iterator[Receiving]:
    port, kept = free_ports(1)[0], folder / "kept"
    kept.mkdir()
    command = ["storescp", "-pdu", "131072", "-aet", "STORESCP", "-od", str(kept), *["--fork"] * (senders > 1)]
    with _process([*command, str(port)], port, "STORESCP", folder) as process:
        yield Receiving(port, "STORESCP", process.pid, lambda: len(list(kept.iterdir())))


@contextmanager
def _tutorial(folder: Path, senders: int) -> Iterator[Receiving]:
    port, kept = free_ports(1)[0], folder / "kept"
    kept.mkdir()
    command = [sys.executable, "-m", "benchmarks.receiving.tutorial_scp", str(port), str(kept)]
    with _process(command, port, "TUTORIAL", folder) as process:
        yield Receiving(port, "TUTORIAL", process.pid, lambda: len(list(kept.iterdir())))


@contextmanager
def _run_orthanc(folder: Path, senders: int) -> Iterator[Receiving]:
    port, http = free_ports(2)
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http,
        "DicomPort": port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "MaximumPduLength": 131072,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with _process([_orthanc(), str(folder / "orthanc.json")], port, "ORTHANC", folder) as process:
        yield Receiving(port, "ORTHANC", process.pid)


def _orthanc() -> str:
    # Debian puts it where a user's PATH does not lead
    return shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin") or shutil.which("Orthanc") or ""


@contextmanager
def _process(command: Sequence[str], port: int, called: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A subject in a process of its own, once it answers; without Nagle's algorithm where it is DCMTK's."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "TCP_NODELAY": "1"})
    try:
        deadline = time.monotonic() + 60
        while not _answers(Destination(called, called, "127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{called} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _answers(to: Destination) -> bool:
    try:
        with association(to, CALLING, [build_context(VERIFICATION)], patience=Patience(2.0, 5.0)) as opened:
            return bool(opened.send_c_echo())
    except WetreadError:
        return False
