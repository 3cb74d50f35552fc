"""Results go to an archive by STOW-RS: a real Orthanc, and one that answers whatever a test wants."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest

from service.archive.client import ArchiveClient
from service.deliver.capabilities import Capabilities
from service.deliver.scu import Answer, Sendable, sendable
from service.deliver.sender import Sender
from service.deliver.stow import MultipartBody, StowRs
from service.errors import ArchiveUnavailable, ConfigurationError, Rejected
from service.settings import Settings, parse
from service.wire import Patience
from tests.ct_slice import ct_slice
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import free_ports

USER, PASSWORD = "wetread", "a long passcode"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), free_ports(1)[0], dicomweb=True) as running:
        yield running


@pytest.fixture
def slices(tmp_path: Path) -> list[Sendable]:
    return [sendable(ct_slice(tmp_path / f"{number}.dcm", z=number, number=number)) for number in range(1, 4)]


def settings_of(url: str, **archive: object) -> Settings:
    where = {"ae_title": "PACS", "host": "127.0.0.1", "port": 1, "send": "stow-rs", "dicomweb": url}
    return parse({"archives": {"pacs": {**where, **archive}}}, "test")


def sender_to(url: str, folder: Path, **archive: object) -> Sender:
    settings = settings_of(url, **archive)
    to, known = settings.destination("pacs"), Capabilities("WETREAD", folder)
    return Sender(to, "WETREAD", settings.archives["pacs"], known)


def test_files_reach_orthanc_bit_for_bit(orthanc: Orthanc, slices: list[Sendable], tmp_path: Path) -> None:
    answers = list(sender_to(f"{orthanc.dicomweb}/", tmp_path).send(slices))
    assert answers == [Answer(file) for file in slices]
    study = str(pydicom.dcmread(slices[0].path).StudyInstanceUID)
    kept = [orthanc.fetch(one, tmp_path / f"kept{one}.dcm") for one in orthanc.instances(study)]
    assert {file.read_bytes()[sendable(file).data_set_at :] for file in kept} == {
        file.path.read_bytes()[file.data_set_at :] for file in slices
    }


def test_what_orthanc_cannot_read_is_refused_while_the_others_are_taken(
    orthanc: Orthanc, slices: list[Sendable], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(slices[0].path.read_bytes()[: slices[0].data_set_at] + b"rubbish")
    odd = Sendable(broken, *slices[0].storage[:1], "1.2.3", slices[0].transfer_syntax_uid, slices[0].data_set_at)
    with pytest.raises((Rejected, ArchiveUnavailable)):
        list(sender_to(orthanc.dicomweb, tmp_path).send([odd]))


@dataclass
class WebArchive:
    """Answers each POST with a status and a body."""

    answer: Callable[[], tuple[int, object]]
    requests: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def web_archive(code: int, body: object = None) -> Iterator[WebArchive]:
    archive = WebArchive(lambda: (code, body))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            archive.requests.append((self.path, dict(self.headers.items()), content))
            status, body = archive.answer()
            answer = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            archive.requests.append((self.path, dict(self.headers.items()), b""))
            self.send_response(archive.answer()[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()


def told(stored: Mapping[str, int | None] | None = None, failed: Mapping[str, int] | None = None) -> object:
    """The answer of PS3.18 I.2.2: SOP Instance UIDs that were stored, some with a warning, and those that were not."""

    def items(values: Mapping[str, int | None], reason: str) -> dict[str, object]:
        found = []
        for uid, value in values.items():
            item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
            if value is not None:
                item[reason] = {"vr": "US", "Value": [value]}
            found.append(item)
        return {"vr": "SQ", "Value": found}

    answer = {}
    if stored:
        answer["00081199"] = items(stored, "00081196")
    if failed:
        answer["00081198"] = items(dict(failed), "00081197")
    return answer


def test_the_answer_tells_of_each_file(slices: list[Sendable], tmp_path: Path) -> None:
    first, second, third = (file.sop_instance_uid for file in slices)
    with web_archive(202, told({first: None, second: 0xB000}, {third: 0xC000})) as archive:
        answers = list(sender_to(archive.url, tmp_path).send(slices))
    assert [(bool(one.refusal), one.warning) for one in answers] == [(False, ""), (False, "status 0xB000"), (True, "")]
    assert answers[2].refusal == "CT Image Storage is refused by pacs with status 0xC000"
    ((path, headers, body),) = archive.requests
    assert path == "/dicom-web/studies"
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert all(file.path.read_bytes() in body for file in slices)


@pytest.mark.parametrize(("reason", "unsupported"), [(0x0122, True), (0xC122, True), (0xA900, False), (0x0110, False)])
def test_a_refused_kind_is_told_from_a_refused_object(
    reason: int, unsupported: bool, slices: list[Sendable], tmp_path: Path
) -> None:
    with web_archive(409, told(failed={slices[0].sop_instance_uid: reason})) as archive:
        (answer,) = sender_to(archive.url, tmp_path).send(slices[:1])
    assert answer.unsupported is unsupported
    assert f"status 0x{reason:04X}" in answer.refusal


def test_what_it_has_already_counts_as_taken(slices: list[Sendable], tmp_path: Path) -> None:
    with web_archive(409, told(failed={slices[0].sop_instance_uid: 0x0111})) as archive:
        (answer,) = sender_to(archive.url, tmp_path).send(slices[:1])
    assert (answer.refusal, answer.warning) == ("", "status 0x0111")


@pytest.mark.parametrize(
    ("code", "body", "error", "said"),
    [
        (503, b"", ArchiveUnavailable, "answers with 503"),
        (500, b"<html>", ArchiveUnavailable, "answers with 500"),
        (429, b"", ArchiveUnavailable, "answers with 429"),
        (401, b"", ArchiveUnavailable, "correct dicomweb_token or dicomweb_user of archives.pacs"),
        (403, b"", ArchiveUnavailable, "correct dicomweb_token"),
        (404, b"", Rejected, "must be the base URL"),
        (501, b"", Rejected, "must be the base URL"),
        (415, b"", Rejected, "must be the base URL"),
        (302, b"", Rejected, "must be the base URL"),
        (202, b"", ArchiveUnavailable, "does not say"),
        (200, b'{"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}', ArchiveUnavailable, "does not say"),
        (202, b"[1, 2]", ArchiveUnavailable, "does not say"),
        (202, b'{"00081199": {"Value": "x"}, "00081198": []}', ArchiveUnavailable, "does not say"),
    ],
)
def test_an_answer_as_a_whole_says_whether_to_try_again(
    code: int, body: bytes, error: type[Exception], said: str, slices: list[Sendable], tmp_path: Path
) -> None:
    with web_archive(code, body) as archive, pytest.raises(error, match=said):
        list(sender_to(archive.url, tmp_path).send(slices))


def test_no_room_is_for_now(slices: list[Sendable], tmp_path: Path) -> None:
    without_room = told(failed={slices[0].sop_instance_uid: 0xA700})
    said = pytest.raises(ArchiveUnavailable, match=r"out of resources \(0xA700\)")
    with web_archive(409, without_room) as archive, said:
        list(sender_to(archive.url, tmp_path).send(slices[:1]))


@pytest.mark.parametrize("body", [b"", b"<xml/>", b"null"])
def test_200_is_enough_without_a_word(body: bytes, slices: list[Sendable], tmp_path: Path) -> None:
    with web_archive(200, body) as archive:
        assert list(sender_to(archive.url, tmp_path).send(slices)) == [Answer(file) for file in slices]


def test_one_that_is_not_there_is_unavailable(slices: list[Sendable], tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable, match=r"start it, or correct archives\.pacs\.dicomweb"):
        list(sender_to(f"http://127.0.0.1:{free_ports(1)[0]}", tmp_path).send(slices))


@pytest.mark.parametrize(
    ("shown", "header"),
    [
        ({}, None),
        ({"dicomweb_token": "abc"}, "Bearer abc"),
        ({"dicomweb_user": USER, "dicomweb_password": PASSWORD}, "Basic d2V0cmVhZDphIGxvbmcgcGFzc2NvZGU="),
    ],
)
def test_it_shows_who_asks(
    shown: Mapping[str, str], header: str | None, slices: list[Sendable], tmp_path: Path
) -> None:
    with web_archive(200) as archive:
        list(sender_to(archive.url, tmp_path, **shown).send(slices[:1]))
    assert archive.requests[0][1].get("Authorization") == header
    secrets = {value for key, value in shown.items() if key != "dicomweb_user"}
    assert not any(secret in repr(settings_of(archive.url, **shown).destination("pacs")) for secret in secrets)


def test_the_same_is_shown_when_it_is_asked(tmp_path: Path) -> None:
    with web_archive(204) as archive:
        settings = settings_of(archive.url, count="qido", dicomweb_token="abc")
        client = ArchiveClient(settings.destination("pacs"), settings.archives["pacs"], "WETREAD")
        assert client.count("1.2.3", "1.2.3.4") is None
    assert archive.requests[0][1]["Authorization"] == "Bearer abc"


@pytest.mark.parametrize(("code", "ok"), [(200, True), (204, True), (401, False), (503, False)])
def test_check_tells_whether_dicomweb_lets_this_node_in(code: int, ok: bool) -> None:
    with web_archive(code) as archive:
        to = settings_of(archive.url).destination("pacs")
        assert to.web is not None
        way = StowRs(to.name, to.web, to.tls, Patience(1, 1))
        with nullcontext() if ok else pytest.raises(ArchiveUnavailable, match=str(code)):
            way.require_open()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dicomweb": ""}, "needs it"),
        ({"dicomweb_user": USER}, "go together"),
        ({"dicomweb_user": USER, "dicomweb_password": PASSWORD, "dicomweb_token": "abc"}, "exclude each other"),
        ({"dicomweb_token": ["a secret"]}, "dicomweb_token: "),
    ],
)
def test_wrong_settings_are_told_without_their_secrets(wrong: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as told_of:
        settings_of("http://h", **wrong)
    assert "secret" not in str(told_of.value)
    assert PASSWORD not in str(told_of.value)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_before_is_not_sent_as_if_it_were_whole(
    change: int, slices: list[Sendable]
) -> None:
    body = MultipartBody(slices)
    assert body.length == len(b"".join(body.chunks()))
    content = slices[1].path.read_bytes()
    slices[1].path.write_bytes(content[:-1] if change < 0 else content + b"0")
    with pytest.raises(OSError, match="another length"):
        list(body.chunks())
