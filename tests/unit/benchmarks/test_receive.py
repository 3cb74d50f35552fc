"""The parts of the benchmark of receiving: images with new UIDs, a sender that costs little, what a process uses."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from rich.progress import Progress

from benchmarks.receive import Bench, Case, Measured
from benchmarks.receiving import images
from benchmarks.receiving.processes import Watch, cpu_seconds, memory_mb
from benchmarks.receiving.senders import CALLING, fast
from benchmarks.receiving.subjects import ALONE, DURABLE, STORESCP
from service.receive.intake import Intake
from service.receive.listener import listeners
from service.receive.policy import AssociationPolicy
from service.settings import parse
from service.spool import Spool


def test_the_fast_sender_sends_what_is_in_the_files_and_new_uids_make_it_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CT_SIZE", 64)
    settings = parse(
        {
            "node": {"port": 0},
            "senders": {CALLING: {"archive": "a"}},
            "archives": {"a": {"ae_title": "A", "host": "127.0.0.1", "port": 104}},
        },
        "test",
    )
    spool, outcomes = Spool(tmp_path / "spool"), Counter[str]()
    [listener] = listeners(settings, AssociationPolicy(settings), Intake(spool, lambda one: outcomes.update([one])))
    listener.start()
    try:
        sent = images.write_images(tmp_path / "images", "CT", 2, 3)
        assert len(sent.files) == 7
        assert sent.megabytes == pytest.approx(6 * sent.files[0].size / 1e6)
        for run in (1, 2):
            images.renew(sent.files, run)
            assert fast(listener.port, "WETREAD", sent.folders) > 0
            assert outcomes == {"new": 6 * run}
        with pytest.raises(RuntimeError, match="NOBODY"):
            fast(listener.port, "NOBODY", sent.folders)
    finally:
        listener.stop()
    for folder in sent.folders:
        for path in folder.iterdir():
            original = pydicom.dcmread(path)
            [kept] = [
                one
                for each in (spool.root / "series").glob("*/*.dcm")
                if (one := pydicom.dcmread(each)).SOPInstanceUID == original.SOPInstanceUID
            ]
            assert kept == original


def test_what_a_process_and_its_children_use_is_counted() -> None:
    child = (
        "import time; x = bytearray(50_000_000); [0 for _ in range(10**7)]; print('done', flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        with Watch(process.pid) as watch:
            assert process.stdout is not None
            process.stdout.readline()
            memory = memory_mb(process.pid)
        assert 0.05 < watch.cpu_seconds <= cpu_seconds(process.pid)
        assert 50 < memory <= watch.peak_mb * 1.1
        assert watch.grown_mb > 40
        [its_child] = (int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(its_child, 9)


def test_ratios_are_those_of_median_speeds_and_of_memory_from_few_to_many(tmp_path: Path) -> None:
    with Progress(disable=True) as bar:
        bench = Bench(tmp_path, bar, None)
        for case, seconds, memory in ((Case(1, 300, "CT"), 2.0, 100.0), (Case(1, 1000, "CT"), 4.0, 110.0)):
            bench._megabytes[case] = 100.0
            bench._measured[case, "storescu"] = {
                DURABLE: [Measured(seconds * slower, 0.1, memory, 1.0) for slower in (1.0, 1.1, 9.0)],
                STORESCP: [Measured(1.1, 0.1, 4.0, 1.0)],
            }
        rows, ratios = [], {}
        bench.sum_up(rows, ratios)
    assert ratios == {
        "1 x 300 CT, storescu, durable: node/storescp": 0.5,
        "1 x 1000 CT, storescu, durable: node/storescp": 0.25,
        f"memory, 1 x 1000 CT/1 x 300 CT, storescu: {DURABLE}": 1.1,
        f"memory, 1 x 1000 CT/1 x 300 CT, storescu: {STORESCP}": 1.0,
    }
    speeds = [one for one in rows if one.unit == "images/s" and one.subject == DURABLE]
    assert (speeds[0].case, speeds[0].median) == ("1 x 300 CT, storescu", 136.3636)
    assert ALONE not in {one.subject for one in rows}
