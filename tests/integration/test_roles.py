"""Several processes share one ledger and one spool: some receive, some work, one delivers."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.ledger.ledger import Ledger
from tests.archive import Archive
from tests.copies import MIDDLE, copy_series
from tests.postgres import PostgresServer
from tests.running_node import SENDER, RunningNode, Section, command, free_ports, small_engines
from tests.waiting import eventually


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as running:
        yield running


class Site:
    """A ledger and a spool, and nodes that share them, each with a name and a role."""

    def __init__(self, folder: Path, url: str, archive: Archive, engines: Section) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.ledger = Ledger(url, name="test")
        self._url = url
        self._archive = archive
        self._engines = engines

    def node(self, name: str, role: str) -> RunningNode:
        folder = self.folder / name
        folder.mkdir()
        [port] = free_ports(1)
        sections: dict[str, Section] = {
            "node": {"port": port},
            "engines": self._engines,
            "spool": {"path": str(self.spool)},
            "ledger": {"url": self._url, "node": name},
            f"archives.{self._archive.destination.name}": {"count": "no"},
        }
        return RunningNode(folder, self._archive.destination, sections=sections, role=role)

    def states(self) -> set[tuple[str, str]]:
        return {(job.stage, job.state) for job in self.ledger.list_jobs()}


@pytest.fixture
def site(tmp_path: Path, postgres: PostgresServer, archive: Archive, engines: Section) -> Iterator[Site]:
    site = Site(tmp_path, postgres.database(), archive, engines)
    yield site
    site.ledger.close()


def test_each_role_does_its_part_and_another_takes_it_up(site: Site, archive: Archive, phantom_ct: Path) -> None:
    series = [copy_series(phantom_ct, site.folder / f"sent{number}", MIDDLE) for number in range(3)]
    with ExitStack() as stack:
        receivers = [stack.enter_context(site.node(f"receiver{number}", "receive")) for number in range(2)]
        for each, receiver in zip(series, [*receivers, receivers[0]], strict=True):
            assert len(receiver.send(each.files)) == len(each.files)
        eventually(lambda: len(site.ledger.list_jobs("done")) == 3, "all series are complete")
        assert {(stage, state) for stage, state in site.states() if stage != "receive"} == {("assemble", "ready")}
        assert [httpx.get(receiver.health).json()["engines"] for receiver in receivers] == [[], []]

        worker = stack.enter_context(site.node("worker0", "work"))
        eventually(lambda: ("encode", "done") in site.states(), "one is encoded")
        stack.enter_context(site.node("worker1", "work"))
        assert worker.terminate() == 0  # drained: what runs ends or goes back, and the other one goes on
        eventually(lambda: sum(job.stage == "deliver" for job in site.ledger.list_jobs()) == 3, "all are encoded")
        assert not archive.arrivals, "nobody delivers yet"

        deliverer = stack.enter_context(site.node("deliverer", "deliver"))
        eventually(lambda: len(archive.objects) == 6, "SEG and SR of each are in the archive")
        eventually(lambda: {state for _, state in site.states()} == {"done"}, "all work has ended")
        told = httpx.get(deliverer.health).json()
        assert (told["status"], told["role"], told["receiver_listening"]) == ("ok", "deliver", False)
        metrics = httpx.get(deliverer.health.replace("health", "metrics")).text
        assert 'wetread_jobs{stage="deliver",state="done"} 3.0' in metrics
    assert len(archive.arrivals) == len(archive.objects), "nothing was sent twice"
    assert sorted(path.name for path in (site.spool / "nodes").iterdir()) == [
        "deliverer", "receiver0", "receiver1", "worker0", "worker1",
    ]  # fmt: skip


def test_a_receiver_that_was_killed_has_its_series_back_when_it_starts_under_its_name(
    site: Site, archive: Archive, phantom_ct: Path
) -> None:
    series = copy_series(phantom_ct, site.folder / "sent", MIDDLE)
    node = site.node("receiver0", "receive")
    node.start()
    assert len(node.send(series.files)) == len(series.files)
    node.kill()
    if not site.ledger.list_jobs("done"):
        assert site.states() == {("receive", "running")}
    with node:
        eventually(lambda: ("assemble", "ready") in site.states(), "it is complete")
        [job, *_] = site.ledger.list_jobs()
        assert (job.series.sender, job.owner) == (SENDER, "receiver0")


def test_two_nodes_of_one_name_and_a_role_without_a_shared_ledger_are_refused(
    site: Site, tmp_path: Path, archive: Archive, engines: Section
) -> None:
    with site.node("receiver0", "receive"):
        shutil.copy(site.folder / "receiver0" / "wetread.toml", tmp_path / "same.toml")
        done = command("serve", "--role", "receive", "--config", tmp_path / "same.toml")
        assert done.returncode == 1
        assert "ledger.node = 'receiver0' is taken" in done.stderr
    alone = RunningNode(tmp_path, archive.destination, sections={"engines": engines})
    done = command("serve", "--role", "work", "--config", alone.config)
    assert done.returncode == 1
    assert "set ledger.url to a PostgreSQL database" in done.stderr
