"""`wetread fetch`: a study from a real Orthanc, as if it had been sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from service.archive.client import ArchiveClient
from service.settings import ArchiveSettings
from tests.copies import MIDDLE, Series, copy_series
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, Section, command, free_ports, small_engines

ALL = 40


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def node_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, node_port: int) -> Iterator[Orthanc]:
    # stable after the test: it forwards nothing by itself
    folder = tmp_path_factory.mktemp("orthanc")
    with running_orthanc(folder, node_port, stable_seconds=3600, dicomweb=True) as running:
        yield running


@pytest.fixture
def series(tmp_path: Path, phantom_ct: Path, orthanc: Orthanc) -> Series:
    return uploaded(copy_series(phantom_ct, tmp_path / "sent", MIDDLE), orthanc)


def uploaded(series: Series, orthanc: Orthanc, **changes: str) -> Series:
    """Put a series into the archive, in a study and of a patient of its own or as `changes` say."""
    study = generate_uid()
    patient = f"P{study[-12:]}"
    for file in series.files:
        data_set = pydicom.dcmread(file)
        data_set.StudyInstanceUID, data_set.PatientID = study, patient
        data_set.StudyDate = "20250301"
        for keyword, value in changes.items():
            setattr(data_set, keyword, value)
        data_set.save_as(file)
    orthanc.upload(*series.files)
    return series


def header(series: Series) -> pydicom.Dataset:
    return pydicom.dcmread(series.files[0], stop_before_pixels=True)


def node_with(folder: Path, orthanc: Orthanc, port: int, engines: Section, **keys: Any) -> RunningNode:
    sections: dict[str, Section] = {
        "engines": engines,
        "node": {"port": port},
        "archives.orthanc": {"dicomweb": orthanc.dicomweb},
        "series": {"quiet_seconds": 0.5, "quiet_ceiling_seconds": 1.0, "limit_seconds": 3},
    }
    return RunningNode(folder, orthanc.destination, sections=sections, **keys)


def fetch(node: RunningNode, study: str, *options: str) -> list[dict[str, Any]]:
    done = command("fetch", study, "--from", "orthanc", "--config", node.config, "--json", *options)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def kinds(node: RunningNode, series: Series) -> list[str]:
    return sorted(row["kind"] for row in node.results(series.uid))


@pytest.mark.parametrize("way", ["c-get", "wado-rs", "c-move"])
def test_a_fetched_study_runs_and_fetched_again_it_runs_nothing_new(
    way: str, tmp_path: Path, orthanc: Orthanc, node_port: int, engines: Section, series: Series
) -> None:
    with node_with(tmp_path, orthanc, node_port, engines, senders=("ORTHANC",)) as node:
        study = str(header(series).StudyInstanceUID)
        [told] = fetch(node, study, "--by", way)
        assert (told["listed"], told["fetched"]) == (ALL, ALL)
        assert told["state"] == ("sent to the node" if way == "c-move" else "runs")
        assert {job["state"] for job in node.ended(series.uid)} == {"done"}
        assert kinds(node, series) == ["SEG", "SR"]
        assert len(node.stored()) == ALL
        [row] = node.rows("SELECT sender FROM series WHERE series_uid = ?", series.uid)
        assert row["sender"] == "ORTHANC"

        jobs = node.jobs(series.uid)
        [again] = fetch(node, study, "--by", way)
        assert (again["fetched"], again["state"]) == (0, "nothing new")
        assert node.jobs(series.uid) == jobs


def test_what_is_here_is_not_fetched_and_a_node_that_is_away_takes_it_up_when_it_starts(
    tmp_path: Path, orthanc: Orthanc, node_port: int, engines: Section, series: Series
) -> None:
    node = node_with(tmp_path, orthanc, node_port, engines)
    with node:
        assert len(node.send(series.files[:25])) == 25
        node.ended(series.uid)
        node.terminate()
    [told] = fetch(node, str(header(series).StudyInstanceUID))
    assert (told["listed"], told["fetched"], told["state"]) == (ALL, ALL - 25, "runs")
    with node:
        assert {job["state"] for job in node.ended(series.uid)} == {"done"}
        [receive] = node.jobs(series.uid, "receive")
        assert f"fetched from the archive, which lists {ALL}" in receive["note"]


def test_earlier_studies_of_the_patient_come_too_and_those_of_others_do_not(
    tmp_path: Path, phantom_ct: Path, orthanc: Orthanc, node_port: int, engines: Section
) -> None:
    dates = {"now": "20250301", "before": "20240105", "long before": "20200105", "later": "20250401"}
    same = {name: copy_series(phantom_ct, tmp_path / name, slice(50, 54)) for name in (*dates, "another's")}
    for name, date in dates.items():
        uploaded(same[name], orthanc, PatientID="P*", StudyDate=date)
    uploaded(same["another's"], orthanc, PatientID="PX", StudyDate="20240601")  # which * would match
    with node_with(tmp_path, orthanc, node_port, engines) as node:
        fetch(node, str(header(same["now"]).StudyInstanceUID), "--priors", "1")
        came = {row["series_uid"] for row in node.rows("SELECT series_uid FROM series")}
        assert came == {same["now"].uid, same["before"].uid}
        fetch(node, str(header(same["now"]).StudyInstanceUID), "--priors", "5")
        came = {row["series_uid"] for row in node.rows("SELECT series_uid FROM series")}
        assert came == {same[name].uid for name in ("now", "before", "long before")}


@pytest.mark.parametrize("way", ["c-find", "qido"])
def test_an_archive_lists_series_and_studies_by_both_ways(way: str, orthanc: Orthanc, series: Series) -> None:
    to = orthanc.destination
    settings = ArchiveSettings(
        ae_title=to.ae_title,
        host=to.host,
        port=to.port,
        count=way,
        dicomweb=orthanc.dicomweb,  # type: ignore[arg-type]
    )
    archive = ArchiveClient(to, settings, "WETREAD")
    study = str(header(series).StudyInstanceUID)
    assert [(entry.series_uid, entry.modality) for entry in archive.series(study)] == [(series.uid, "CT")]
    [found] = archive.studies(study)
    assert (found.study_uid, found.date, found.modalities) == (study, "20250301", ("CT",))
    assert archive.series(generate_uid()) == archive.studies(generate_uid()) == ()
    assert archive.series("") == archive.studies("*") == ()


def test_what_is_wrong_is_said_with_the_fix(
    tmp_path: Path, orthanc: Orthanc, node_port: int, engines: Section, series: Series
) -> None:
    study = str(header(series).StudyInstanceUID)
    with node_with(tmp_path, orthanc, node_port, engines, senders=("CT1", "CT2")) as node:
        for arguments, words in (
            ((study, "--from", "nowhere"), "no archive 'nowhere' (known: orthanc)"),
            ((study, "--from", "orthanc"), "several senders have it (CT1, CT2)"),
            ((study, "--from", "orthanc", "--sender", "CT3"), "no sender 'CT3'"),
            ((study, "--from", "orthanc", "--by", "c-move"), "add [senders.ORTHANC]"),
            ((study, "--from", "orthanc", "--by", "ftp"), "no such way"),
            ((generate_uid(), "--from", "orthanc", "--sender", "CT1"), "the archive knows no such study"),
            ((study, "--from", "orthanc", "--sender", "CT1", "--modality", "DX"), "no series of DX, only of CT"),
        ):
            done = command("fetch", *arguments, "--config", node.config)
            assert done.returncode == 1
            assert words in done.stderr.replace("\n", " "), done.stderr


def test_a_series_that_is_being_received_is_left_to_its_sender(
    tmp_path: Path, orthanc: Orthanc, node_port: int, engines: Section, series: Series
) -> None:
    sections: dict[str, Section] = {
        "engines": engines,
        "node": {"port": node_port},
        "series": {"quiet_seconds": 0.5, "quiet_ceiling_seconds": 1.0, "limit_seconds": 600},
    }
    with RunningNode(tmp_path, orthanc.destination, sections=sections) as node:
        node.send(series.files[:25])  # the archive has more, so it waits
        [told] = fetch(node, str(header(series).StudyInstanceUID))
        assert (told["fetched"], told["state"]) == (0, "is being received, look again later")
        assert len(node.stored()) == 25
