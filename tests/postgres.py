"""A private PostgreSQL server: its own cluster in a temporary folder, on a free port of the loopback interface."""

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.running_node import free_ports

SERVER_USER = "postgres"
"""Whom the server runs as where the tests run as root, whom it refuses."""


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``, or None; Debian keeps them out of the path."""
    folders = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def why_not() -> str:
    """Why no server can be started here; empty where one can."""
    if programs() is None:
        return "needs PostgreSQL: the Debian package postgresql (make counterparts)"
    if os.getuid() == 0 and SERVER_USER not in {user.pw_name for user in pwd.getpwall()}:
        return f"PostgreSQL refuses root, and there is no user {SERVER_USER}"
    return ""


class PostgresServer:
    """A server with a cluster of its own. Use it as a context manager.

    Parameters
    ----------
    fsync
        Whether what is written survives a power cut, as it must where time is measured.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        reason = why_not()
        assert not reason, reason
        bin_folder = programs()
        assert bin_folder is not None
        self._programs = bin_folder
        self._options = f"-c fsync={'on' if fsync else 'off'} -c max_connections=60"
        self._databases = count()
        self._runs = False

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="wetread-pg-"))
        if os.getuid() == 0:
            shutil.chown(self._folder, SERVER_USER)
        (self.port,) = free_ports(1)
        self._run("initdb", "--pgdata", self._folder / "data", "--auth=trust", "--username=wetread", "--no-sync")
        self.start()
        return self

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._runs:
            return
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} {self._options}"
        self._run("pg_ctl", "start", "-w", "-D", self._folder / "data", "-l", self._folder / "log", "-o", options)
        self._runs = True

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends all connections, ``immediate`` is as good as a crash."""
        self._runs = False
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._folder / "data")

    def database(self) -> str:
        """A new, empty database; its URL."""
        name = f"ledger{next(self._databases)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://wetread@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str | Path) -> None:
        as_user = ["runuser", "-u", SERVER_USER, "--"] if os.getuid() == 0 else []
        command = [*as_user, str(self._programs / program), *map(str, arguments)]
        # the server keeps what it inherits open, so no pipes
        with (self._folder / f"{program}.out").open("wb") as out:
            done = subprocess.run(command, stdout=out, stderr=out, cwd="/", timeout=60, check=False)
        said = (self._folder / f"{program}.out").read_text()
        assert done.returncode == 0, f"{program}: {said}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
