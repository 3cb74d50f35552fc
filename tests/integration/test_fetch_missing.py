"""The sender's archive has more than the sender has sent: a real node and a real Orthanc."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from service.handover import load_item
from service.types import Destination
from tests.copies import MIDDLE, Series, copy_series, data_set_of
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, Section, command, free_ports, small_engines
from tests.small_models import CHEST, volume_package
from tests.validators import dsrdump_text

SENT, ALL = 30, 40


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Settings of a node whose model accepts a part of a series."""
    folder = tmp_path_factory.mktemp("lenient")
    model = volume_package(folder, patch=(24, 96, 96), selection=f"{CHEST}\naccepts_partial = true")
    return {"folders": [str(folder)], "models": [model.name]}


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
    """A series of which the archive has all."""
    series = copy_series(phantom_ct, tmp_path / "sent", MIDDLE)
    assert len(series.files) == ALL
    orthanc.upload(*series.files)
    return series


def node_with(
    folder: Path, orthanc: Orthanc, port: int, engines: Section, archive: Section, limits: Section
) -> RunningNode:
    sections: dict[str, Section] = {
        "engines": engines,
        "node": {"port": port},
        "archives.orthanc": {"dicomweb": orthanc.dicomweb, **archive},
        "series": {"quiet_seconds": 0.5, "quiet_ceiling_seconds": 1.0, **limits},
    }
    return RunningNode(folder, orthanc.destination, sections=sections)


def sources(node: RunningNode, series: Series) -> int:
    """How many slices the one volume is made of that the one result is about."""
    [infer] = node.jobs(series.uid, "infer")
    item = load_item(node.spool / "work" / infer["series"] / infer["item"], node.spool / "series" / infer["series"])
    return len(item.files)


def shown(node: RunningNode, series: Series) -> str:
    """What `wetread jobs show` says."""
    [receive] = node.jobs(series.uid, "receive")
    return command("jobs", "show", receive["series"], "--config", node.config).stdout


def reports(orthanc: Orthanc, series: Series, folder: Path) -> list[str]:
    """The texts of the reports that the archive got on a series."""
    study = str(pydicom.dcmread(series.files[0], stop_before_pixels=True).StudyInstanceUID)
    texts = []
    for name in orthanc.instances(study):
        path = folder / f"{name}.dcm"
        path.write_bytes(orthanc.rest.get(f"/instances/{name}/file").content)
        if pydicom.dcmread(path, stop_before_pixels=True).Modality == "SR":
            texts.append(dsrdump_text(path))
    return texts


def failed(node: RunningNode, series: Series) -> list[str]:
    """Wait for the end of all work on a series, and give the notes of the jobs that came to nothing."""
    return [job["note"] for job in node.ended(series.uid) if job["state"] != "done"]


def kinds(node: RunningNode, series: Series) -> list[tuple[str, str]]:
    return sorted((row["kind"], row["status"]) for row in node.results(series.uid))


@pytest.mark.parametrize(
    "archive",
    [{"fetch": "c-get"}, {"fetch": "c-move"}, {"fetch": "wado-rs"}, {"fetch": "wado-rs", "count": "qido"}],
    ids=lambda keys: "-".join(keys.values()),
)
def test_what_did_not_come_is_fetched_and_one_result_rests_on_all(
    archive: dict[str, str],
    tmp_path: Path,
    orthanc: Orthanc,
    node_port: int,
    engines: Section,
    series: Series,
) -> None:
    # within the test only what is fetched can complete it, and an archive may take its time to answer
    times = {"limit_seconds": 600, "quiet_seconds": 10, "quiet_ceiling_seconds": 20}
    with node_with(tmp_path, orthanc, node_port, engines, archive, times) as node:
        assert len(node.send(series.files[:SENT])) == SENT
        assert failed(node, series) == []
        assert len(node.logged("series.completed")) == 1
        done = node.event("series.completed", instances=ALL, partial=False)
        assert done["against"] == []
        assert sources(node, series) == ALL
        assert kinds(node, series) == [("SEG", "committed"), ("SR", "committed")]
        said = shown(node, series)
        assert f"the archive has {ALL}" in said
        assert f"complete with {ALL} instances" in said
        assert "may be incomplete" not in "".join(reports(orthanc, series, tmp_path))
        assert sorted(map(data_set_of, node.stored())) == sorted(map(data_set_of, series.files))
        [row] = node.rows("SELECT sender FROM series WHERE series_uid = ?", series.uid)
        assert row["sender"] == "MODALITY", "a series stays its first sender's, whoever brings the rest"

        # what comes from its source after all is known already
        node.send(series.files[SENT - 5 :])
        assert len(node.logged("series.opened")) == 1
        assert not node.quarantined()
        assert not node.logged("instance.corrected")


def test_without_leave_to_fetch_it_runs_as_partial_and_the_report_says_so(
    tmp_path: Path, orthanc: Orthanc, node_port: int, lenient: Section, series: Series
) -> None:
    with node_with(tmp_path, orthanc, node_port, lenient, {"fetch": "no"}, {"limit_seconds": 4}) as node:
        node.send(series.files[:SENT])
        assert failed(node, series) == []
        done = node.event("series.completed", instances=SENT, partial=True)
        assert done["against"] == [f"the archive has {ALL}"]
        assert sources(node, series) == SENT
        assert not node.logged("series.fetching")
        assert f"the archive has {ALL}" in shown(node, series)
        [report] = reports(orthanc, series, tmp_path)
        assert f"The series may be incomplete: the archive has {ALL}." in report


def test_a_fetch_that_fails_leaves_the_series_to_the_limit_and_a_model_that_wants_all_does_not_run(
    tmp_path: Path, orthanc: Orthanc, engines: Section, series: Series
) -> None:
    [elsewhere] = free_ports(1)  # the archive knows the node at the other port, where nobody listens now
    with node_with(tmp_path, orthanc, elsewhere, engines, {"fetch": "c-move"}, {"limit_seconds": 9}) as node:
        node.send(series.files[:SENT])
        node.event("archive.fetch_failed")
        [note] = failed(node, series)
        assert "the series may be incomplete; send it again, whole" in note
        node.event("series.completed", instances=SENT, partial=True)


def test_an_archive_that_is_away_is_one_piece_of_evidence_less(
    tmp_path: Path, engines: Section, series: Series
) -> None:
    [nowhere] = free_ports(1)
    sections: dict[str, Section] = {
        "engines": engines,
        "archives.away": {"fetch": "c-get"},
        "series": {"quiet_seconds": 1.0, "quiet_ceiling_seconds": 2.0, "limit_seconds": 600},
    }
    with RunningNode(tmp_path, Destination("away", "AWAY", "127.0.0.1", nowhere), sections=sections) as node:
        node.send(series.files[:SENT])
        done = node.event("series.completed", instances=SENT, partial=False)
        assert "archive" not in done["evidence"]
        assert "quiet" in done["evidence"]
