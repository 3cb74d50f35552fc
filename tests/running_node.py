"""``wetread serve`` as a real process, to be sent images, killed, stopped and started again."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from service.deliver.scu import send, sendable
from service.types import Destination
from tests.small_models import volume_package, xray_package
from tests.waiting import eventually

SENDER = "MODALITY"
PORTS = range(20_000, 32_000)
"""Below those that the system gives to connections, which could take one between its choice and its use."""
Section = Mapping[str, object]


@cache
def _ports() -> Iterator[int]:
    """Ports for this process: none twice, and none that another of the processes that share these tests has."""
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{name}") for name in ("", "_COUNT"))
    mine = PORTS[int((worker or "gw0")[2:]) :: int(workers or 1)]
    first = random.SystemRandom().randrange(len(mine))
    return cycle([*mine[first:], *mine[:first]])


def is_free(port: int) -> bool:
    """Whether nothing listens on a TCP port of the loopback interface."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback interface on which nothing listens now, no two the same."""
    return list(islice(filter(is_free, _ports()), count))


def write_config(path: Path, sections: Mapping[str, Section]) -> Path:
    """Write a configuration; strings, numbers, booleans and lists are in TOML what they are in JSON."""
    lines: list[str] = []
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items()), ""]
    path.write_text("\n".join(lines))
    return path


def small_engines(folder: Path) -> Section:
    """Write small models for CT and X-ray, and give the settings of a node that serves them and no other."""
    models = volume_package(folder, patch=(24, 96, 96)), xray_package(folder)
    return {"folders": [str(folder)], "models": [model.name for model in models]}


def command(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``wetread`` with these arguments to its end."""
    line = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=timeout, env={**os.environ, "COLUMNS": "200"}, check=False
    )


class RunningNode:
    """A node with its configuration and spool in a folder; use it as a context manager, or `start` it.

    Parameters
    ----------
    folder
        Where configuration and spool lie; a second object on the same folder takes up the first one's work.
    archive
        Where the results of all ``senders`` go.
    models
        The models that it serves; empty for all.
    sections
        Further keys of the configuration, which win over these.
    role
        The part of the work that it does (`service.roles`).
    """

    def __init__(
        self,
        folder: Path,
        archive: Destination,
        models: Sequence[str] = ("ct-lung",),
        senders: Sequence[str] = (SENDER,),
        sections: Mapping[str, Section] | None = None,
        role: str = "all",
    ) -> None:
        self._role = role
        free_port, http_port = free_ports(2)
        standard: dict[str, Section] = {
            "node": {"ae_title": "WETREAD", "port": free_port},
            **{f"senders.{title}": {"archive": archive.name} for title in senders},
            f"archives.{archive.name}": {"ae_title": archive.ae_title, "host": archive.host, "port": archive.port},
            f"archives.{archive.name}.results": {"objects": ["SEG", "SR"]},
            "spool": {"path": str(folder / "spool"), "ready_mb": 16},
            "series": {"quiet_seconds": 0.5, "quiet_ceiling_seconds": 1.0},
            "engines": {"models": list(models), "threads": 2},
            "retry": {"first_seconds": 0.5, "longest_seconds": 2.0},
            "http": {"port": http_port},
        }
        for name, section in (sections or {}).items():
            standard[name] = {**standard.get(name, {}), **section}
        port = standard["node"]["port"]
        assert isinstance(port, int)
        self.destination = Destination("node", "WETREAD", "127.0.0.1", port)
        self.config = write_config(folder / "wetread.toml", standard)
        self.spool = folder / "spool"
        self.health = f"http://127.0.0.1:{http_port}/health"
        self.events: list[dict[str, Any]] = []
        self._kill_at = ""

    # ---- the process -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        self.launch()
        eventually(self._healthy, "the node is healthy")

    def launch(self) -> None:
        """Start it; it may well refuse."""
        line = [sys.executable, "-m", "service.cli", "serve", "--role", self._role, "--config", str(self.config)]
        self.process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._kill_at = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def kill_at(self, event: str) -> None:
        """Kill it (SIGKILL) as soon as it logs this event."""
        self._kill_at = event

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self.process.kill()
        self.wait()

    def terminate(self) -> int:
        """Ask it to stop (SIGTERM), wait until it has, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process and of its log; return the exit code."""
        code = self.process.wait(60)
        self._reader.join(60)
        return code

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alive:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def _healthy(self) -> bool:
        assert self.alive, "the node ended:\n" + "\n".join(map(str, self.events[-5:]))
        try:
            return httpx.get(self.health).status_code == 200
        except httpx.TransportError:
            return False

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if self._kill_at and f'"{self._kill_at}"'.encode() in line:
                self.process.kill()
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.events.append({"event": "not.an.event", "text": line.decode(errors="replace").rstrip()})

    # ---- what it does ----------------------------------------------------------------------------------------------

    def send(self, files: Sequence[Path], calling: str = SENDER) -> list[Path]:
        """Send files over one association; return those that were acknowledged, in order."""
        answers = send(self.destination, calling, [sendable(file) for file in files])
        return [answer.file.path for answer in answers if not answer.refusal]

    def event(self, name: str, **fields: object) -> dict[str, Any]:
        """Wait for an event with these fields, and return it."""
        return eventually(lambda: next(iter(self.logged(name, **fields)), None), f"event {name} {fields}")

    def logged(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """The events of this name with these fields, so far."""
        wanted = {"event": name, **fields}
        return [event for event in list(self.events) if wanted.items() <= event.items()]

    # ---- what is on its disk ---------------------------------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Read the ledger behind the node's back."""
        path = self.spool / "ledger.sqlite"
        if not path.exists():
            return []
        connection = sqlite3.connect(path, timeout=30)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(query, values)]
        finally:
            connection.close()

    def jobs(self, series_uid: str = "%", stage: str = "%") -> list[dict[str, Any]]:
        """The ledger's rows of a series and stage, in the order in which they came."""
        query = "SELECT jobs.* FROM jobs JOIN series ON series.key = jobs.series"
        return self.rows(f"{query} WHERE series_uid LIKE ? AND stage LIKE ? ORDER BY id", series_uid, stage)

    def results(self, series_uid: str = "%") -> list[dict[str, Any]]:
        """The results that were encoded of a series."""
        query = "SELECT results.* FROM results JOIN series ON series.key = results.series"
        return self.rows(f"{query} WHERE series.series_uid LIKE ? ORDER BY kind, results.id", series_uid)

    def ended(self, series_uid: str = "%") -> list[dict[str, Any]]:
        """Wait until all work on a series has ended, and return its jobs."""

        def look() -> list[dict[str, Any]]:
            jobs = self.jobs(series_uid)
            over = {job["state"] for job in jobs} <= {"done", "dead", "cancelled"}
            return jobs if over and any(job["stage"] != "receive" for job in jobs) else []

        return eventually(look, f"all work on {series_uid} has ended")

    def stored(self) -> list[Path]:
        """All instances in the spool."""
        return sorted((self.spool / "series").glob("*/*.dcm"))

    def quarantined(self) -> list[tuple[str, Path]]:
        """Reason and file of everything in quarantine."""
        entries = sorted((self.spool / "quarantine").glob("*/reason.json"))
        return [(json.loads(entry.read_text())["reason"], entry.parent / "instance.dcm") for entry in entries]
