"""The listener over real sockets, with the real policy, intake and spool; the senders are pynetdicom and DCMTK."""

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from service.errors import ConfigurationError, OutOfResources
from service.header import HeaderFacts
from service.receive.contexts import DECODABLE
from service.receive.intake import Intake
from service.receive.listener import Listener
from service.receive.policy import AssociationPolicy
from service.settings import NodeSettings, parse
from service.spool import Spool, key_of
from service.wire import VERIFICATION
from tests.raw_peer import REJECTED, RawPeer, request
from tests.receiving import listening
from tests.waiting import eventually


@dataclass
class Noted:
    """Writes down what arrives."""

    instances: list[tuple[HeaderFacts, str]] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    full: bool = False

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        return False

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        if self.full:
            raise OutOfResources("the ledger is full")
        self.instances.append((facts, sender))

    def released(self, association: int) -> None:
        self.ended.add(association)

    def aborted(self, association: int) -> None:
        if association not in self.ended:
            self.lost.add(association)


@dataclass
class Running:
    receiver: Listener
    spool: Spool
    noted: Noted
    outcomes: Counter[str]

    def associate(self, *contexts: tuple[str, str], calling: str = "SCANNER", called: str = "NODE") -> Association:
        ae = AE(calling)
        ae.add_requested_context(VERIFICATION)
        for sop_class, syntax in contexts:
            ae.add_requested_context(sop_class, syntax)
        return ae.associate("127.0.0.1", self.receiver.port, ae_title=called)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    settings = parse(
        {
            "node": {"ae_title": "NODE", "port": 0},
            "senders": {"SCANNER": {"archive": "a"}},
            "archives": {"a": {"ae_title": "A", "host": "127.0.0.1", "port": 104}},
        },
        "test",
    )
    spool, noted, outcomes = Spool(tmp_path), Noted(), Counter[str]()
    intake = Intake(spool, lambda outcome: outcomes.update([outcome]))
    intake.tell(noted)
    receiver = Listener(settings, AssociationPolicy(settings), intake)
    receiver.start()
    yield Running(receiver, spool, noted, outcomes)
    receiver.stop()


def send(running: Running, file: Path) -> int:
    header = pydicom.dcmread(file, stop_before_pixels=True)
    association = running.associate((header.SOPClassUID, header.file_meta.TransferSyntaxUID))
    assert association.is_established
    _config.STORE_SEND_CHUNKED_DATASET = True  # the file as it is, its command from the file meta information
    status = int(association.send_c_store(file).Status)
    association.release()
    return status


def test_an_acknowledged_instance_is_in_the_spool_with_its_data_set_unchanged(
    running: Running, phantom_xray: Path
) -> None:
    (file,) = phantom_xray.iterdir()
    assert send(running, file) == 0x0000
    source = pydicom.dcmread(file)
    path = running.spool.instance_path(
        key_of(source.StudyInstanceUID, source.SeriesInstanceUID), key_of(source.SOPInstanceUID)
    )
    assert data_set_of(path) == data_set_of(file)
    assert [(facts.sop_instance_uid, sender) for facts, sender in running.noted.instances] == [
        (source.SOPInstanceUID, "SCANNER")
    ]


