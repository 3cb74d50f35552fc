"""Nodes with nothing in common but PostgreSQL and an S3 store: one receives, some work, one delivers."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.misc import is_dicom

from service.errors import ArchiveUnavailable, ConfigurationError
from service.ledger.ledger import Ledger
from service.settings import load
from service.shared_spool import open_spool
from service.types import Destination
from tests.archive import Archive
from tests.copies import MIDDLE, copy_series, data_set_of
from tests.orthanc import running_orthanc
from tests.postgres import PostgresServer
from tests.relay import Relay
from tests.running_node import RunningNode, Section, command, free_ports, small_engines
from tests.s3 import BUCKET, CREDENTIALS, S3, s3_server, without_credentials
from tests.waiting import eventually

URL = f"s3://{BUCKET}/wetread"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def _who_we_are(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


class Site:
    """PostgreSQL, an S3 store behind a relay, and nodes with a folder each."""

    def __init__(self, folder: Path, url: str, s3: S3, archive: Destination) -> None:
        self.folder = folder
        self.s3 = s3
        self.relay = Relay(s3.port)
        self.ledger = Ledger(url, name="test")
        self._url = url
        self._archive = archive

    def node(self, name: str, role: str, engines: Section) -> RunningNode:
        folder = self.folder / name
        folder.mkdir()
        sections: dict[str, Section] = {
            "node": {"port": free_ports(1)[0]},
            "engines": engines,
            "spool": {
                "url": f"s3://{BUCKET}/{self.folder.name}",
                "endpoint": f"http://127.0.0.1:{self.relay.port}",
            },
            "ledger": {"url": self._url, "node": name, "lease_seconds": 10},
            f"archives.{self._archive.name}": {"count": "no", "commitment": "no"},
        }
        return RunningNode(folder, self._archive, sections=sections, role=role)

    def states(self) -> set[tuple[str, str]]:
        return {(job.stage, job.state) for job in self.ledger.list_jobs()}

    def kept(self, area: str) -> dict[str, bytes]:
        """What is in the bucket of an area of the spool, by key."""
        mine = [key for key in self.s3.listing() if key.startswith(f"{self.folder.name}/{area}/")]
        return {key: self.s3.content(key) for key in mine}


MakeSite = Callable[[Destination], Site]


@pytest.fixture
def make_site(tmp_path: Path, postgres: PostgresServer, s3: S3, _who_we_are: None) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(archive: Destination) -> Site:
        made.append(Site(tmp_path, postgres.database(), s3, archive))
        return made[-1]

    yield make
    for site in made:
        site.ledger.close()
        site.relay.shut()


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as running:
        yield running


@pytest.fixture
def site(make_site: MakeSite, archive: Archive) -> Site:
    return make_site(archive.destination)


def data_sets(contents: dict[str, bytes], folder: Path) -> list[bytes]:
    """The data sets of DICOM files, sorted."""
    found = []
    for number, content in enumerate(contents.values()):
        file = folder / f"{number}.dcm"
        file.write_bytes(content)
        found.append(data_set_of(file))
    return sorted(found)


def test_what_was_acknowledged_is_worked_on_and_delivered_by_nodes_that_share_no_folder(
    site: Site, archive: Archive, phantom_ct: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    engines = small_engines(tmp_path / "models")
    series = copy_series(phantom_ct, tmp_path / "sent", MIDDLE)
    with ExitStack() as stack:
        receiver = stack.enter_context(site.node("receiver", "receive", engines))
        site.relay.shut()
        with pytest.raises(ArchiveUnavailable, match="0xA7"):
            receiver.send(series.files)
        assert site.ledger.list_jobs() == [], "nothing was acknowledged, so nothing is known"
        eventually(lambda: httpx.get(receiver.health).status_code == 503, "the receiver says that it is not well")
        site.relay.open()
        assert len(receiver.send(series.files)) == len(series.files), "the receiver goes on as soon as the store does"
        (tmp_path / "copies").mkdir()
        there = data_sets(site.kept("series"), tmp_path / "copies")
        assert there == sorted(map(data_set_of, series.files)), "what was acknowledged is in the store"
        eventually(lambda: ("assemble", "ready") in site.states(), "the series is complete")

        first = site.node("worker0", "work", engines)
        stack.push(first)
        first.launch()
        first.kill_at("encode.started")
        eventually(lambda: not first.alive, "the first worker is dead, with the findings in its own folder")
        second = stack.enter_context(site.node("worker1", "work", engines))
        eventually(lambda: ("deliver", "ready") in site.states(), "the second one has encoded what the first one found")
        assert not second.logged("infer.started"), "it was not analysed again"

        stack.enter_context(site.node("deliverer", "deliver", engines))
        eventually(lambda: {state for _, state in site.states()} == {"done"}, "all work has ended")
    assert len(archive.arrivals) == len(archive.objects) == 2
    assert data_sets(site.kept("results"), tmp_path / "copies") == sorted(archive.objects.values())


def test_a_real_series_goes_from_a_receiver_by_the_store_and_a_worker_into_orthanc(
    make_site: MakeSite, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "dicom/ct_nlst101287_toshiba_jpegls_plus_sybil_sr"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and is_dicom(file)]
    ct = [file for file in files if pydicom.dcmread(file, stop_before_pixels=True).Modality == "CT"]
    assert len(ct) > 50
    engines: Section = {"models": ["ct-lung"], "threads": 2}
    with running_orthanc(tmp_path / "orthanc", free_ports(1)[0]) as orthanc, ExitStack() as stack:
        site = make_site(orthanc.destination)
        receiver, *_ = (
            stack.enter_context(site.node(name, role, engines))
            for name, role in (("receiver", "receive"), ("worker", "work"), ("deliverer", "deliver"))
        )
        assert len(receiver.send(ct)) == len(ct)
        eventually(lambda: ("deliver", "done") in site.states(), "the results are delivered", 180)
        assert {state for _, state in site.states()} == {"done"}
        assert len(orthanc.sop_instances("SEG")) == len(orthanc.sop_instances("SR")) == 1
        assert len(site.kept("series")) == len(ct)


def test_who_may_not_use_the_store_is_told_so_by_check_and_at_the_start(
    postgres: PostgresServer, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in without_credentials(tmp_path).items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path, check_who=True) as s3:
        sections: dict[str, Section] = {
            "spool": {"url": URL, "endpoint": s3.url},
            "ledger": {"url": postgres.database()},
        }
        node = RunningNode(tmp_path, archive.destination, sections=sections)
        with pytest.raises(ConfigurationError, match=r"say who we are by AWS_ACCESS_KEY_ID"):
            open_spool(load(node.config))
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigurationError, match=r"PermissionError.*say who we are by AWS_ACCESS_KEY_ID"):
            open_spool(load(node.config))
        served = command("serve", "--config", node.config)
        assert served.returncode == 1
        assert f"spool.url = '{URL}': PermissionError" in served.stderr
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in served.stderr
        checked = command("check", "--config", node.config)
        assert checked.returncode == 1
        assert f"spool.url = '{URL}': PermissionError" in checked.stdout
