"""A site of real processes in a folder: nodes, an Orthanc, a database of their own, and modalities that send."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import psycopg
from sqlalchemy import make_url

from service.types import Destination
from tests.faults.campaign import ledger_file
from tests.faults.campaign.nursery import Nursery
from tests.faults.campaign.scans import SERIES, slices
from tests.faults.campaign.sender import Sender
from tests.orthanc import running_orthanc
from tests.postgres import PostgresServer
from tests.running_node import RunningNode, Section, free_ports
from tests.waiting import eventually

T = TypeVar("T")
OVER = {"done", "dead", "cancelled"}
SETTLED_SECONDS = 120.0
"""For all work to end after peace."""
FIRST_START_SECONDS = 60.0


@dataclass(frozen=True)
class Parts:
    """What all runs share: it takes long to make, and no harm comes to it but by name."""

    engines: Section
    nursery: Nursery
    postgres: PostgresServer | None


class SiteNode(RunningNode):
    """A node of a site, from a nursery; one with something of its own in its `environment` starts from nothing."""

    nursery: Nursery
    environment: Mapping[str, str] = {}
    started_seconds: float = 3.0

    def launch(self) -> None:
        """Start it; it may well refuse."""
        arguments = ["serve", "--config", str(self.config)]
        if self.environment:
            line = [sys.executable, "-m", "service.cli", *arguments]
            everything = {**os.environ, **self.environment}
            self.process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=everything)
        else:
            self.process = self.nursery.start(arguments)  # type: ignore[assignment]
        self._kill_at = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def await_health(self) -> None:
        """Wait until it is healthy."""
        began = time.monotonic()
        eventually(self._healthy, "the node is healthy", FIRST_START_SECONDS)
        self.started_seconds = time.monotonic() - began

    def restart(self) -> None:
        """Start it again if it does not run, and wait until it is healthy."""
        if not self.alive:
            self.start()


class World:
    """A site. What a fault changes in `Fault.arrange` is the first group of attributes.

    Attributes
    ----------
    database
        Of the ledger. With several nodes it must be ``postgresql``.
    count
        How many nodes there are; they share ledger and spool, and senders try one after the other.
    sections
        Further keys of each node's configuration, which win over those of the site.
    environment
        Added to that of each node's process.
    archive
        Where nodes send results; the real Orthanc listens on `orthanc_port`. A fault that puts something in between
        sets the port of this one.
    orthanc_sections
        Further keys of Orthanc's configuration.
    series
        Numbers of the series that are sent (`tests.faults.campaign.scans`), by sender.
    pause
        Mean seconds between two images of a sender.
    spool
        Where the spool lies; a fault may put it on a small volume.
    database_ports
        Where nodes, by number, reach the database server, if not where it listens: a fault may stand in between.
    settle_seconds
        For all work to end after peace.

    nodes, orthanc, senders
        What runs, from the start on.
    notes
        What is told of the run beside what the audit finds.
    """

    def __init__(self, folder: Path, parts: Parts, random: Random) -> None:
        self.folder, self.parts = folder, parts
        self.database: Literal["sqlite", "postgresql"] = "sqlite"
        self.count = 1
        self.sections: dict[str, Section] = {}
        self.environment: dict[str, str] = {}
        self.orthanc_port, *self.node_ports = free_ports(4)
        self.archive = Destination("orthanc", "ORTHANC", "127.0.0.1", self.orthanc_port)
        self.orthanc_sections: dict[str, object] = {}
        drawn = random.sample(range(SERIES), 4)
        self.series: dict[str, list[int]] = {"CT1": drawn[:2], "CT2": drawn[2:]}
        self.pause = 0.005
        self.spool = folder / "spool"
        self.again = random.random() < 0.5
        self.nodes: list[SiteNode] = []
        self.senders: list[Sender] = []
        self.notes: dict[str, Any] = {}
        self.database_ports: dict[int, int] = {}
        self.settle_seconds = SETTLED_SECONDS
        self._random = random
        self._stack, self._kept = ExitStack(), ExitStack()

    def note(self, **values: object) -> None:
        """Have something told of this run."""
        self.notes.update(values)

    def keep(self, part: AbstractContextManager[T]) -> T:
        """Begin something in `Fault.arrange` that ends with the site."""
        return self._kept.enter_context(part)

    # ---- start and end ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as begun:
            begun.enter_context(self._kept)
            begun.callback(self._end)
            self.ledger_url = self._new_ledger()
            self.orthanc = begun.enter_context(self._orthanc())
            self.nodes = [self._node(number) for number in range(self.count)]
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.await_health()
            self._stack = begun.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        for sender in self.senders:
            sender.end()
        for node in self.nodes:
            if hasattr(node, "process") and node.alive:
                node.process.send_signal(signal.SIGCONT)
                node.kill()
            lines = "".join(json.dumps(event) + "\n" for event in node.events)
            (node.config.parent / "events.jsonl").write_text(lines)  # for a look, where the folder stays

    def _new_ledger(self) -> str:
        if self.database == "sqlite":
            return ""
        assert self.parts.postgres is not None, "this fault needs PostgreSQL"
        return self.parts.postgres.database()

    def _orthanc(self) -> Any:
        return running_orthanc(
            self.folder / "orthanc",
            self.node_ports[0],
            dicom_port=self.orthanc_port,
            also={"LuaScripts": [], "StableAge": 600, **self.orthanc_sections},
        )

    def _node(self, number: int) -> SiteNode:
        folder = self.folder / f"node{number}"
        folder.mkdir(exist_ok=True)
        url = self.ledger_url
        if number in self.database_ports:
            url = make_url(url).set(port=self.database_ports[number]).render_as_string()
        ledger: dict[str, object] = {"url": url, "node": f"node{number}", "lease_seconds": 3.0}
        standard: dict[str, Section] = {
            "node": {"port": self.node_ports[number]},
            "engines": {**self.parts.engines, "threads": 1, "models": ["tiny-ct"]},
            "spool": {"path": str(self.spool), "ready_mb": 2, "reserve_mb": 4},
            "ledger": ledger if self.database == "postgresql" else {"lease_seconds": 3.0},
            f"archives.{self.archive.name}": {"count": "no", "commitment_seconds": 4.0, "answer_seconds": 10.0},
            "series": {"quiet_seconds": 0.5, "quiet_ceiling_seconds": 8.0},
            "retry": {"first_seconds": 0.3, "longest_seconds": 1.0},
        }
        for name, section in self.sections.items():
            standard[name] = {**standard.get(name, {}), **section}
        node = SiteNode(folder, self.archive, senders=list(self.series), sections=standard)
        node.nursery, node.environment = self.parts.nursery, self.environment
        return node

    # ---- what goes on ----------------------------------------------------------------------------------------------

    @property
    def node(self) -> SiteNode:
        """The first node."""
        return self.nodes[0]

    def send(self) -> None:
        """Have the senders begin."""
        for number, (title, series) in enumerate(self.series.items()):
            ports = self.node_ports[: self.count]
            ports = ports[number % self.count :] + ports[: number % self.count]
            log = self.folder / f"sent-{title}.jsonl"
            self.senders.append(Sender(title, ports, series, log, Random(self._random.random()), self.pause))
        for sender in self.senders:
            sender.start()

    @property
    def acknowledged(self) -> int:
        """How many images were, so far."""
        return sum(sender.acknowledged for sender in self.senders)

    @property
    def wanted(self) -> int:
        """How many images there are to send."""
        return sum(sender.wanted for sender in self.senders)

    def wait(self, look: Callable[[], T], seconds: float = 60.0, step: float = 0.002) -> T | None:
        """Look until the answer is true, and give it; None where that does not come in time."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                return None
            time.sleep(step)
        return found

    def pause_for(self, seconds: float) -> None:
        """Let time go by."""
        time.sleep(seconds)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What all nodes have logged under a name, so far."""
        return [event for node in self.nodes for event in list(node.events) if event.get("event") == name]

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Read the ledger, by plain SQL, behind the nodes' backs. Empty while it cannot be read."""
        try:
            return ledger_file.rows(self.ledger_url or str(self.spool / "ledger.sqlite"), query)
        except (sqlite3.Error, psycopg.Error):
            return []

    def settle(self) -> bool:
        """Wait until all is sent and all work has ended; whether that came in time."""
        deadline = time.monotonic() + self.settle_seconds
        for node in self.nodes:
            node.restart()
        for sender in self.senders:
            sender.join(max(0.1, deadline - time.monotonic()))
        settled = self.wait(self._over, deadline - time.monotonic(), 0.1)
        return bool(settled) and not any(sender.is_alive() for sender in self.senders)

    def _over(self) -> bool:
        jobs = self.rows("SELECT series, stage, state FROM jobs")
        series = {slices(number)[0].series_uid for sender in self.series.values() for number in sender}
        begun = {row["series"] for row in jobs if row["stage"] == "commit"}
        return {row["state"] for row in jobs} <= OVER and len(begun) >= len(series)

    def send_again(self, number: int) -> None:
        """A study that is forwarded once more, after all has ended: nothing is to come of it."""
        title = next(iter(self.series))
        log = self.folder / f"sent-{title}.jsonl"
        sender = Sender(title, self.node_ports[:1], [number], log, Random(number))
        self.senders.append(sender)
        sender.start()
        sender.join(60)
        time.sleep(2.0)  # as long as a new series would need to begin

    def tell(self) -> None:
        """Keep what the ledger says at the end, and how senders fared."""
        self.last_rows = {table: self.rows(f"SELECT * FROM {table}") for table in ("series", "results", "jobs")}
        self.note(
            associations_lost=sum(sender.lost_associations for sender in self.senders),
            told_later=sum(sender.told_later for sender in self.senders),
            attempts=max((row["attempts"] for row in self.last_rows["jobs"]), default=0),
            stale=len(self.events("job.stale")),
        )

    def bugs(self) -> list[str]:
        """What nodes say of themselves that nobody has foreseen."""
        events = [event for node in self.nodes for event in node.events]
        reasons = [str(event.get("reason", "")) for event in events]
        said = [str(event.get("text", "")) for event in events]
        begin = [at for at, text in enumerate(said) if text.startswith("Traceback")]
        # the line before names the thread, if it is a thread's; the first one that is not indented is the error
        ends = [next((text for text in said[at + 1 :] if text[:1].strip()), "") for at in begin]
        threads = [said[at - 1] if at else "" for at in begin]
        unforeseen = [reason for reason in reasons if "please report" in reason]
        return unforeseen + [f"{thread} {end}" for thread, end in zip(threads, ends, strict=True)]

    def stop(self) -> list[int]:
        """End the nodes as an operator does; their exit codes."""
        return [node.terminate() for node in self.nodes if node.alive]
