"""STOW-RS over real sockets: what is kept, what is answered, and what hostile requests come to."""

import json
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pydicom
import pytest
import structlog
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from service.errors import OutOfResources
from service.header import HeaderFacts
from service.receive import upload
from service.receive.intake import Intake
from service.receive.policy import Seat, Seats
from service.receive.stow import MOST_OTHERS, Stow
from service.receive.tls import Tls
from service.settings import Settings, parse
from service.spool import Spool
from tests.ct_slice import ct_slice
from tests.waiting import eventually

TOKEN = "0123456789abcdef0123456789abcdef"
KEEPS, REFUSES, OTHERS = "00081199", "00081198", "0008119A"


@dataclass
class Noted:
    arrived_from: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    full: bool = False

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        return False

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        if self.full:
            raise OutOfResources("the ledger is full")
        self.arrived_from.append(sender)

    def released(self, association: int) -> None:
        self.ended.append("released")

    def aborted(self, association: int) -> None:
        self.ended.append("aborted")


@dataclass
class Door:
    url: str
    spool: Spool
    noted: Noted
    outcomes: Counter[str]

    def post(
        self,
        content: bytes | Iterable[bytes],
        study: str = "",
        headers: Mapping[str, str] | None = None,
        content_type: str = 'multipart/related; type="application/dicom"; boundary=b',
        token: str = TOKEN,
    ) -> httpx.Response:
        standard = {"Content-Type": content_type, "Authorization": f"Bearer {token}"}
        url = f"{self.url}/studies" + (f"/{study}" if study else "")
        return httpx.post(url, content=content, headers=standard | dict(headers or {}), trust_env=False, timeout=30)

    def stored(self) -> list[bytes]:
        return sorted(path.read_bytes()[128:] for path in (self.spool.root / "series").glob("*/*.dcm"))

    def raw(self, head: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), 10)
        connection.sendall(head)
        return connection


def contexts(settings: Settings) -> Callable[[], ssl.SSLContext]:
    tls = Tls(settings.tls)
    return lambda: tls.context


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    started = []

    def start(
        sender: Mapping[str, object] | None = None,
        tls: Mapping[str, object] | None = None,
        seats: Seats | None = None,
        **stow: object,
    ) -> Door:
        settings = parse(
            {
                "senders": {"SCANNER": {"archive": "a"} | dict(sender or {})},
                "archives": {"a": {"ae_title": "A", "host": "127.0.0.1", "port": 104}},
                "stow": {"port": 0, "tokens": {"SCANNER": TOKEN}, "tls": tls is not None} | stow,
                "tls": tls or {},
            },
            "test",
        )
        spool, noted, outcomes = Spool(tmp_path / "spool"), Noted(), Counter[str]()
        intake = Intake(spool, lambda outcome: outcomes.update([outcome]))
        intake.tell(noted)
        stow_rs = Stow(settings, intake, seats or Seats.of(settings.node))
        server = stow_rs.server(contexts(settings) if tls else None)
        server.start()
        started.append(server)
        return Door(f"http://127.0.0.1:{server.port}", spool, noted, outcomes)

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door()


HEAD = (
    b"POST /studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n"
    b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n' % TOKEN.encode()
)
"""Of a request whose body follows in chunks."""


def body(*contents: bytes, header: bytes = b"Content-Type: application/dicom\r\n", end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n%s\r\n%s\r\n" % (header, content) for content in contents) + end


@pytest.fixture
def slices(tmp_path: Path) -> list[bytes]:
    return [ct_slice(tmp_path / f"slice{z}", z=float(z), number=z).read_bytes() for z in range(1, 5)]


def reasons(answer: httpx.Response, sequence: str = REFUSES) -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.json().get(sequence, {}).get("Value", [])]


def told(answer: httpx.Response, sequence: str = KEEPS) -> list[str]:
    return [item["00081155"]["Value"][0] for item in answer.json().get(sequence, {}).get("Value", [])]


def changed(content: bytes, **attributes: str) -> bytes:
    """The same with another data set, under the same file meta information."""
    data_set, file = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)), pydicom.filebase.DicomBytesIO()
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    data_set.save_as(file)
    return bytes(file.getvalue())


