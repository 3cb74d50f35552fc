"""Encoding in processes of their own: it is work for Python, of which a process does one thing at a time.

While the results of one model are encoded, the node receives, delivers, and encodes those of another. The processes are
forks of the node as it is before it has threads: so they begin at once, and share the memory of its code.
"""

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path

from service.errors import TransientError
from service.handover import found_of, load_findings, load_item
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.predecessors import Predecessor
from service.results.profile import ResultProfile
from service.types import ResultObject
from service.versions import revision


@dataclass(frozen=True)
class Encoding:
    """What is to be encoded, by where it lies.

    Attributes
    ----------
    item
        The folder of the image, in the spool.
    instances
        The folder of the files that it was made of.
    findings
        The folder of what a model has found in it.
    profile
        What the archive gets.
    predecessors
        The reports that the new one supersedes.
    target
        The folder of the results.
    """

    item: Path
    instances: Path
    findings: Path
    profile: ResultProfile
    predecessors: tuple[Predecessor, ...]
    target: Path


def encode_files(what: Encoding) -> tuple[ResultObject, ...] | None:
    """Encode, in this process; None where the image has changed since something was found in it.

    Raises
    ------
    Quarantined
        See `service.results.encode.encode`.
    """
    item = load_item(what.item, what.instances)
    if not found_of(what.findings, item):
        return None
    findings = load_findings(what.findings)
    analysis = Analysis(findings, item.image, item.headers(), what.profile, revision(item.files), what.predecessors)
    return encode(analysis, what.target)


class Encoders:
    """Processes that encode. To be made while the node has one thread.

    Parameters
    ----------
    count
        How many. They end with the node, also where that is killed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._closed = False
        self._begin("fork")

    def encode(self, what: Encoding) -> tuple[ResultObject, ...] | None:
        """As `encode_files`.

        Raises
        ------
        TransientError
            The process has ended meanwhile; there are others now.
        """
        pool = self._pool
        try:
            return pool.submit(encode_files, what).result()
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool and not self._closed:
                    self._begin("spawn")  # a fork of what has threads by now may find a lock that nobody will open
            raise TransientError("the process that encoded has ended; was there too little memory?") from None

    def close(self) -> None:
        """End them, whatever they are at."""
        with self._lock:
            self._closed = True  # what is broken from now on is not replaced
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()

    def _begin(self, method: str) -> None:
        others = active_children()
        self._pool = ProcessPoolExecutor(self._count, get_context(method), _begun)
        wait([self._pool.submit(os.getpid) for _ in range(self._count)])
        self._processes: list[BaseProcess] = [one for one in active_children() if one not in others]


def _begun() -> None:
    """The node decides when to end, also where a terminal or systemd tells all of its processes to."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_node, daemon=True).start()


def _end_with_node() -> None:
    node = parent_process()
    assert node is not None
    wait_for([node.sentinel])
    os._exit(0)
