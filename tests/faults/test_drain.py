"""SIGTERM drains: no new associations, the running stage finishes or is handed back."""

from pathlib import Path

from service.deliver.scu import echo
from service.errors import ArchiveUnavailable
from service.node import Node
from service.settings import load
from tests.archive import Archive
from tests.copies import Series
from tests.running_node import SENDER, RunningNode, Section
from tests.waiting import eventually


def refuses_associations(node: RunningNode) -> bool:
    try:
        echo(node.destination, SENDER)
    except ArchiveUnavailable:
        return True
    return False


def test_a_draining_node_refuses_associations_and_finishes_its_running_stage(
    tmp_path: Path, archive: Archive, engines: Section, series: Series
) -> None:
    archive.gate.clear()
    with RunningNode(tmp_path, archive.destination, sections={"engines": engines}) as node:
        node.send(series.files)
        eventually(lambda: archive.arrivals, "the node delivers")
        assert not refuses_associations(node)
        node.process.terminate()
        node.event("node.draining")
        eventually(lambda: refuses_associations(node), "the node takes no more associations")
        assert node.alive, "it waits for the stage that runs"
        archive.gate.set()
        assert node.wait() == 0
        assert node.logged("node.stopped")
        states = [(job["stage"], job["state"]) for job in node.jobs(series.uid)]
        assert [state for stage, state in states if stage != "commit"] == ["done"] * 5
        assert dict(states)["commit"] in ("ready", "done"), "it may begin just before the end"
        assert len(archive.arrivals) == len(archive.objects) == 2


def test_work_that_waits_when_a_node_stops_is_done_after_the_next_start(
    tmp_path: Path, archive: Archive, engines: Section, series: Series
) -> None:
    with RunningNode(tmp_path, archive.destination, sections={"engines": engines}) as node:
        node.send(series.files)
        node.event("assemble.started")
        assert node.terminate() == 0
        states = {job["stage"]: job["state"] for job in node.jobs(series.uid)}
        assert states["assemble"] in ("done", "ready")
        assert "running" not in states.values()
        assert not archive.arrivals

        node.start()
        assert {job["state"] for job in node.ended(series.uid)} == {"done"}
        assert len(archive.arrivals) == len(archive.objects) == 2


def test_a_stage_that_outlasts_the_grace_is_handed_back(
    tmp_path: Path, archive: Archive, engines: Section, series: Series
) -> None:
    archive.gate.clear()
    outside = RunningNode(tmp_path, archive.destination, sections={"engines": engines})
    node = Node(load(outside.config))
    node.start()
    try:
        outside.send(series.files)
        eventually(lambda: archive.arrivals, "the node delivers")
    finally:
        node.stop(grace_seconds=0.1)
    [deliver] = outside.jobs(series.uid, "deliver")
    assert (deliver["state"], deliver["attempts"]) == ("ready", 0)

    archive.gate.set()
    with outside:
        assert {job["state"] for job in outside.ended(series.uid)} == {"done"}
    assert len(archive.objects) == 2
