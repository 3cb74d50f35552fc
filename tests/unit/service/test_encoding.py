"""Processes that encode: what becomes of them, and of those who wait. What they encode, other tests look at."""

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.waiting import eventually

BEGIN = """
    import os, signal, sys, threading, time
    from pathlib import Path
    from service import encoding
    from service.errors import TransientError
    from service.results.profile import ResultProfile

    WHAT = encoding.Encoding(*[Path()] * 3, ResultProfile(), (), Path())

    def told(what):
        return os.getpid()

    def slow(what):
        print(os.getpid(), flush=True)
        time.sleep(600)

    def killed(what):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def begun(body: str) -> "subprocess.Popen[str]":
    """A node's stand-in: a process that has one thread when it begins, as pytest has not."""
    script = textwrap.dedent(BEGIN) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def said(body: str) -> list[str]:
    with begun(body) as process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.split()


def test_two_encode_at_once_and_in_processes_of_their_own() -> None:
    one, other, own = said("""
        encoders = encoding.Encoders(2)
        encoding.encode_files = told
        pids = set()
        deadline = time.monotonic() + 60
        while len(pids) < 2 and time.monotonic() < deadline:
            threads = [threading.Thread(target=lambda: pids.add(encoders.encode(WHAT))) for _ in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        print(*pids, os.getpid())
        encoders.close()
    """)
    assert len({one, other, own}) == 3


def test_one_that_is_killed_fails_for_now_and_another_takes_its_place() -> None:
    words = said("""
        encoders = encoding.Encoders(1)
        mine, encoding.encode_files = encoding.encode_files, killed
        try:
            encoders.encode(WHAT)
        except TransientError as error:
            print("failed")
        encoding.encode_files = mine
        try:
            encoders.encode(WHAT)
        except FileNotFoundError:
            print("again")
        encoders.close()
    """)
    assert words == ["failed", "again"]


def test_they_end_with_the_node_whatever_they_are_at() -> None:
    body = """
        encoders = encoding.Encoders(1)
        encoding.encode_files = slow
        waiting = threading.Thread(target=encoders.encode, args=(WHAT,), daemon=True)
        waiting.start()
        sys.stdin.readline()
    """
    with begun(body) as process:
        assert process.stdout is not None
        encoder = int(process.stdout.readline())
        process.kill()
    eventually(lambda: not alive(encoder), "it ends with a node that was killed", 20)
    closed = body.replace("sys.stdin.readline()", "time.sleep(0.5); encoders.close()")
    with begun(closed) as process:
        assert process.stdout is not None
        encoder = int(process.stdout.readline())
        assert process.wait(60) == 0
    eventually(lambda: not alive(encoder), "it ends with a node that ends", 20)


def test_a_signal_to_all_processes_ends_none_that_encodes() -> None:
    with begun("""
        encoders = encoding.Encoders(1)
        encoding.encode_files = told
        pid = encoders.encode(WHAT)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        print(encoders.encode(WHAT) == pid)
        encoders.close()
    """) as process:
        out, _ = process.communicate(timeout=120)
    assert out.split() == ["True"]


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked for is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
