"""DICOM TLS with DCMTK and Orthanc as senders: who gets in, who does not, and what the node says of it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from structlog.testing import capture_logs

from service.deliver.scu import echo, send, sendable
from service.errors import ArchiveUnavailable
from service.receive.listener import Listener, listeners
from service.receive.policy import AssociationPolicy
from service.settings import parse
from service.types import Destination
from tests.certificates import Authority, Issued
from tests.ct_slice import ct_slice
from tests.orthanc import running_orthanc
from tests.receiving import Kept
from tests.validators import missing
from tests.waiting import eventually


@dataclass
class Node:
    """Listens plain and with TLS; knows CT1 by its certificate, and ORTHANC as the authority lets it in."""

    plain: Listener
    tls: Listener
    kept: Kept
    authority: Authority
    events: list[MutableMapping[str, Any]]

    def event(self, name: str) -> MutableMapping[str, Any]:
        """The one event of that name, when it has come."""
        eventually(lambda: any(event["event"] == name for event in self.events), f"{name} is told")
        (event,) = [event for event in self.events if event["event"] == name]
        return event


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def node(authority: Authority, tmp_path: Path) -> Iterator[Node]:
    issued = authority.issue("node")
    settings = parse(
        {
            "node": {"ae_title": "NODE", "port": 0},
            "tls": {
                "port": 0,
                "certificate": issued.certificate,
                "key": issued.key,
                "authorities": authority.certificate,
            },
            "senders": {
                "CT1": {"archive": "pacs", "certificates": ["CN=ct1"]},
                "ORTHANC": {"archive": "pacs", "addresses": ["127.0.0.0/8"]},
            },
            "archives": {"pacs": {"ae_title": "PACS", "host": "h", "port": 104}},
        },
        "test",
    )
    kept = Kept(tmp_path)
    plain, secured = listeners(settings, AssociationPolicy(settings), kept)
    with capture_logs() as events:
        for listener in (plain, secured):
            listener.start()
        try:
            yield Node(plain, secured, kept, authority, events)
        finally:
            for listener in (plain, secured):
                listener.stop()


def dcmtk(
    program: str, port: int, *files: Path, shown: Issued | None = None, trusted: Authority | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK client as CT1: plain, anonymous by TLS (``trusted`` alone), or with a certificate."""
    options: list[str | Path] = []
    if trusted is not None:
        options = ["+tla"] if shown is None else ["+tls", shown.key, shown.certificate]
        options += ["+cf", trusted.certificate]
    command = [_dcmtk_program(program), *options, "-aet", "CT1", "-aec", "NODE", "-to", "10"]
    return subprocess.run(
        [*command, "127.0.0.1", str(port), *files], capture_output=True, text=True, timeout=60, check=False
    )


def _dcmtk_program(name: str) -> str:
    """pynetdicom has programs of the same names, beside Python."""
    beside_python = Path(sys.executable).parent
    elsewhere = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != beside_python]
    return shutil.which(name, path=os.pathsep.join(elsewhere)) or missing(f"{name} is not installed (dcmtk)")


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    large = np.random.default_rng(0).integers(0, 4096, (2000, 2000), np.uint16)  # over many TLS records and PDUs
    small = [ct_slice(tmp_path / f"{number}.dcm", z=number, number=number) for number in range(1, 5)]
    return [*small, ct_slice(tmp_path / "5.dcm", large, z=5, number=5)]


def test_dcmtk_sends_by_tls_what_is_kept_as_it_was(node: Node, slices: list[Path]) -> None:
    sent = dcmtk("storescu", node.tls.port, *slices, shown=node.authority.issue("ct1"), trusted=node.authority)
    assert sent.returncode == 0, sent.stderr
    for file in slices:
        source = pydicom.dcmread(file)
        assert pydicom.dcmread(BytesIO(node.kept.files[source.SOPInstanceUID])) == source
    eventually(lambda: node.kept.ends == ["released"], "the association is over")
    assert not any(event["log_level"] in ("warning", "error") for event in node.events)


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("plain", "the sender does not use TLS"),
        ("anonymous", "the sender shows no certificate"),
        ("expired", "the sender's certificate has expired"),
        ("foreign", "the sender's certificate is signed by an authority that is not known"),
        ("distrusting", "the sender does not trust the node's certificate"),
    ],
)
def test_who_is_not_right_is_refused_at_the_handshake(who: str, reason: str, node: Node, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "foreign")
    shown, trusted = {
        "plain": lambda: (None, None),
        "anonymous": lambda: (None, node.authority),
        "expired": lambda: (node.authority.issue("ct1", days=-1, file="old"), node.authority),
        "foreign": lambda: (foreign.issue("ct1"), node.authority),
        "distrusting": lambda: (node.authority.issue("ct1"), foreign),
    }[who]()
    asked = dcmtk("echoscu", node.tls.port, shown=shown, trusted=trusted)
    assert asked.returncode != 0
    event = node.event("tls.refused")
    assert (event["reason"], event["address"]) == (reason, "127.0.0.1")
    assert event["fix"]