def uid_of(content: bytes) -> str:
    return str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).SOPInstanceUID)


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_all_instances_of_a_request_are_kept_bit_for_bit_and_named_in_the_answer(
    door: Door, slices: list[bytes]
) -> None:
    answer = door.post(body(*slices))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert told(answer) == [uid_of(content) for content in slices]
    assert answer.json()["00081190"] == {"vr": "UR"}
    assert set(answer.json()) == {"00081190", KEEPS}
    assert door.stored() == sorted(content[128:] for content in slices)
    assert (door.noted.arrived_from, door.noted.ended) == (["SCANNER"] * 4, ["released"])
    assert door.outcomes == {"new": 4}


def test_an_answer_in_xml_where_only_that_will_do(door: Door, slices: list[bytes]) -> None:
    answer = door.post(body(*slices[:2], b"no DICOM"), headers={"Accept": "application/dicom+xml"})
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/dicom+xml")
    root = ElementTree.fromstring(answer.text)
    space = {"n": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
    kept = root.findall("n:DicomAttribute[@keyword='ReferencedSOPSequence']/n:Item", space)
    assert [item.get("number") for item in kept] == ["1", "2"]
    named = kept[1].find("n:DicomAttribute[@tag='00081155']/n:Value", space)
    assert named is not None
    assert named.text == uid_of(slices[1])
    reason = root.find("n:DicomAttribute[@tag='0008119A']//n:DicomAttribute[@tag='00081197']/n:Value", space)
    assert reason is not None
    assert reason.text == str(0xC000)


def test_some_kept_and_some_not_is_202_and_each_has_its_reason(door: Door, slices: list[bytes]) -> None:
    magnetic = changed(slices[1], SOPClassUID=MRImageStorage).replace(
        CTImageStorage.encode(), MRImageStorage.encode(), 1
    )
    unknown = slices[2].replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.9.9.9\0", 1)
    differs = changed(slices[3], SOPInstanceUID="1.2.3.4.5")
    answer = door.post(body(slices[0], magnetic, unknown, b"", b"no DICOM", differs))
    assert answer.status_code == 202
    assert told(answer) == [uid_of(slices[0])]
    assert (reasons(answer), reasons(answer, OTHERS)) == ([0x0122, 0xC122, 0xA900], [0xC000, 0xC000])
    assert door.outcomes["refused"] == 5
    assert len(door.stored()) == 1


def test_a_request_of_which_nothing_is_kept_is_409(door: Door) -> None:
    answer = door.post(body(b"no DICOM"))
    assert (answer.status_code, reasons(answer, OTHERS)) == (409, [0xC000])
    assert not door.stored()


def test_a_study_in_the_url_is_the_only_one_that_is_taken(door: Door, slices: list[bytes]) -> None:
    study = str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(slices[0])).StudyInstanceUID)
    assert door.post(body(slices[0]), study=study).status_code == 200
    answer = door.post(body(slices[1]), study="1.2.3.99")
    assert (answer.status_code, reasons(answer)) == (409, [0xA901])
    assert door.post(body(slices[1]), study="not-a-uid").status_code == 400
    assert len(door.stored()) == 1


def test_an_instance_that_comes_again_is_acknowledged_and_kept_once(door: Door, slices: list[bytes]) -> None:
    assert door.post(body(slices[0], slices[0])).status_code == 200
    assert door.post(body(slices[0])).status_code == 200
    assert door.outcomes == {"new": 1, "duplicate": 2}


def test_a_preamble_that_could_be_a_program_is_emptied(door: Door, slices: list[bytes]) -> None:
    program = b"MZ" + b"\x90" * 126 + slices[0][128:]
    assert door.post(body(program)).status_code == 200
    [path] = (door.spool.root / "series").glob("*/*.dcm")
    assert b"\x90" * 8 not in path.read_bytes()[:128]


def test_a_node_without_room_answers_503_and_keeps_count_of_nobody(door: Door, slices: list[bytes]) -> None:
    door.noted.full = True
    answer = door.post(body(*slices))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert reasons(answer) == [0xA700] * 4
    door.noted.full = False
    assert door.post(body(*slices)).status_code == 200


def test_a_large_instance_goes_to_a_file_and_comes_out_the_same(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "IN_MEMORY", 1 << 16)
    monkeypatch.setattr(upload, "WRITTEN_AT_ONCE", 1 << 16)
    values = pydicom.pixels.utils.np.arange(1 << 19, dtype="u2").reshape(1024, 512)
    contents = [ct_slice(tmp_path / f"large{z}", values, z=float(z), number=z).read_bytes() for z in (1, 2)]
    answer = door.post(body(*contents))
    assert (answer.status_code, door.stored()) == (200, sorted(content[128:] for content in contents))
    assert not list((door.spool.root / "incoming").iterdir())


