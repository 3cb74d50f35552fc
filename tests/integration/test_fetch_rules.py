"""`[fetch.NAME]`: studies that a node fetches by itself from a real Orthanc."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from tests.copies import Series, copy_series
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, Section, command, free_ports, small_engines
from tests.waiting import eventually

OFTEN = 0.05
"""Minutes."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def node_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, node_port: int) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    with running_orthanc(folder, node_port, stable_seconds=3600, dicomweb=True) as running:
        yield running


def made(phantom_ct: Path, folder: Path, day: date, patient: str, description: str = "CT CHEST") -> Series:
    """A small series in a study of its own."""
    study = generate_uid()

    def change(data_set: Dataset) -> None:
        data_set.StudyInstanceUID, data_set.PatientID = study, patient
        data_set.StudyDate, data_set.StudyDescription = f"{day:%Y%m%d}", description

    return copy_series(phantom_ct, folder, slice(50, 56), change=change)


def node_with(
    folder: Path, orthanc: Orthanc, port: int, engines: Section, count: str, rule: dict[str, Any]
) -> RunningNode:
    sections: dict[str, Section] = {
        "engines": engines,
        "node": {"port": port},
        "archives.orthanc": {"dicomweb": orthanc.dicomweb, "count": count},
        "fetch.rule": {"archive": "orthanc", "every_minutes": OFTEN, **rule},
    }
    return RunningNode(folder, orthanc.destination, senders=("ORTHANC",), sections=sections)


def series_of(node: RunningNode) -> set[str]:
    return {row["series_uid"] for row in node.rows("SELECT series_uid FROM series")}


@pytest.mark.parametrize("ways", [("c-find", "c-get"), ("c-find", "c-move"), ("qido", "wado-rs")], ids="-".join)
def test_what_matches_a_rule_is_fetched_once_also_after_a_restart_and_when_its_files_are_gone(
    ways: tuple[str, str], tmp_path: Path, phantom_ct: Path, orthanc: Orthanc, node_port: int, engines: Section
) -> None:
    today, word = date.today(), generate_uid()[-8:]
    wanted = made(phantom_ct, tmp_path / "wanted", today, f"A{word}", f"CT {word} CHEST")
    others = [
        made(phantom_ct, tmp_path / "old", today - timedelta(days=9), f"B{word}", f"CT {word} CHEST"),
        made(phantom_ct, tmp_path / "head", today, f"C{word}", f"CT {word} HEAD"),
    ]
    late = wanted.files[-1]
    orthanc.upload(*wanted.files[:-1], *(file for other in others for file in other.files))
    count, by = ways
    rule = {"description": f"*{word}*CHEST", "modalities": ["CT"], "by": by}
    node = node_with(tmp_path, orthanc, node_port, engines, count, rule)
    with node:
        eventually(lambda: series_of(node) == {wanted.uid}, "the study is fetched")
        assert {job["state"] for job in node.ended(wanted.uid)} == {"done"}
        turns = len(node.logged("fetch.turn_ended"))
        for folder in (node.spool / "series").iterdir():
            shutil.rmtree(folder)
        eventually(lambda: len(node.logged("fetch.turn_ended")) > turns + 1, "another turn")
        assert node.stored() == []
        node.terminate()
    turns = len(node.logged("fetch.turn_ended"))
    with node:
        eventually(lambda: len(node.logged("fetch.turn_ended")) > turns, "a turn after the restart")
        assert node.stored() == []
        assert series_of(node) == {wanted.uid}
        orthanc.upload(late)
        eventually(lambda: len(node.stored()) == len(wanted.files), "what is new is fetched, and all of the series")


def test_earlier_studies_of_patients_whose_images_are_sent_come_and_theirs_do_not(
    tmp_path: Path, phantom_ct: Path, orthanc: Orthanc, node_port: int, engines: Section
) -> None:
    today, patient = date.today(), f"P{generate_uid()[-8:]}"
    days = {"now": 0, "before": 100, "long before": 200, "longest before": 300}
    studies = {
        name: made(phantom_ct, tmp_path / name, today - timedelta(days=ago), patient) for name, ago in days.items()
    }
    for each in studies.values():
        orthanc.upload(*each.files)
    rule = {"studies": "received", "priors": 1, "by": "c-get"}
    with node_with(tmp_path, orthanc, node_port, engines, "c-find", rule) as node:
        eventually(lambda: node.logged("fetch.turn_ended"), "the first turn, before which nothing counts")
        node.send(studies["now"].files, calling="ORTHANC")
        both = {studies[name].uid for name in ("now", "before")}
        eventually(lambda: series_of(node) == both, "the study before it is fetched")
        turns = len(node.logged("fetch.turn_ended"))
        eventually(lambda: len(node.logged("fetch.turn_ended")) > turns + 1, "another turn")
        assert series_of(node) == both
        assert {job["state"] for job in node.ended(studies["before"].uid)} == {"done"}


def test_a_rule_that_names_what_is_not_there_stops_the_node_and_check_says_why(
    tmp_path: Path, orthanc: Orthanc, node_port: int, engines: Section
) -> None:
    node = node_with(tmp_path, orthanc, node_port, engines, "c-find", {"sender": "NOBODY"})
    done = command("serve", "--config", node.config)
    assert done.returncode == 1
    assert "fetch.rule: no sender 'NOBODY'" in " ".join(done.stderr.split())
    told = command("check", "--config", node.config)
    assert "fetch.rule: no sender 'NOBODY'" in " ".join(told.stdout.split())
