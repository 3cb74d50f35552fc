"""What comes first: what images say is urgent, and studies in which a model finds something that is."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from pydicom import Dataset

from tests.archive import Archive
from tests.copies import copy_series
from tests.running_node import RunningNode, Section, command
from tests.small_models import classifier_package, xray_package

STAT, ROUTINE = 0, 100


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as running:
        yield running


def node_of(folder: Path, archive: Archive, **sections: Section) -> RunningNode:
    models = folder / "models"
    xray_package(models)
    classifier_package(models)
    engines: Section = {"folders": [str(models)], "models": ["tiny-cxr", "tiny-class"], "threads": 1}
    return RunningNode(folder, archive.destination, sections={"engines": engines, **sections})


def stat(data_set: Dataset) -> None:
    data_set.RequestedProcedurePriority = "STAT"


def test_what_images_say_is_urgent_comes_first_from_assembly_on(
    tmp_path: Path, archive: Archive, phantom_xray: Path
) -> None:
    with node_of(tmp_path, archive) as node:
        urgent = copy_series(phantom_xray, tmp_path / "urgent", change=stat)
        usual = copy_series(phantom_xray, tmp_path / "usual")
        node.send([*urgent.files, *usual.files])
        after = {job["stage"]: job["priority"] for job in node.ended(urgent.uid) if job["stage"] != "receive"}
        assert after == dict.fromkeys(("assemble", "infer", "encode", "deliver", "commit"), STAT)
        assert {job["priority"] for job in node.ended(usual.uid)} == {ROUTINE}


def test_an_urgent_finding_has_what_follows_in_its_study_come_first(
    tmp_path: Path, archive: Archive, phantom_xray: Path
) -> None:
    with node_of(tmp_path, archive, **{"routing.tiny-class.stat": {"Bright": 0.0}}) as node:
        sent = copy_series(phantom_xray, tmp_path / "sent")
        node.send(sent.files)
        found = {(job["stage"], job["model"]): job for job in node.ended(sent.uid)}
        assert found["assemble", ""]["priority"] == ROUTINE
        assert {found[stage, "tiny-class"]["priority"] for stage in ("encode", "deliver", "commit")} == {STAT}
        assert "its study comes first from now on" in found["infer", "tiny-class"]["note"]


def test_a_series_runs_again_with_another_version_of_a_model_whose_results_supersede(
    tmp_path: Path, archive: Archive, phantom_xray: Path
) -> None:
    with node_of(tmp_path, archive) as node:
        sent = copy_series(phantom_xray, tmp_path / "sent")
        node.send(sent.files)
        node.ended(sent.uid)
        [first] = [row for row in node.results(sent.uid) if (row["kind"], row["model"]) == ("SR", "tiny-class")]

        folder = tmp_path / "models" / "tiny-class"
        description = (folder / "model.toml").read_text()
        assert description.count('version = "') == 1
        (folder / "model.toml").write_text(description.replace('version = "', 'version = "9'))
        network = onnx.load(folder / "model.onnx")
        network.doc_string = "trained once more"
        onnx.save(network, folder / "model.onnx")
        assert command("engines", "reload", "--config", node.config).returncode == 0
        [series] = {job["series"] for job in node.jobs(sent.uid)}
        again = command("jobs", "rerun", series, "--from", "infer", "--model", "tiny-class", "--config", node.config)
        assert again.returncode == 0, again.stderr
        assert {job["state"] for job in node.ended(sent.uid)} == {"done"}

        reports = [row for row in node.results(sent.uid) if (row["kind"], row["model"]) == ("SR", "tiny-class")]
        [new] = [row for row in reports if row["sop_instance_uid"] != first["sop_instance_uid"]]
        assert first["sop_instance_uid"] in new["predecessors"]
        assert {row["status"] for row in reports if row is not new} == {"superseded"}
        assert new["sop_instance_uid"] in archive.objects
        others = [row for row in node.results(sent.uid) if row["model"] == "tiny-cxr"]
        assert "superseded" not in {row["status"] for row in others}
