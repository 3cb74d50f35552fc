"""Late and corrected slices: the results of a real node supersede each other in the sender's archive."""

import io
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from tests.archive import Archive
from tests.copies import MIDDLE, Series, copy_series, data_set_of
from tests.orthanc import running_orthanc
from tests.running_node import RunningNode, Section, small_engines
from tests.validators import dcentvfy_errors, dciodvfy_errors, dsrdump_text
from tests.waiting import eventually


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Settings of a node that serves small models: here no network is judged."""
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as archive:
        yield archive


@pytest.fixture
def node(tmp_path: Path, archive: Archive, engines: Section) -> Iterator[RunningNode]:
    sections: dict[str, Section] = {"engines": engines, "spool": {"duplicates": "keep-last"}}
    with RunningNode(tmp_path, archive.destination, sections=sections) as node:
        yield node


@pytest.fixture
def series(tmp_path: Path, phantom_ct: Path) -> Series:
    return copy_series(phantom_ct, tmp_path / "sent", MIDDLE)


def corrected(file: Path, folder: Path, value: int = 0) -> Path:
    """The same instance with other pixels."""
    data_set = pydicom.dcmread(file)
    pixels = data_set.pixel_array.copy()
    pixels[:4] = value
    data_set.PixelData = pixels.tobytes()
    folder.mkdir(exist_ok=True)
    data_set.save_as(folder / file.name)
    return folder / file.name


def reports(archive: Archive) -> list[Dataset]:
    """The SRs that reached the archive, in order, each once."""
    data_sets = [pydicom.dcmread(io.BytesIO(content), force=True) for content in archive.objects.values()]
    return [data_set for data_set in data_sets if data_set.Modality == "SR"]


def predecessors(report: Dataset) -> list[str]:
    return [
        document.ReferencedSOPInstanceUID
        for study in report.get("PredecessorDocumentsSequence") or []
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    ]


def after(node: RunningNode, archive: Archive, series: Series, count: int) -> list[Dataset]:
    """Wait until so many reports are in the archive, and all work has ended."""
    eventually(lambda: len(reports(archive)) >= count, f"{count} reports are in the archive")
    assert {job["state"] for job in node.ended(series.uid)} == {"done"}
    assert len(reports(archive)) == count
    return reports(archive)


def statuses(node: RunningNode, series: Series) -> dict[str, str]:
    return {row["sop_instance_uid"]: row["status"] for row in node.results(series.uid)}


def test_late_and_corrected_slices_give_reports_that_name_their_predecessor(
    node: RunningNode, archive: Archive, series: Series, tmp_path: Path
) -> None:
    node.send(series.files[:30])
    [first] = after(node, archive, series, 1)
    assert predecessors(first) == []

    node.send(series.files[30:])
    [_, second] = after(node, archive, series, 2)
    assert predecessors(second) == [first.SOPInstanceUID]
    assert second.SeriesInstanceUID != first.SeriesInstanceUID
    assert statuses(node, series)[first.SOPInstanceUID] == "superseded"

    other = corrected(series.files[20], tmp_path / "corrected")
    node.send([other])
    [*_, third] = after(node, archive, series, 3)
    assert predecessors(third) == [second.SOPInstanceUID], "one chain, not a star"
    assert third.SeriesDescription.startswith("RESEARCH v3 ")
    [(reason, path)] = node.quarantined()
    assert reason.startswith("replaced by a corrected instance")
    assert data_set_of(path) == data_set_of(series.files[20])
    now = [other if file == series.files[20] else file for file in series.files]
    assert sorted(map(data_set_of, node.stored())) == sorted(map(data_set_of, now))
    known = statuses(node, series)
    assert sorted(known.values()) == ["sent"] * 2 + ["superseded"] * 4
    assert known[third.SOPInstanceUID] == "sent"

    before = len(archive.arrivals)
    opened = len(node.logged("series.opened"))
    node.send([*series.files, other])  # with the slice that was replaced among them
    node.send(now)
    assert len(node.logged("series.opened")) == opened, "what is known opens nothing"
    assert statuses(node, series) == known
    assert len(archive.arrivals) == before


def test_every_version_is_sound_and_a_real_archive_keeps_them_all(
    node: RunningNode, archive: Archive, series: Series, tmp_path: Path
) -> None:
    node.send(series.files[:30])
    after(node, archive, series, 1)
    node.send(series.files[30:])
    after(node, archive, series, 2)
    files = [Path(row["path"]) for row in node.results(series.uid)]
    assert len(files) == 4
    for file in files:
        assert dciodvfy_errors(file) == []
    assert dcentvfy_errors(*series.files[:2], *files) == []
    texts = [dsrdump_text(file) for file in files if file.name.startswith("SR-")]
    assert sum("Supersedes an earlier report of this series" in text for text in texts) == 1
    with running_orthanc(tmp_path / "orthanc", node.destination.port) as orthanc:
        orthanc.upload(*series.files[:1], *files)
        held = {*orthanc.sop_instances("SR"), *orthanc.sop_instances("SEG")}
    assert held == set(archive.objects)


def test_a_report_that_never_left_is_not_sent_any_more_and_nobody_is_told_of_it(
    tmp_path: Path, engines: Section, series: Series
) -> None:
    away = Archive()
    sections: dict[str, Section] = {"engines": engines}
    with RunningNode(tmp_path, away.destination, sections=sections) as node:
        node.send(series.files[:30])
        eventually(lambda: node.jobs(series.uid, "deliver"), "the first results wait for the archive")
        node.send(series.files[30:])
        eventually(lambda: len(node.results(series.uid)) == 4, "the second results are there too")
        unsent = {uid for uid, status in statuses(node, series).items() if status == "superseded"}
        assert len(unsent) == 2
        with away:
            [report] = after(node, away, series, 1)
            assert predecessors(report) == []
            assert not unsent & set(away.objects)