# ---- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_without_its_token_nobody_is_heard(door: Door, slices: list[bytes], authorization: str) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = door.post(body(*slices), headers={"Authorization": authorization})
    assert (answer.status_code, answer.headers["www-authenticate"], answer.content) == (401, "Bearer", b"")
    assert (door.stored(), door.noted.ended) == ([], [])
    assert [event["event"] for event in logs] == ["stow.refused"]
    assert "wrong" not in str(logs)


def test_a_sender_sends_only_from_its_addresses(open_door: Callable[..., Door], slices: list[bytes]) -> None:
    assert open_door(sender={"addresses": ["10.0.0.0/8"]}).post(body(*slices)).status_code == 401
    assert open_door(sender={"addresses": ["127.0.0.0/8"]}).post(body(*slices)).status_code == 200


def test_tokens_are_in_no_error_and_no_settings_shown(tmp_path: Path) -> None:
    for tokens in ({"NOBODY": TOKEN}, {"SCANNER": "short-secret"}, {"SCANNER": ["secret"]}):
        with pytest.raises(Exception, match=r"stow\.tokens") as caught:
            parse(
                {
                    "senders": {"SCANNER": {"archive": "a"}},
                    "archives": {"a": {"ae_title": "A", "host": "h", "port": 1}},
                    "stow": {"tokens": tokens},
                },
                "test",
            )
        assert "secret" not in str(caught.value)
        assert TOKEN not in str(caught.value)


def make_certificate(folder: Path, name: str, authority: str = "") -> None:
    """With openssl, as an operator would."""
    key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    key += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    key += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
    key += ["-CA", f"{folder}/{authority}.pem", "-CAkey", f"{folder}/{authority}.key"] if authority else []
    subprocess.run(key, check=True, capture_output=True)


def test_over_https_a_certificate_says_who_sends(
    open_door: Callable[..., Door], slices: list[bytes], tmp_path: Path
) -> None:
    for name in ("authority", "node", "ct1", "ct2"):
        make_certificate(tmp_path, name, "" if name == "authority" else "authority")
    authority = tmp_path / "authority.pem"
    tls = {"certificate": f"{tmp_path}/node.pem", "key": f"{tmp_path}/node.key", "authorities": str(authority)}
    door = open_door(tls=tls, sender={"certificates": ["CN=ct1"]})

    def post(certificate: str, **headers: str) -> int:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(tmp_path / f"{certificate}.pem", tmp_path / f"{certificate}.key")
        with httpx.Client(verify=context, trust_env=False) as client:
            headers["Content-Type"] = 'multipart/related; type="application/dicom"; boundary=b'
            url = door.url.replace("http", "https") + "/studies"
            return client.post(url, content=body(*slices), headers=headers).status_code

    assert post("ct1") == 200
    assert door.noted.arrived_from == ["SCANNER"] * 4
    assert post("ct2") == 401
    assert post("ct2", Authorization=f"Bearer {TOKEN}") == 401, "the token of a sender that has certificates needs one"
    assert post("ct1", Authorization=f"Bearer {TOKEN}") == 200

    def shown() -> bytes | None:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(tmp_path / "ct1.pem", tmp_path / "ct1.key")
        with context.wrap_socket(door.raw(b""), server_hostname="127.0.0.1") as connection:
            return connection.getpeercert(binary_form=True)

    before = shown()
    make_certificate(tmp_path, "node", "authority")
    assert shown() not in (before, None), "a renewed certificate is shown without a restart"
    assert post("ct1") == 200
    with pytest.raises(httpx.TransportError):
        httpx.post(door.url.replace("http", "https") + "/studies", verify=False, trust_env=False)


def test_a_request_has_a_seat_as_an_association_has_and_where_there_is_none_it_is_told_to_come_again(
    open_door: Callable[..., Door], slices: list[bytes]
) -> None:
    seats = Seats(2, 1)
    door = open_door(seats=seats)

    def refusal() -> str:
        with structlog.testing.capture_logs() as events:
            answer = door.post(body(*slices))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        return str(events[-1]["reason"])

    begun = body(*slices[:2], end=b"")
    with door.raw(HEAD + b"%x\r\n%s\r\n" % (len(begun), begun)):
        eventually(door.stored, "the first request has its seat")
        assert refusal().startswith("this sender has 1 associations already; the sender tries again")
    eventually(lambda: "aborted" in door.noted.ended, "the first request has ended")
    association, other = seats.take("CT1"), seats.take("CT2")
    assert isinstance(association, Seat)
    assert isinstance(other, Seat)
    assert refusal().startswith("there are 2 associations already")
    with association, other:
        pass
    for _ in range(3):
        assert door.post(body(*slices)).status_code == 200
    assert len(door.stored()) == 4


