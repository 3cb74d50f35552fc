"""A real Orthanc is asked for storage commitment, which it reports over an association of its own; and what it forwards
with a study of what it was sent."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from service.types import Destination
from tests.copies import MIDDLE, copy_series
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, Section, free_ports, small_engines
from tests.waiting import eventually

OBJECTS = ["SEG", "SC", "SR", "PDF", "RTSTRUCT", "KO"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Settings of a node that serves small models: here no network is judged."""
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture
def archive() -> Destination:
    """Where Orthanc will be."""
    return Destination("orthanc", "ORTHANC", "127.0.0.1", free_ports(1)[0])


@pytest.fixture
def node(tmp_path: Path, archive: Destination, engines: Section, request: pytest.FixtureRequest) -> RunningNode:
    sections: dict[str, Section] = {
        "engines": engines,
        **getattr(request, "param", {}),
        "archives.orthanc.results": {"objects": OBJECTS, "captures": 2},
    }
    return RunningNode(tmp_path, archive, senders=[archive.ae_title], sections=sections)


@pytest.fixture
def orthanc(tmp_path: Path, node: RunningNode, archive: Destination) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path / "orthanc", node.destination.port, dicom_port=archive.port) as orthanc:
        yield orthanc


REQUIRED: Section = {"archives.orthanc": {"commitment": "require"}}


@pytest.mark.parametrize("node", [REQUIRED, {**REQUIRED, "node": {"receivers": 2}}], indirect=True)
def test_orthanc_commits_and_what_it_forwards_again_runs_nothing_new(
    node: RunningNode, orthanc: Orthanc, phantom_ct: Path, tmp_path: Path
) -> None:
    files = copy_series(phantom_ct, tmp_path / "sent", MIDDLE).files
    study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with node:
        orthanc.upload(*files)
        jobs = node.ended()
        results = node.results()
        assert {row["status"] for row in results} == {"committed"}
        assert {row["kind"] for row in results} >= {"SEG", "SC", "SR", "PDF", "RTSTRUCT"}
        assert [job["stage"] for job in jobs] == ["receive", "assemble", "infer", "encode", "deliver", "commit"]
        assert jobs[-1]["note"] == f"{len(results)} objects committed by orthanc"
        [told] = node.logged("commitment.reported")
        assert (told["archive"], told["committed"], told["failed"]) == ("ORTHANC", len(results), 0)

        before, held = len(node.stored()), orthanc.count()
        orthanc.forward(study)
        eventually(lambda: len(node.logged("instance.returned")) == len(results), "its results come back")
        node.send(files, calling="ORTHANC")
        assert len(node.stored()) == before == len(files)
        assert not node.quarantined()
        assert node.rows("SELECT key FROM series") == [{"key": jobs[0]["series"]}]
        assert node.jobs() == jobs
        assert node.results() == results
        assert orthanc.count() == held


def test_a_node_that_is_killed_while_it_asks_asks_again(
    node: RunningNode, orthanc: Orthanc, phantom_ct: Path, tmp_path: Path
) -> None:
    files = copy_series(phantom_ct, tmp_path / "sent", MIDDLE).files
    node.start()
    node.kill_at("commit.started")
    orthanc.upload(*files)
    node.wait()
    with node:
        node.ended()
        assert {row["status"] for row in node.results()} == {"committed"}


@pytest.mark.parametrize("node", [{"archives.orthanc": {"commitment": "verify"}}], indirect=True)
def test_orthanc_lists_what_it_was_sent(node: RunningNode, orthanc: Orthanc, phantom_ct: Path, tmp_path: Path) -> None:
    with node:
        orthanc.upload(*copy_series(phantom_ct, tmp_path / "sent", MIDDLE).files)
        node.ended()
        assert {row["status"] for row in node.results()} == {"verified"}
        assert not node.logged("commitment.reported")
