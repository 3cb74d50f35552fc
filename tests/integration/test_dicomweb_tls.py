"""DICOMweb over HTTPS to a real Orthanc, behind a front that shows a certificate of its own authority and wants ours.

Orthanc 1.10.1 as Debian has it ends with a segmentation fault at the first TLS handshake of its own HTTP server.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from service.archive.client import ArchiveClient
from service.deliver.capabilities import Capabilities
from service.deliver.scu import Answer, Sendable, sendable
from service.deliver.sender import Sender
from service.errors import ArchiveUnavailable
from service.settings import Settings, parse
from service.types import Destination
from tests.certificates import Authority
from tests.copies import MIDDLE, copy_series
from tests.ct_slice import ct_slice
from tests.orthanc import Orthanc, running_orthanc
from tests.relay import Relay
from tests.running_node import RunningNode, Section, free_ports, small_engines


@dataclass(frozen=True)
class Secured:
    """An Orthanc before which TLS is spoken, and only those are let in whom its authority has signed."""

    port: int
    orthanc: Orthanc
    authority: Authority
    folder: Path

    def settings(self, host: str = "127.0.0.1", **tls: object) -> Settings:
        shown = self.authority.issue("node", file="of-node")
        url = f"https://{host}:{self.port}/dicom-web"
        own = {"authorities": self.authority.certificate, "certificate": shown.certificate, "key": shown.key}
        archive = {
            "ae_title": "PACS", "host": "pacs.clinic.example", "port": 1, "dicomweb": url,
            "send": "stow-rs", "count": "qido", "fetch": "wado-rs", "tls": {**own, **tls},
        }  # fmt: skip
        return parse({"archives": {"pacs": archive}}, "test")

    def sender(self, settings: Settings) -> Sender:
        to, known = settings.destination("pacs"), Capabilities("WETREAD", self.folder)
        return Sender(to, "WETREAD", settings.archives["pacs"], known)

    def client(self, settings: Settings) -> ArchiveClient:
        return ArchiveClient(settings.destination("pacs"), settings.archives["pacs"], "WETREAD")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    shown = authority.issue("archive")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    tls.load_cert_chain(shown.certificate, shown.key)
    tls.verify_mode = ssl.CERT_REQUIRED
    with running_orthanc(folder / "orthanc", free_ports(1)[0], dicomweb=True) as running:
        port = running.rest.base_url.port
        assert port is not None
        with Relay(port, tls=tls) as front:
            yield Secured(front.port, running, authority, folder)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Sendable]:
    folder = tmp_path_factory.mktemp("slices")
    return [sendable(ct_slice(folder / f"{number}.dcm", z=number, number=number)) for number in range(1, 4)]


def test_what_is_sent_by_stow_rs_over_https_is_listed_and_fetched_over_it(
    secured: Secured, slices: list[Sendable]
) -> None:
    settings = secured.settings()
    assert list(secured.sender(settings).send(slices)) == [Answer(file) for file in slices]
    header = pydicom.dcmread(slices[0].path)
    study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    asked, uids = secured.client(settings), [file.sop_instance_uid for file in slices]
    assert set(asked.instances(study, series)) == set(uids)
    assert asked.count(study, series) == len(slices)
    kept: list[bytes] = []
    assert asked.fetch(study, series, uids, kept.append) == len(slices)
    assert {file[-1000:] for file in kept} == {file.path.read_bytes()[-1000:] for file in slices}


def test_a_name_of_its_own_is_what_the_certificate_must_be_for(secured: Secured, slices: list[Sendable]) -> None:
    named = secured.settings("localhost", name="archive.clinic.example")
    assert list(secured.sender(named).send(slices[:1])) == [Answer(slices[0])]
    for wrong in (secured.settings("localhost"), secured.settings(name="other.clinic.example")):
        with pytest.raises(ArchiveUnavailable, match=r"name in archives\.pacs\.tls\.name what the certificate is for"):
            list(secured.sender(wrong).send(slices[:1]))
        with pytest.raises(ArchiveUnavailable, match=r"name in archives\.pacs\.tls\.name what the certificate is for"):
            secured.client(wrong).instances("1.2.3", "1.2.3.4")


def test_an_authority_that_is_not_named_is_not_trusted(secured: Secured, slices: list[Sendable]) -> None:
    foreign = secured.settings(authorities=Authority(secured.folder, "foreign").certificate)
    for act in (
        lambda: list(secured.sender(foreign).send(slices[:1])),
        lambda: list(secured.client(foreign).instances("1.2.3", "1.2.3.4")),
    ):
        with pytest.raises(ArchiveUnavailable, match=r"add the authority .* to archives\.pacs\.tls\.authorities"):
            act()


def test_without_a_certificate_of_ours_it_lets_nobody_in(secured: Secured, slices: list[Sendable]) -> None:
    bare = secured.settings(certificate=None, key=None)
    with pytest.raises(ArchiveUnavailable, match="DICOMweb"):
        list(secured.sender(bare).send(slices[:1]))
    with pytest.raises(ArchiveUnavailable, match="DICOMweb"):
        secured.client(bare).instances("1.2.3", "1.2.3.4")


def test_a_file_that_is_missing_is_named_and_what_waits_waits(secured: Secured, slices: list[Sendable]) -> None:
    missing = secured.settings(authorities=secured.folder / "nowhere.pem")
    with pytest.raises(ArchiveUnavailable, match=r"archives\.pacs\.tls\.authorities = .*nowhere"):
        list(secured.sender(missing).send(slices[:1]))
    with pytest.raises(ArchiveUnavailable, match=r"archives\.pacs\.tls\.authorities = .*nowhere"):
        secured.client(missing).instances("1.2.3", "1.2.3.4")


@pytest.mark.parametrize("commitment", ["auto", "verify"])
def test_results_of_a_node_go_by_stow_rs_and_are_verified_by_qido_rs(
    commitment: str, secured: Secured, phantom_ct: Path, tmp_path: Path
) -> None:
    shown = secured.authority.issue("node", file=f"of-node-{commitment}")
    archive: dict[str, Section] = {
        "archives.pacs": {
            "send": "stow-rs",
            "count": "no",
            "dicomweb": f"https://localhost:{secured.port}/dicom-web",
            "commitment": commitment,
        },
        "archives.pacs.tls": {
            "authorities": str(secured.authority.certificate),
            "certificate": str(shown.certificate),
            "key": str(shown.key),
            "name": "archive.clinic.example",
        },
    }
    engines = small_engines(tmp_path / "models")
    nowhere = Destination("pacs", "PACS", "127.0.0.1", free_ports(1)[0])
    with RunningNode(tmp_path, nowhere, sections={"engines": engines, **archive}) as node:
        node.send(copy_series(phantom_ct, tmp_path / "sent", MIDDLE).files)
        jobs = node.ended()
        results = node.results()
    assert [job["state"] for job in jobs if job["stage"] == "commit"] == ["done"]
    assert {result["status"] for result in results} == {"verified"}
    held = {uid for kind in ("SEG", "SR") for uid in secured.orthanc.sop_instances(kind)}
    assert {result["sop_instance_uid"] for result in results} <= held
