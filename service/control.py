"""How a command reaches the running node: a request in a folder of the spool, which only the node's user can write.

::

    spool/control/ID.request      {"verb": "reload"}
    spool/control/ID.answer       {"ok": true, ...}
"""

import fcntl
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from service.durable import replace_file
from service.errors import ConfigurationError, WetreadError, told_by_place

log = structlog.get_logger()

OLD_SECONDS = 3600.0
"""After so long nobody waits for an answer any more."""

LONGEST_REQUEST = 1000
"""Bytes."""

Verb = Callable[[], Mapping[str, Any]]
"""Does what was asked for, and gives the answer."""


def ask(spool: Path, verb: str, timeout: float) -> Mapping[str, Any]:
    """Ask the node that works on a spool to do something, and wait for its answer.

    Raises
    ------
    ConfigurationError
        No node works on it, it did not answer in time, or it could not do it: its own words say why.
    """
    if not _is_worked_on(spool):
        raise ConfigurationError(
            f"no node works on the spool {spool}; start one (it reads everything anew), or name its configuration"
        )
    folder = spool / "control"
    folder.mkdir(exist_ok=True)
    name = uuid.uuid4().hex
    request, answer = folder / f"{name}.request", folder / f"{name}.answer"
    content = json.dumps({"verb": verb}).encode()
    replace_file(request, lambda file: file.write(content))
    deadline = time.monotonic() + timeout
    while not answer.exists():
        if time.monotonic() > deadline:
            request.unlink(missing_ok=True)
            raise ConfigurationError(f"the node did not answer within {timeout:g} s; its log says what it does")
        time.sleep(0.1)
    told: Mapping[str, Any] = json.loads(answer.read_text())
    answer.unlink()
    if not told["ok"]:
        raise ConfigurationError(str(told["error"]))
    return told


def answer_requests(spool: Path, verbs: Mapping[str, Verb]) -> None:
    """Do what is asked for in the folder; what cannot be understood is removed."""
    for answer in (spool / "control").glob("*.answer"):
        with suppress(OSError):
            if time.time() - answer.stat().st_mtime > OLD_SECONDS:
                answer.unlink()
    for request in sorted((spool / "control").glob("*.request")):
        try:
            verb = verbs[json.loads(_read(request))["verb"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            with suppress(OSError):  # what cannot be removed either, a folder say, must not hold up the others
                request.unlink()
                log.warning("control.not_understood")
            continue
        request.unlink()
        try:
            told: Mapping[str, Any] = {"ok": True, **verb()}
        except WetreadError as error:
            told = {"ok": False, "error": str(error)}
        except Exception as error:  # whoever asked is not left waiting
            log.error("control.failed", reason=told_by_place(error))  # noqa: TRY400
            told = {"ok": False, "error": f"unexpected {told_by_place(error)}; please report it"}
        content = json.dumps(told).encode()
        replace_file(request.with_suffix(".answer"), lambda file, content=content: file.write(content))  # type: ignore[misc]


def _read(request: Path) -> bytes:
    """Read a request, if it is a file: a pipe or a device would be read for ever."""
    descriptor = os.open(request, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("no file")
        return file.read(LONGEST_REQUEST)


def _is_worked_on(spool: Path) -> bool:
    try:
        with (spool / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
