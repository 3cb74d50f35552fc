"""An inference that hangs, a process that dies, a model that is dropped in: the node goes on."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from tests.archive import Archive
from tests.copies import Series, copy_series
from tests.running_node import SENDER, RunningNode, Section, command
from tests.small_models import hanging_package, volume_package, xray_package
from tests.waiting import eventually

EMERGENCY = "EMERGENCY"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    hanging_package(folder)
    xray_package(folder)
    return folder


@pytest.fixture
def node(tmp_path: Path, archive: Archive, models: Path) -> Iterator[RunningNode]:
    engines: Section = {
        "folders": [str(models)], "models": ["tiny-hang", "tiny-cxr"], "hang_seconds": 4.0, "threads": 1,
    }  # fmt: skip
    sections: dict[str, Section] = {"engines": engines, f"senders.{EMERGENCY}": {"priority": "stat"}}
    senders = (SENDER, EMERGENCY)
    with RunningNode(tmp_path, archive.destination, senders=senders, sections=sections) as node:
        yield node


def nearly_white(data_set: Dataset) -> None:
    """What makes ``tiny-hang`` hang."""
    pixels = np.full((data_set.Rows, data_set.Columns), 4000, np.uint16)
    pixels[0, 0] = 0
    data_set.PixelData = pixels.tobytes()
    data_set.PhotometricInterpretation = "MONOCHROME2"


def test_an_image_on_which_a_model_hangs_is_given_up_and_all_others_get_their_results(
    node: RunningNode, phantom_xray: Path, tmp_path: Path
) -> None:
    poison = copy_series(phantom_xray, tmp_path / "poison", change=nearly_white)
    node.send(poison.files)
    node.event("engine.process_lost")
    well = copy_series(phantom_xray, tmp_path / "well")
    node.send(well.files)

    jobs = node.ended(well.uid)
    assert {job["state"] for job in jobs} == {"done"}
    ended = {(job["stage"], job["model"]): job for job in node.ended(poison.uid)}
    hung = ended["infer", "tiny-hang"]
    assert (hung["state"], hung["attempts"]) == ("dead", 3)
    assert "an inference gave no answer for 4 s and was ended" in hung["note"]
    assert ended["deliver", "tiny-cxr"]["state"] == "done", "the other model's result of the same image"
    eventually(node._healthy, "the process that was ended last is there again")


def test_engines_that_are_killed_come_back_and_the_work_is_done(
    node: RunningNode, phantom_xray: Path, tmp_path: Path
) -> None:
    children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children")
    killed = [int(child) for child in children.read_text().split()]
    for child in killed:
        os.kill(child, signal.SIGKILL)
    sent = copy_series(phantom_xray, tmp_path / "sent")
    node.send(sent.files)
    assert {job["state"] for job in node.ended(sent.uid)} == {"done"}
    assert killed
    node.event("engine.process_restarted")


def test_a_folder_that_is_dropped_in_is_served_after_reload(
    tmp_path: Path, archive: Archive, models: Path, phantom_ct: Path
) -> None:
    engines: Section = {"folders": [str(models)], "threads": 2}
    with RunningNode(tmp_path, archive.destination, models=(), sections={"engines": engines}) as node:
        volume_package(tmp_path / "made", patch=(24, 96, 96))
        shutil.copytree(tmp_path / "made" / "tiny-ct", models / "tiny-ct")
        told = command("engines", "reload", "--config", node.config, "--json")
        assert told.returncode == 0, told.stderr
        assert "tiny-ct" in {entry["model"] for entry in json.loads(told.stdout.splitlines()[-1])}
        sent: Series = copy_series(phantom_ct, tmp_path / "sent", slice(50, 60))
        node.send(sent.files)
        done = {(job["stage"], job["model"]): job["state"] for job in node.ended(sent.uid)}
        assert done["deliver", "tiny-ct"] == "done"

        description = models / "tiny-ct" / "model.toml"
        description.write_text(description.read_text().replace("overlap = 0.25", "overlap = 2.5"))
        refused = command("engines", "reload", "--config", node.config)
        assert refused.returncode == 1
        assert "input.overlap = 2.5 is wrong" in " ".join(refused.stderr.split())
        assert node._healthy(), "what was served before is served still"


def test_reload_without_a_node_says_what_to_do(tmp_path: Path, archive: Archive) -> None:
    node = RunningNode(tmp_path, archive.destination)
    refused = command("engines", "reload", "--config", node.config)
    assert refused.returncode == 1
    assert "no node works on the spool" in " ".join(refused.stderr.split())