def data_set_of(path: Path) -> bytes:
    """The bytes after the file meta information."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # value of (0002,0000) after preamble, prefix, tag, VR, length
    return content[144 + length :]


def test_an_unknown_calling_ae_title_is_rejected(running: Running) -> None:
    assert rejection(running.receiver.port, "STRANGER", "NODE") == (1, 1, 3)
    assert rejection(running.receiver.port, "SCANNER", "OTHER") == (1, 1, 7)


def rejection(port: int, calling: str, called: str) -> tuple[int, ...]:
    """Result, source and reason; pynetdicom as a sender at times does not notice a rejection that comes at once."""
    context = build_context(VERIFICATION)
    context.context_id = 1
    with RawPeer(port) as peer:
        peer.send(request([context], calling, called))
        kind, content = peer.receive()
        assert kind == REJECTED
        return tuple(content[1:])


def test_without_any_sender_nobody_gets_in(tmp_path: Path) -> None:
    settings = parse({"node": {"ae_title": "NODE", "port": 0}}, "test")
    receiver = Listener(settings, AssociationPolicy(settings), Intake(Spool(tmp_path), lambda _: None))
    receiver.start()
    try:
        assert rejection(receiver.port, "ANYBODY", "NODE") == (1, 1, 3)
    finally:
        receiver.stop()


@pytest.mark.parametrize(("fetch", "accepted"), [("c-move", True), ("c-get", False), ("no", False)])
def test_an_archive_may_send_where_it_is_asked_to_by_c_move(fetch: str, accepted: bool, tmp_path: Path) -> None:
    archive = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "fetch": fetch}
    settings = {
        "node": {"ae_title": "NODE", "port": 0},
        "senders": {"CT": {"archive": "a"}},
        "archives": {"a": archive},
    }
    spool = Spool(tmp_path)
    parsed = parse(settings, "test")
    receiver = Listener(parsed, AssociationPolicy(parsed), Intake(spool, lambda _: None))
    receiver.start()
    try:
        running = Running(receiver, spool, Noted(), Counter())
        for title, known in (("PACS", accepted), ("CT", True), ("OTHER", False)):
            association = running.associate(calling=title)
            assert association.is_established == known, title
            if known:
                association.release()
    finally:
        receiver.stop()


def test_an_echo_is_answered(running: Running) -> None:
    association = running.associate()
    assert association.send_c_echo().Status == 0
    association.release()


def test_an_unsupported_sop_class_is_refused_and_the_others_go_on(running: Running, phantom_ct: Path) -> None:
    file = sorted(phantom_ct.iterdir())[0]
    ct, mr = pydicom.dcmread(file), "1.2.840.10008.5.1.4.1.1.4"
    association = running.associate((mr, DECODABLE[0]), (ct.SOPClassUID, DECODABLE[0]))
    assert [context.abstract_syntax for context in association.rejected_contexts] == [mr]
    assert association.send_c_store(ct).Status == 0
    association.release()


def test_an_instance_whose_header_says_otherwise_than_the_command_is_refused(
    running: Running, phantom_xray: Path, tmp_path: Path
) -> None:
    (file,) = phantom_xray.iterdir()
    uid = pydicom.dcmread(file).SOPInstanceUID.encode()
    other = uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2")
    (tmp_path / "lying.dcm").write_bytes(file.read_bytes().replace(uid, other, 1))  # in the file meta information only
    assert send(running, tmp_path / "lying.dcm") == 0xA900
    assert running.outcomes == {"refused": 1}
    assert running.noted.instances == []


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_instance_without_its_uids_is_kept_in_quarantine(
    name: str, running: Running, phantom_xray: Path, tmp_path: Path
) -> None:
    (file,) = phantom_xray.iterdir()
    data_set = pydicom.dcmread(file)
    setattr(data_set, name, "")
    data_set.save_as(tmp_path / "nameless.dcm")
    assert send(running, tmp_path / "nameless.dcm") == 0x0000
    (entry,) = running.spool.quarantined()
    assert entry.reason.startswith(f"{name} missing or empty")
    assert data_set_of(running.spool.root / entry.path) == data_set_of(tmp_path / "nameless.dcm")


def test_the_same_uid_with_other_content_goes_to_quarantine_beside_the_first(
    running: Running, phantom_xray: Path, tmp_path: Path
) -> None:
    (file,) = phantom_xray.iterdir()
    data_set = pydicom.dcmread(file)
    data_set.InstanceNumber = 99
    data_set.save_as(tmp_path / "other.dcm")
    assert [send(running, each) for each in (file, file, tmp_path / "other.dcm", file)] == [0, 0, 0, 0]
    assert running.outcomes == {"new": 1, "duplicate": 2, "beside": 1}
    assert len(running.noted.instances) == 4
    (entry,) = running.spool.quarantined()
    assert entry.reason.startswith("another instance came first under the same SOP Instance UID")
    assert data_set_of(running.spool.root / entry.path) == data_set_of(tmp_path / "other.dcm")
    series = key_of(data_set.StudyInstanceUID, data_set.SeriesInstanceUID)
    assert [data_set_of(path) for path in running.spool.instances(series)] == [data_set_of(file)]


def test_what_cannot_be_written_down_is_not_acknowledged(running: Running, phantom_xray: Path) -> None:
    (file,) = phantom_xray.iterdir()
    running.noted.full = True
    assert send(running, file) == 0xA700
    running.noted.full = False
    assert send(running, file) == 0x0000
    assert len(running.noted.instances) == 1


def test_a_release_is_told_from_an_abort_and_from_a_lost_connection(running: Running) -> None:
    for _ in range(20):
        running.associate().release()
    running.associate().abort()
    lost = running.associate()
    assert lost.dul.socket is not None
    assert lost.dul.socket.socket is not None
    lost.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    eventually(lambda: len(running.noted.ended) + len(running.noted.lost) == 22, "all associations have ended")
    assert (len(running.noted.ended), len(running.noted.lost)) == (20, 2)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_every_address_of_both_kinds_may_be_listened_on(tmp_path: Path) -> None:
    with listening(tmp_path, host="::") as node:
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, node.port), timeout=10) as peer:
                peer.sendall(b"GET / HTTP/1.1")
                assert peer.recv(10)[0] == 0x07, "an A-ABORT: it speaks DICOM"


def test_a_port_that_is_taken_is_told_with_its_key(tmp_path: Path) -> None:
    with (
        listening(tmp_path) as node,
        pytest.raises(ConfigurationError, match=f"node.port = {node.port}: cannot listen on 127.0.0.1"),
        listening(tmp_path, port=node.port),
    ):
        pass


def test_defaults_listen_on_this_machine_only() -> None:
    assert NodeSettings().host == "127.0.0.1"
    assert not NodeSettings().accept_unknown_senders
