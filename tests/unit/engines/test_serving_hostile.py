"""What becomes of an engines' process, and of the node, when either is killed, stopped or hung at the worst moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from engines.errors import InferenceLost
from engines.packages.package import load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving import server
from engines.serving.line import Line
from engines.serving.messages import EngineSpec
from engines.serving.pool import EnginePool
from engines.serving.process import EngineProcess
from engines.types import Radiograph
from tests.conftest import REPO_ROOT
from tests.small_models import hanging_package, xray_package
from tests.waiting import eventually

FOR_EVER = 600.0

NODE = """
import sys, threading
from pathlib import Path
import numpy as np
from engines.runtimes.base import RuntimeSettings
from engines.serving.messages import EngineSpec
from engines.serving.process import EngineProcess
from engines.types import Radiograph

process = EngineProcess(EngineSpec((Path(sys.argv[1]),), RuntimeSettings(threads=1), hang_seconds=600.0))
threading.Thread(target=process.start, daemon=True).start()
image = np.full((64, 96), 2.0, np.float32)
image[0, 0] = 0.0
while not process.pid:
    pass
print("process", process.pid, flush=True)
process.run("tiny-hang", Radiograph(image, None, "1.2.3"))
"""


def bright() -> Radiograph:
    """On which ``tiny-hang`` hangs."""
    array = np.full((64, 96), 2.0, np.float32)
    array[0, 0] = 0.0
    return Radiograph(array, None, "1.2.3")


def dark() -> Radiograph:
    array = np.zeros((64, 96), np.float32)
    array[10:50, 20:60] = 2.0
    return Radiograph(array, None, "1.2.3")


def spec(*folders: Path) -> EngineSpec:
    return EngineSpec(folders, RuntimeSettings(threads=1), hang_seconds=FOR_EVER)


def hangs_when_verified(models: Path) -> Path:
    """A package whose golden input is one that its network hangs on."""
    folder = hanging_package(models)
    golden = load_packages(models)["tiny-hang"].golden()
    np.savez(folder / "golden.npz", image=np.ones_like(golden.input), **golden.outputs)
    return folder


def gone(pid: int) -> bool:
    """Whether a process has ended; whoever inherits it may not have asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("moment", ["inferring", "verifying"])
def test_a_process_that_hangs_ends_with_a_node_that_was_killed(tmp_path: Path, moment: str) -> None:
    folder = hanging_package(tmp_path) if moment == "inferring" else hangs_when_verified(tmp_path)
    command = [sys.executable, "-c", NODE, str(folder)]
    with subprocess.Popen(command, cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        said = [next(node.stdout) for _ in range(2 if moment == "verifying" else 3)]
        engines = next(int(line.split()[1]) for line in said if line.startswith("process"))
        time.sleep(2.0)  # it is at the endless loop
        node.kill()
    eventually(lambda: gone(engines), "nothing is left that eats a CPU for ever", seconds=20.0)


def test_engines_are_closed_at_once_though_an_inference_hangs(tmp_path: Path) -> None:
    process = EngineProcess(spec(hanging_package(tmp_path)))
    process.start()
    pid = process.pid
    assert pid is not None
    with ThreadPoolExecutor(1) as threads:
        hung = threads.submit(process.run, "tiny-hang", bright())
        eventually(lambda: process.busy, "the inference is under way")
        process.stop()
        with pytest.raises(InferenceLost, match="being closed"):
            hung.result()
    assert gone(pid)


def test_engines_are_closed_at_once_though_others_hang_while_they_open(tmp_path: Path) -> None:
    xray_package(tmp_path / "good")
    hangs_when_verified(tmp_path / "bad")
    pool = EnginePool(spec())
    pool.open(load_packages(tmp_path / "good"))
    with ThreadPoolExecutor(1) as threads:
        reload = threads.submit(pool.open, load_packages(tmp_path / "bad"))
        eventually(lambda: pool._coming[0].pid and pool._coming[0] not in pool._processes, "the new ones open")
        pids = [pool._coming[0].pid, pool._processes[0].pid]
        pool.close()
        with pytest.raises(InferenceLost, match="being closed"):
            reload.result()
    assert all(gone(pid) for pid in pids if pid)


def test_a_process_that_dies_while_it_opens_says_at_which_model(tmp_path: Path) -> None:
    process = EngineProcess(spec(hangs_when_verified(tmp_path)))
    with capture_logs() as events, ThreadPoolExecutor(1) as threads:
        started = threads.submit(process.start)
        eventually(lambda: "engine.opening" in [event["event"] for event in events], "it has begun")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(InferenceLost, match=r"died while it opened tiny-hang \(signal 9, .* memory"):
            started.result()


def test_a_process_that_takes_nothing_any_more_is_ended(tmp_path: Path) -> None:
    """It is stopped, and then sent more than fits into the socket."""
    specified = EngineSpec((xray_package(tmp_path),), RuntimeSettings(threads=1), hang_seconds=4.0)
    with EngineProcess(specified) as process:
        before = process.pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        with ThreadPoolExecutor(3) as threads:
            large = Radiograph(np.zeros((3000, 3000), np.float32), None, "1.2.3")
            lost = [threads.submit(process.run, "tiny-cxr", large) for _ in range(3)]
            for each in lost:
                assert isinstance(each.exception(), InferenceLost)
        assert gone(before)
        assert process.run("tiny-cxr", dark()).label_map.array.any()


def test_a_process_that_is_killed_again_and_again_comes_back_each_time(tmp_path: Path) -> None:
    with EngineProcess(spec(xray_package(tmp_path))) as process:
        for _ in range(3):
            before = eventually(lambda: process.alive and process.pid, "it serves")
            os.kill(before, signal.SIGKILL)
            eventually(lambda before=before: process.alive and process.pid != before, "it comes back")  # type: ignore[misc]
        assert process.run("tiny-cxr", dark()).label_map.array.any()


def test_a_pulse_that_nobody_hears_any_more_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_end", lambda: None)  # this process goes on
    node, process = Pipe()
    serving = server.Server(process)
    node.close()
    # as it would be within a second after its node was killed
    serving._pulse(SimpleNamespace(running=None))  # type: ignore[arg-type]


def test_who_waits_for_a_word_can_give_up_though_half_of_one_came() -> None:
    ours, theirs = Pipe()
    line = Line(ours)
    os.write(theirs.fileno(), (1_000_000).to_bytes(4, "big") + b"half")
    assert line.next(0.3) is None
    line.close()
    with pytest.raises(EOFError):
        line.next(5.0)


def test_what_is_no_message_ends_the_line() -> None:
    ours, theirs = Pipe()
    line = Line(ours)
    theirs.send_bytes(b"this is no pickle")
    with pytest.raises(EOFError):
        line.next(5.0)
    line.close()


def test_hanging_up_frees_who_still_sends() -> None:
    ours, theirs = Pipe()
    line = Line(ours)
    with ThreadPoolExecutor(1) as threads:
        began = threading.Event()

        def send() -> None:
            began.set()
            line.send(b"x" * 50_000_000)

        sending = threads.submit(send)
        began.wait()
        line.close()
        assert isinstance(sending.exception(), OSError)
    theirs.close()
