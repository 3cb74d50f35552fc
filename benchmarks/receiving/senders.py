"""Who sends: DCMTK's storescu, and a sender that costs so little that it is the receiver that is measured."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CALLING = "MODALITY"
Send = Callable[[int, str, Sequence[Path]], float]
"""Sends folders to a port and AE title, each over its own association and all at once; returns seconds."""


def storescu(port: int, called: str, folders: Sequence[Path]) -> float:
    """As an operator would, but with Nagle's algorithm off; its start is measured too."""
    command = ["storescu", "-R", "-pdu", "131072", "-aet", CALLING, "-aec", called, "127.0.0.1", str(port), "+sd"]
    began = time.perf_counter()
    running = [
        subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL, env={**os.environ, "TCP_NODELAY": "1"})
        for folder in folders
    ]
    codes = [process.wait() for process in running]
    seconds = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"storescu to {called} ends with {max(codes)}")
    return seconds


def fast(port: int, called: str, folders: Sequence[Path]) -> float:
    """`benchmarks.receiving.fast_sender`; from when all associations are open to the last acknowledgement."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.receiving.fast_sender", str(port), called, CALLING, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    for process in running:
        if _line(process) != "ready":
            raise RuntimeError(f"the fast sender finds nobody at {called}")
    began = time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    took = [_line(process) for process in running]
    seconds = time.perf_counter() - began
    if any(process.wait() for process in running) or not all(took):
        raise RuntimeError(f"the fast sender could not send everything to {called}")
    return seconds if len(running) > 1 else float(took[0])


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


SENDERS: Mapping[str, Send] = {"fast sender": fast, "storescu": storescu}