# ---- hostile requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/dicom", 415),
        ("", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b', 415),
        ('multipart/related; type="application/dicom"', 400),
        ("multipart/form-data; boundary=b", 415),
    ],
)
def test_other_media_types_and_no_boundary(door: Door, slices: list[bytes], content_type: str, status: int) -> None:
    assert door.post(body(*slices), content_type=content_type).status_code == status
    assert not door.stored()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"--b--", 400),
        (b"x" * 100_000, 400),
        (b"--b\r\nA: " + b"x" * 100_000, 400),
        (body(b"x", header=b"Content-Type: image/png\r\n"), 415),
        (body(b"x" * 3_000_000), 413),
        (body(*[b""] * 10_000), 400),
    ],
    ids=["nothing", "no part", "endless preamble", "endless header", "other parts", "too large", "10,000 empty parts"],
)
def test_bodies_that_are_none(open_door: Callable[..., Door], content: bytes, status: int) -> None:
    door = open_door(largest_mb=2)
    answer = door.post(content)
    assert answer.status_code == status
    assert len(answer.content) < 200 * MOST_OTHERS
    assert not door.stored()
    assert not list((door.spool.root / "incoming").iterdir())


def test_of_a_body_that_breaks_off_what_was_whole_is_kept_and_the_answer_says_so(
    door: Door, slices: list[bytes]
) -> None:
    answer = door.post(body(*slices[:2], end=b"") + b"--b\r\n\r\n" + slices[2][:1000])
    assert (answer.status_code, told(answer), reasons(answer, OTHERS)) == (
        202, [uid_of(content) for content in slices[:2]], [0xC000],
    )  # fmt: skip
    assert door.stored() == sorted(content[128:] for content in slices[:2])
    assert door.noted.ended == ["aborted"]


def test_a_sender_that_leaves_in_the_middle_leaves_what_was_whole(door: Door, slices: list[bytes]) -> None:
    head = (
        b"POST /studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\n"
        b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n' % TOKEN.encode()
    )
    connection = door.raw(head + body(slices[0], end=b"") + b"--b\r\n\r\n" + slices[1][:1000])
    eventually(lambda: door.outcomes["new"] == 1, "the first is kept")
    connection.close()
    eventually(lambda: door.noted.ended == ["aborted"], "its end is told")
    assert len(door.stored()) == 1


def test_who_is_silent_is_given_up_and_blocks_nobody(
    open_door: Callable[..., Door], slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.web.REQUEST_SECONDS", 0.5)
    door = open_door(idle_seconds=0.5, longest_seconds=2.0, maximum_connections=60)
    silent = [door.raw(b"") for _ in range(20)]
    begun = [door.raw(b"POST /stud") for _ in range(20)]
    stalled = door.raw(HEAD)
    dripping = door.raw(HEAD)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.1):
            try:
                dripping.sendall(b"1\r\nx\r\n")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    assert door.post(body(*slices)).status_code == 200
    assert time.monotonic() - began < 5
    assert b"408" in stalled.recv(1000)
    assert b"408" in dripping.recv(1000)
    assert [connection.recv(1000) for connection in (*silent, *begun)] == [b""] * 40
    stop.set()
    thread.join()


def test_an_endless_upload_takes_no_memory(open_door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "IN_MEMORY", 1 << 20)
    monkeypatch.setattr(upload, "WRITTEN_AT_ONCE", 1 << 20)
    door = open_door(largest_mb=64)

    def endless() -> Iterator[bytes]:
        yield b"--b\r\n\r\n"
        for _ in range(80):
            yield b"x" * (1 << 20)

    tracemalloc.start()
    try:
        status = door.post(endless()).status_code
        assert status == 413
    except httpx.WriteError:  # it may see the connection end before it sees the answer
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 24 << 20
    eventually(lambda: not list((door.spool.root / "incoming").iterdir()), "nothing is left of it")


def test_answers_and_log_say_nothing_of_a_patient(door: Door, slices: list[bytes]) -> None:
    content = changed(slices[0], PatientName="SECRET^PATIENT")
    with structlog.testing.capture_logs() as logs:
        answer = door.post(body(content, b"SECRET^PATIENT", slices[1].replace(b"1.2.3", b"9.9.9")))
    assert "SECRET" not in answer.text + json.dumps(logs, default=str)
