"""SIGKILL at any moment loses nothing that was acknowledged, and makes no result twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.deliver.scu import send, sendable
from service.errors import ArchiveUnavailable
from tests.archive import Archive
from tests.copies import Series, data_set_of
from tests.killed_node import kill_often, node_to_kill
from tests.running_node import SENDER, RunningNode, Section
from tests.waiting import eventually

QUIET_SECONDS = 2.0
"""Longer than a sender takes to come back after a restart."""


@pytest.fixture
def node(tmp_path: Path, archive: Archive, engines: Section) -> Iterator[RunningNode]:
    sections: dict[str, Section] = {"engines": engines, "series": {"quiet_seconds": QUIET_SECONDS}}
    with RunningNode(tmp_path, archive.destination, sections=sections) as node:
        yield node


def the_state_of(node: RunningNode, stage: str) -> str:
    """The state of the only job of a stage, as the dead node has left it."""
    assert not node.alive
    [job] = node.jobs(stage=stage)
    return str(job["state"])


def assert_nothing_is_lost_or_doubled(node: RunningNode, archive: Archive, series: Series) -> None:
    """Every slice is in the spool as it was sent; SEG and SR are in the archive, once."""
    jobs = node.ended(series.uid)
    assert [(job["stage"], job["state"]) for job in jobs] == [
        (stage, "done") for stage in ("receive", "assemble", "infer", "encode", "deliver", "commit")
    ]
    assert sorted(map(data_set_of, node.stored())) == sorted(map(data_set_of, series.files))
    assert not node.quarantined()
    results = node.results(series.uid)
    assert [(result["kind"], result["status"]) for result in results] == [("SEG", "sent"), ("SR", "sent")]
    assert set(archive.objects) == {result["sop_instance_uid"] for result in results}


@pytest.mark.parametrize("stage", ["assemble", "infer", "encode"])
def test_a_node_killed_in_a_stage_finishes_the_work_after_a_restart(
    stage: str, node: RunningNode, archive: Archive, series: Series
) -> None:
    node.kill_at(f"{stage}.started")
    assert len(node.send(series.files)) == len(series.files)
    node.wait()
    assert the_state_of(node, stage) == "running", "the kill came too late to prove anything"
    assert not archive.arrivals

    node.start()
    assert_nothing_is_lost_or_doubled(node, archive, series)


def test_a_node_killed_while_delivering_sends_the_same_objects_again(
    node: RunningNode, archive: Archive, series: Series
) -> None:
    archive.gate.clear()
    node.send(series.files)
    eventually(lambda: archive.arrivals, "the first result reaches the archive")
    node.kill()
    assert the_state_of(node, "deliver") == "running"
    [first] = archive.arrivals
    archive.gate.set()

    node.start()
    assert_nothing_is_lost_or_doubled(node, archive, series)
    came = [arrival.sop_instance_uid for arrival in archive.arrivals]
    assert came.count(first.sop_instance_uid) == 2, "what was not acknowledged is sent again"
    assert len(came) == 3


def test_a_node_killed_while_receiving_keeps_every_instance_that_it_acknowledged(
    node: RunningNode, archive: Archive, series: Series
) -> None:
    acknowledged: list[Path] = []

    def send_until_it_is_killed() -> None:
        for answer in send(node.destination, SENDER, [sendable(file) for file in series.files]):
            acknowledged.append(answer.file.path)
            if len(acknowledged) == 20:
                node.process.kill()

    with pytest.raises(ArchiveUnavailable):
        send_until_it_is_killed()
    node.wait()
    assert 20 <= len(acknowledged) < len(series.files), "the kill came too late to prove anything"
    assert the_state_of(node, "receive") == "running"
    assert set(map(data_set_of, acknowledged)) <= set(map(data_set_of, node.stored()))

    node.start()
    node.send([file for file in series.files if file not in acknowledged])
    assert_nothing_is_lost_or_doubled(node, archive, series)
    assert not list((node.spool / "incoming").iterdir())


def test_slices_that_come_long_after_a_kill_run_the_series_again(
    node: RunningNode, archive: Archive, series: Series
) -> None:
    node.send(series.files[:25])
    node.kill()
    assert the_state_of(node, "receive") == "running"
    node.start()
    node.ended(series.uid)
    partial = {result["sop_instance_uid"] for result in node.results(series.uid)}
    assert set(archive.objects) == partial

    node.send(series.files[25:])
    eventually(lambda: len(archive.objects) > len(partial), "the whole series' results reach the archive")
    [receive, *_] = node.ended(series.uid)
    assert receive["note"].startswith("40 instances")
    assert sorted(map(data_set_of, node.stored())) == sorted(map(data_set_of, series.files))
    assert len(archive.objects) == 2 * len(partial) == 4


def test_work_that_a_power_cut_may_have_torn_is_made_again_from_the_received_images(
    node: RunningNode, archive: Archive, series: Series
) -> None:
    """Slices are not synced on their way from stage to stage; after another boot of the machine they do not count."""
    node.kill_at("infer.started")
    node.send(series.files)
    node.wait()
    assert the_state_of(node, "infer") == "running", "the kill came too late to prove anything"
    [item] = (node.spool / "work").glob("*/volume/item.json")
    item.write_text(json.dumps(json.loads(item.read_text()) | {"boot": "an earlier one"}))
    [slab] = (node.spool / "work").glob("*/*.slab")
    slab.write_bytes(bytes(slab.stat().st_size))  # as a file system may leave it

    node.start()
    assert_nothing_is_lost_or_doubled(node, archive, series)
    assert json.loads(item.read_text())["boot"] != "an earlier one"
    assert {path.read_bytes()[-100:] == bytes(100) for path in (node.spool / "work").glob("*/*.slab")} >= {False}


def test_a_node_killed_at_any_moment_under_load_keeps_what_it_acknowledged_and_nothing_half_written(
    tmp_path: Path, engines: Section
) -> None:
    """A few times; ``make soak-receive`` kills it a hundred times."""
    survived = kill_often(node_to_kill(tmp_path, engines), 3, seed=107)
    assert (survived.under_load, survived.at_start) == (3, 2)
    assert survived.acknowledged > 100
    assert survived.written_over > 10