def test_a_sender_with_another_ones_certificate_is_rejected_with_the_reason(node: Node) -> None:
    asked = dcmtk("echoscu", node.tls.port, shown=node.authority.issue("ct2"), trusted=node.authority)
    assert "Calling AE Title Not Recognized" in asked.stdout + asked.stderr
    event = node.event("association.rejected")
    assert event["reason"] == "senders.CT1 shows another certificate"
    assert "CN=ct2" in event["fix"]


def test_a_sender_that_needs_a_certificate_cannot_come_in_plain(node: Node) -> None:
    asked = dcmtk("echoscu", node.plain.port)
    assert "Calling AE Title Not Recognized" in asked.stdout + asked.stderr
    assert node.event("association.rejected")["reason"] == "senders.CT1 shows no certificate"


def test_silent_clients_keep_nobody_out(node: Node) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(30):
            silent.enter_context(socket.create_connection(("127.0.0.1", node.tls.port)))
        asked = dcmtk("echoscu", node.tls.port, shown=node.authority.issue("ct1"), trusted=node.authority)
        assert asked.returncode == 0, asked.stderr
        assert not any(event["event"] == "tls.refused" for event in node.events)  # they still may speak


def test_orthanc_sends_by_tls(node: Node, slices: list[Path], tmp_path: Path) -> None:
    shown = node.authority.issue("orthanc")
    modality = {"AET": "NODE", "Host": "127.0.0.1", "Port": node.tls.port, "UseDicomTls": True}
    secured = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(shown.certificate),
        "DicomTlsPrivateKey": str(shown.key),
        "DicomTlsTrustedCertificates": str(node.authority.certificate),
        "DicomModalities": {"wetread": modality},
        "LuaScripts": [],
    }
    with running_orthanc(tmp_path / "orthanc", node.tls.port, also=secured) as orthanc:
        orthanc.upload(*slices)
        orthanc.forward(pydicom.dcmread(slices[0]).StudyInstanceUID)
    assert set(node.kept.files) == {pydicom.dcmread(file).SOPInstanceUID for file in slices}


def test_results_reach_orthanc_by_tls_and_a_wrong_certificate_is_told(
    authority: Authority, slices: list[Path], tmp_path: Path
) -> None:
    shown, node = authority.issue("archive"), authority.issue("node")
    foreign = Authority(tmp_path, "foreign")
    secured = {
        "DicomTlsEnabled": True,
        "DicomTlsRemoteCertificateRequired": True,
        "DicomTlsCertificate": str(shown.certificate),
        "DicomTlsPrivateKey": str(shown.key),
        "DicomTlsTrustedCertificates": str(authority.certificate),
        "LuaScripts": [],
    }
    with running_orthanc(tmp_path / "orthanc", 104, also=secured) as orthanc:

        def archive(**tls: object) -> Destination:
            settings = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}
            if tls:
                settings["tls"] = {"certificate": node.certificate, "key": node.key, **tls}
            return parse({"archives": {"pacs": settings}}, "test").destination("pacs")

        right = archive(authorities=authority.certificate)
        answers = list(send(right, "WETREAD", [sendable(file) for file in slices]))
        assert [answer.refusal for answer in answers] == [""] * len(slices)
        assert len(orthanc.sop_instances("CT")) == len(slices)
        for wrong, said in (
            (archive(authorities=foreign.certificate), r"add the authority .* to archives\.pacs\.tls\.authorities"),
            (archive(authorities=authority.certificate, name="other"), r"name in archives\.pacs\.tls\.name"),
            (archive(), "does it want TLS"),
        ):
            with pytest.raises(ArchiveUnavailable, match=said):
                echo(wrong, "WETREAD")
        with pytest.raises(ArchiveUnavailable, match=r"archives\.pacs\.tls\.authorities = .*nowhere"):
            echo(archive(authorities=tmp_path / "nowhere"), "WETREAD")
