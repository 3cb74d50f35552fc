"""The SCU against an archive that answers whatever it is told to."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from service.deliver.association import Association
from service.deliver.scu import Answer, Sendable, echo, send, sendable, store
from service.errors import ArchiveUnavailable, Rejected
from service.types import Destination
from service.wire import Patience
from service.wire.outgoing import DataSet, FileChanged, Outgoing
from tests.ct_slice import ct_slice
from tests.raw_archive import Line, RawArchive, Request, takes_all
from tests.raw_peer import COMMAND, DATA, LAST, p_data, pdv

CT = (CTImageStorage, ExplicitVRLittleEndian)


@pytest.fixture
def slices(tmp_path: Path) -> list[Sendable]:
    return [sendable(ct_slice(tmp_path / f"{number}.dcm", z=number, number=number)) for number in range(1, 4)]


def refusals(to: Destination, files: list[Sendable]) -> list[str]:
    return [answer.refusal for answer in send(to, "WETREAD", files)]


@pytest.mark.parametrize("maximum", [0, 8, 63, 4096, 16384, 1 << 20])
def test_what_arrives_is_the_files_data_set_in_pdus_as_long_as_the_archive_takes(
    maximum: int, slices: list[Sendable]
) -> None:
    got: list[Request] = []

    def archive(line: Line) -> None:
        line.accept(maximum=maximum)
        while True:
            got.append(line.request())
            line.respond(got[-1])

    with RawArchive(archive) as running:
        files = slices[:1] if maximum == 8 else slices
        assert refusals(running.destination, files) == [""] * len(files)
    assert [(one.sop_class, one.instance) for one in got] == [(CTImageStorage, f.sop_instance_uid) for f in files]
    assert [one.data_set for one in got] == [file.path.read_bytes()[file.data_set_at :] for file in files]
    assert [one.message_id for one in got] == list(range(1, len(files) + 1))
    assert 0 < running.lines[0].longest <= (maximum or 1 << 17)
    assert running.lines[0].end == "released"


@pytest.mark.parametrize(
    ("status", "taken", "warning", "unsupported"),
    [
        (0x0000, True, "", False),
        (0xB000, True, "status 0xB000", False),
        (0xB006, True, "status 0xB006", False),
        (0x0111, True, "status 0x0111", False),
        (0xA900, False, "", False),
        (0xC000, False, "", False),
        (0x0110, False, "", False),
        (0x0122, False, "", True),
    ],
)
def test_a_status_says_what_became_of_a_file(
    status: int, taken: bool, warning: str, unsupported: bool, slices: list[Sendable]
) -> None:
    def archive(line: Line) -> None:
        line.accept()
        line.respond(line.request(), status)
        while True:
            line.respond(line.request())

    with RawArchive(archive) as running:
        first, second = send(running.destination, "WETREAD", slices[:2])
    assert (not first.refusal, first.warning, first.unsupported) == (taken, warning, unsupported)
    assert taken or f"CT Image Storage is refused by ARCHIVE with status 0x{status:04X}" == first.refusal
    assert second == Answer(slices[1])


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0213])
def test_an_archive_without_room_is_tried_again_later(status: int, slices: list[Sendable]) -> None:
    def archive(line: Line) -> None:
        line.accept()
        line.respond(line.request())
        line.respond(line.request(), status)

    with RawArchive(archive) as running:
        answers = send(running.destination, "WETREAD", slices)
        assert next(answers) == Answer(slices[0])
        with pytest.raises(ArchiveUnavailable, match=f"out of resources .0x{status:04X}"):
            next(answers)


def _another_message(line: Line, request: Request) -> None:
    line.respond(request, message_id=request.message_id + 1)


def _a_request(line: Line, request: Request) -> None:
    line.respond(request, field=0x0001)


def _another_response(line: Line, request: Request) -> None:
    line.respond(request, field=0x8030)


def _a_data_set(line: Line, request: Request) -> None:
    line.send(p_data(pdv(request.context, DATA | LAST, b"1234")))


def _rubbish(line: Line, request: Request) -> None:
    line.send(p_data(pdv(request.context, COMMAND | LAST, b"\xff" * 40)))


def _no_pdu(line: Line, request: Request) -> None:
    line.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _an_endless_one(line: Line, request: Request) -> None:
    for _ in range(100):
        line.send(p_data(pdv(request.context, COMMAND, bytes(4096))))


def _an_abort(line: Line, request: Request) -> None:
    line.send(struct.pack(">BxI2xBB", 7, 4, 2, 6))


def _a_release(line: Line, request: Request) -> None:
    line.send(bytes.fromhex("05 00 00000004 00000000"))


def _half_of_one(line: Line, request: Request) -> None:
    line.send(line.response(request)[:20])


def _nothing(line: Line, request: Request) -> None:
    pass


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_another_message, "a response to another message"),
        (_a_request, "where a response is due"),
        (_another_response, "a response to another message"),
        (_a_data_set, "no command where a response is due"),
        (_rubbish, "a command set that holds an element of another group"),
        (_no_pdu, "no PDU has the type 0x48"),
        (_an_endless_one, "of 4102 bytes|no command where a response is due"),
        (_an_abort, r"aborted by the peer \(source 2, reason 6\)"),
        (_a_release, "the peer has released it"),
        (_half_of_one, "closed by the peer"),
        (_nothing, "closed by the peer"),
    ],
)
def test_whatever_is_no_answer_ends_the_association_and_the_file_is_sent_again_later(
    wrong: Callable[[Line, Request], None], said: str, slices: list[Sendable]
) -> None:
    def archive(line: Line) -> None:
        line.accept()
        wrong(line, line.request())

    with RawArchive(archive) as running, pytest.raises(ArchiveUnavailable, match=said):
        list(send(running.destination, "WETREAD", slices))


@pytest.mark.parametrize("count", range(4))
def test_an_archive_that_hangs_up_after_any_pdu_is_unavailable(count: int, slices: list[Sendable]) -> None:
    def archive(line: Line) -> None:
        if count:
            line.accept(maximum=512)
        for _ in range(count - 1):
            line.pdu()

    with RawArchive(archive) as running, pytest.raises(ArchiveUnavailable):
        list(send(running.destination, "WETREAD", slices))


def test_an_abort_while_a_file_is_being_sent_is_told_as_one(tmp_path: Path, slices: list[Sendable]) -> None:
    large = tmp_path / "large.dcm"
    large.write_bytes(slices[0].path.read_bytes() + bytes(64 << 20))

    def archive(line: Line) -> None:
        line.accept()
        line.pdu()
        line.send(struct.pack(">BxI2xBB", 7, 4, 0, 0))
        for _ in range(500):  # as DCMTK does: it reads on for a while, then closes
            line.pdu()

    with RawArchive(archive) as running, pytest.raises(ArchiveUnavailable, match=r"aborted by the peer|reset|Broken"):
        list(send(running.destination, "WETREAD", [sendable(large)]))


def test_an_archive_that_does_not_answer_has_its_time(slices: list[Sendable]) -> None:
    def archive(line: Line) -> None:
        line.accept()
        line.request()
        line.wait()

    with RawArchive(archive) as running:
        opened = Association(running.destination, "WETREAD", [CT], Patience(1, 0.2))
        with pytest.raises(ArchiveUnavailable, match="no answer in time"):
            store(opened, running.destination, slices[0])


def test_an_archive_that_reads_nothing_has_its_time(
    tmp_path: Path, slices: list[Sendable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.wire.connection.MINIMUM_RATE", 1 << 30)
    large = tmp_path / "large.dcm"
    large.write_bytes(slices[0].path.read_bytes() + bytes(64 << 20))

    def archive(line: Line) -> None:
        line.accept()
        line.wait(reading=False)

    with RawArchive(archive) as running:
        opened = Association(running.destination, "WETREAD", [CT], Patience(1, 0.5))
        with pytest.raises(ArchiveUnavailable, match="does not read"):
            store(opened, running.destination, sendable(large))


def test_an_archive_that_says_nothing_to_the_request_has_its_time() -> None:
    def archive(line: Line) -> None:
        line.wait()

    with RawArchive(archive) as running, pytest.raises(ArchiveUnavailable, match="does not answer the request"):
        Association(running.destination, "WETREAD", [CT], Patience(0.2, 1))


@pytest.mark.parametrize(("result", "error"), [(1, Rejected), (2, ArchiveUnavailable)])
def test_a_rejection_is_for_good_or_for_now(result: int, error: type[Exception]) -> None:
    said = pytest.raises(error, match=r"rejects the association.*Calling AE title not recognised")
    with RawArchive(lambda line: line.reject(result, 1, 3)) as running, said:
        echo(running.destination, "WETREAD")


def test_what_is_refused_in_the_negotiation_is_not_sent(slices: list[Sendable]) -> None:
    got = []

    def archive(line: Line) -> None:
        line.accept(refuse=[CTImageStorage])
        got.append(line.request())

    with RawArchive(archive) as running:
        answers = list(send(running.destination, "WETREAD", slices))
    assert not got
    assert {answer.refusal for answer in answers} == {"CT Image Storage is not accepted by ARCHIVE"}
    assert all(answer.unsupported for answer in answers)


def test_a_file_that_cannot_be_read_leaves_the_association_to_the_others(slices: list[Sendable]) -> None:
    gone, others = slices[0], slices[1:]
    gone.path.unlink()
    with RawArchive(takes_all) as running, Association(running.destination, "WETREAD", [CT]) as opened:
        with pytest.raises(FileNotFoundError):
            store(opened, running.destination, gone)
        assert [opened.store(file) for file in others] == [0, 0]


def test_a_file_that_has_become_shorter_is_not_sent_as_if_it_were_whole(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(bytes(100_000))
        file.flush()
        sent = bytearray()
        with pytest.raises(FileChanged):
            Outgoing(sent.extend, 16384).message(1, b"", DataSet(file.fileno(), 0, 100_001))
        Outgoing(sent.extend, 16384).message(1, b"", DataSet(file.fileno(), 1, 99_999))
    assert len(sent) == 99_999 + 12 * -(-99_999 // 16378)


def test_a_thousand_small_files_and_no_answer_is_lost(tmp_path: Path, slices: list[Sendable]) -> None:
    files = [slices[number % 3] for number in range(1000)]
    with RawArchive(takes_all) as running:
        assert refusals(running.destination, files) == [""] * 1000
    assert len(running.lines) == 1


def test_message_ids_begin_again_after_the_last_one(slices: list[Sendable]) -> None:
    with RawArchive(takes_all) as running, Association(running.destination, "WETREAD", [CT]) as opened:
        opened._message_id = 0xFFFE
        assert [opened.store(slices[0]) for _ in range(3)] == [0, 0, 0]
        assert opened._message_id == 2
