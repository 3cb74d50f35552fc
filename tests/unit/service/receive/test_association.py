"""One association, byte by byte: what DICOM peers may send, and what they must not."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, MRImageStorage
from sqlalchemy.exc import OperationalError

from service.errors import OutOfResources
from service.receive.buffer import IN_MEMORY
from tests.raw_peer import (
    ABORT_RQ,
    COMMAND,
    DATA,
    ECHO,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    STORE,
    RawPeer,
    associated,
    command_set,
    echo_command,
    p_data,
    pdv,
    store_command,
    stored,
    uid,
    us,
)
from tests.receiving import Listening, listening
from tests.waiting import eventually

DATA_SET = os.urandom(100_000)
FRAGMENT = pdv(STORE, DATA | LAST, b"12345678")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path) as running:
        yield running


@pytest.fixture
def peer(node: Listening) -> Iterator[RawPeer]:
    with associated(node.port) as opened:
        yield opened


def command_pdv(instance: str = "1.2") -> bytes:
    return pdv(STORE, COMMAND | LAST, store_command(instance))


@pytest.mark.parametrize("size", [1, 2, 999, 16378, 100_000])
def test_a_data_set_is_taken_bit_for_bit_in_fragments_of_any_size(size: int, node: Listening, peer: RawPeer) -> None:
    data_set = DATA_SET[: size * 3000 + 1]
    for instance in ("1.2.3", "1.2.34"):
        assert peer.store(instance, data_set, size) == 0
        assert node.kept.data_set(instance) == data_set
    assert peer.release() == RELEASE_RP
    assert node.kept.ends == ["released"]
    assert len(node.kept.associations) == 1


def test_the_response_names_what_it_answers(peer: RawPeer) -> None:
    for content in stored("1.2.3", b"12"):
        peer.send(content)
    answer = peer.response()
    assert answer[0x0002] == uid(CTImageStorage)
    assert answer[0x1000] == uid("1.2.3")
    assert (answer[0x0100], answer[0x0120], answer[0x0800]) == (us(0x8001), us(7), us(0x0101))


def test_command_and_data_set_in_one_pdu(node: Listening, peer: RawPeer) -> None:
    peer.send(p_data(command_pdv(), pdv(STORE, DATA, b"1234"), FRAGMENT))
    assert peer.status() == 0
    assert node.kept.data_set("1.2") == b"123412345678"


def test_fragments_of_nothing(node: Listening, peer: RawPeer) -> None:
    command = store_command("1.2")
    peer.send(p_data(pdv(STORE, COMMAND, b""), pdv(STORE, COMMAND, command[:30])))
    peer.send(p_data(pdv(STORE, COMMAND, command[30:])) + p_data(pdv(STORE, COMMAND | LAST, b"")))
    peer.send(p_data(pdv(STORE, DATA, b"")) + p_data(pdv(STORE, DATA, b"1234")) + p_data(pdv(STORE, DATA | LAST, b"")))
    assert peer.status() == 0
    assert node.kept.data_set("1.2") == b"1234"


def test_requests_that_do_not_wait_for_the_response_are_answered_in_turn(node: Listening, peer: RawPeer) -> None:
    peer.send(p_data(command_pdv("1.2"), FRAGMENT, pdv(ECHO, COMMAND | LAST, echo_command())))
    peer.send(p_data(command_pdv("1.3"), FRAGMENT) + RELEASE_RQ)
    assert [peer.response()[0x0100] for _ in range(3)] == [us(0x8001), us(0x8030), us(0x8001)]
    assert peer.receive()[0] == RELEASE_RP
    assert node.kept.data_set("1.2") == node.kept.data_set("1.3") == b"12345678"


def test_bytes_that_come_one_at_a_time(node: Listening, peer: RawPeer) -> None:
    for byte in b"".join(stored("1.2", b"12345678", 5)):
        peer.send(bytes([byte]))
    assert peer.status() == 0
    assert node.kept.data_set("1.2") == b"12345678"


def test_a_response_is_no_longer_than_the_peer_takes(node: Listening) -> None:
    with RawPeer(node.port, maximum=4096) as peer:
        peer.associate()
        assert peer.store("1.2", b"12") == 0


@pytest.mark.parametrize("length", [IN_MEMORY - 400, IN_MEMORY + 1000, IN_MEMORY * 2 + 12345])
def test_what_is_larger_than_memory_is_kept_goes_through_a_file(length: int, node: Listening, peer: RawPeer) -> None:
    data_set = os.urandom(1 << 20) * (length // (1 << 20)) + os.urandom(length % (1 << 20))
    for size in (130_000, 99_990):
        assert peer.store("1.2.3", data_set, size) == 0
        assert node.kept.data_set("1.2.3") == data_set
        assert peer.store("1.2.4", b"1234") == 0, "the next one is none of it"
        assert node.kept.data_set("1.2.4") == b"1234"
    assert not list(node.kept.folder.iterdir())


def test_a_large_instance_that_finds_no_room_is_refused_when_it_is_over(node: Listening, peer: RawPeer) -> None:
    node.kept.full = True
    assert peer.store("1.2.3", bytes(IN_MEMORY * 2), 130_000) == 0xA700
    assert node.kept.refusals == ["the spool is full"]
    node.kept.full = False
    assert peer.store("1.2.3", bytes(IN_MEMORY * 2), 130_000) == 0
    assert not list(node.kept.folder.iterdir())


def test_a_large_instance_that_breaks_off_leaves_nothing(node: Listening, peer: RawPeer) -> None:
    for number, content in enumerate(stored("1.2.3", bytes(IN_MEMORY * 2), 130_000)):
        if number == 200:
            peer.send(ABORT_RQ)
            break
        peer.send(content)
    eventually(lambda: node.kept.ends == ["aborted"], "it has noticed")
    assert not list(node.kept.folder.iterdir())
    assert not node.kept.files


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfResources("the spool is full"), 0xA700),
        (OperationalError("INSERT", {}, Exception("database is locked")), 0xA700),
        (ZeroDivisionError(), 0x0110),
    ],
)
def test_what_cannot_be_kept_is_refused_and_the_association_goes_on(
    error: Exception, status: int, node: Listening, peer: RawPeer
) -> None:
    node.kept.error = error
    assert peer.store("1.2", b"12") == status
    assert len(node.kept.refusals) == 1
    node.kept.error = None
    assert peer.store("1.2", b"12") == 0


def test_the_status_is_the_intakes(node: Listening, peer: RawPeer) -> None:
    node.kept.status = 0xA900
    assert peer.store("1.2", b"12") == 0xA900


CLASS = {0x0002: uid(CTImageStorage)}
FIND, SET = us(0x0020), us(0x0120)


@pytest.mark.parametrize(
    ("context", "elements", "data_set", "status"),
    [
        (STORE, {0x0100: FIND, **CLASS}, True, 0x0211),
        (STORE, {0x0100: us(0x0030), 0x0002: uid("1.2.840.10008.1.1")}, False, 0x0211),
        (ECHO, {0x0100: us(0x0001), 0x0002: uid("1.2.840.10008.1.1")}, True, 0x0211),
        (STORE, {0x0100: SET, 0x0003: uid("1.2.3"), 0x1001: uid("1.2")}, True, 0x0211),
        (STORE, {0x0100: us(0x7777)}, False, 0x0211),
        (STORE, {0x0100: us(0x0001), 0x0002: uid(MRImageStorage), 0x1000: uid("1.2")}, True, 0x0122),
        (STORE, {0x0100: us(0x0001), 0x1000: uid("1.2")}, True, 0x0122),
        (STORE, {0x0100: us(0x0001), **CLASS, 0x1000: uid("1.2")}, False, 0x0212),
        (ECHO, {0x0100: us(0x0030), 0x0002: uid("1.2.840.10008.1.1")}, True, 0x0212),
        (STORE, {0x0100: us(0x0001), **CLASS, 0x1000: b"1" * 66}, True, 0x0117),
    ],
)
def test_what_cannot_be_done_is_answered_after_its_data_set(
    context: int, elements: dict[int, bytes], data_set: bool, status: int, node: Listening, peer: RawPeer
) -> None:
    kind = us(1 if data_set else 0x0101)
    peer.send(p_data(pdv(context, COMMAND | LAST, command_set({**elements, 0x0110: us(3), 0x0800: kind}))))
    if data_set:
        peer.send(p_data(pdv(context, DATA, bytes(1000))) * 3 + p_data(pdv(context, DATA | LAST, bytes(1000))))
    answer = peer.response()
    assert answer[0x0900] == us(status)
    assert answer[0x0120] == us(3)
    assert peer.store("1.5", b"12") == 0, "the association goes on"
    assert list(node.kept.files) == ["1.5"]
    assert len(node.kept.refusals) == (elements[0x0100] == us(0x0001)), "an instance that was not taken is counted"


def test_a_cancel_has_no_answer(peer: RawPeer) -> None:
    peer.send(p_data(pdv(STORE, COMMAND | LAST, command_set({0x0100: us(0x0FFF), 0x0120: us(7), 0x0800: us(0x0101)}))))
    assert peer.echo() == 0


DIMSE, PROVIDER = (0, 0), (2, 6)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(p_data(pdv(7, COMMAND | LAST, echo_command())), PROVIDER, id="a context that was not accepted"),
        pytest.param(p_data(pdv(2, COMMAND | LAST, echo_command())), PROVIDER, id="an even context"),
        pytest.param(p_data(FRAGMENT), DIMSE, id="a data set without a command"),
        pytest.param(p_data(command_pdv()) + p_data(command_pdv()), DIMSE, id="a command instead of a data set"),
        pytest.param(p_data(command_pdv(), pdv(ECHO, DATA | LAST, b"12")), DIMSE, id="a data set of another context"),
        pytest.param(
            p_data(command_pdv(), pdv(STORE, DATA, b"12"), pdv(ECHO, DATA | LAST, b"12")), DIMSE, id="contexts mixed"
        ),
        pytest.param(p_data(pdv(STORE, COMMAND, b"12"), pdv(ECHO, COMMAND | LAST, b"12")), DIMSE, id="commands mixed"),
        pytest.param(
            p_data(command_pdv(), pdv(STORE, DATA, b"12"), pdv(STORE, COMMAND | LAST, b"")), DIMSE, id="command in data"
        ),
        pytest.param(p_data(pdv(ECHO, COMMAND | LAST, b"nonsense")), DIMSE, id="no command set"),
        pytest.param(p_data(pdv(STORE, COMMAND, bytes(65000))) * 2, DIMSE, id="a command without end"),
        pytest.param(p_data(bytes(131072 + 2)), PROVIDER, id="a longer PDU than was agreed"),
        pytest.param(b"\4\0\xff\xff\xff\xff", PROVIDER, id="4 GiB"),
        pytest.param(b"\x42" + bytes(20), (2, 1), id="no PDU"),
        pytest.param(RELEASE_RQ.replace(b"\5", b"\6", 1), (2, 2), id="a release reply to nothing"),
        pytest.param(b"\2" + bytes(80), (2, 2), id="an A-ASSOCIATE-AC"),
    ],
)
def test_what_breaks_the_protocol_is_aborted_with_its_reason(
    content: bytes, told: tuple[int, int], node: Listening, peer: RawPeer
) -> None:
    assert peer.store("1.5", b"12") == 0
    peer.send(content)
    assert peer.aborted() == told
    eventually(lambda: node.kept.ends == ["aborted"], "the listeners were told")
    assert list(node.kept.files) == ["1.5"]


def test_a_release_amid_a_message_is_answered_and_what_was_begun_is_dropped(node: Listening, peer: RawPeer) -> None:
    peer.send(p_data(command_pdv()) + RELEASE_RQ)
    assert peer.receive()[0] == RELEASE_RP
    assert not node.kept.files


def test_a_second_release_request_harms_nobody(node: Listening, peer: RawPeer) -> None:
    peer.send(RELEASE_RQ * 3)
    assert peer.receive()[0] == RELEASE_RP
    assert peer.receive()[0] == 0
    assert node.kept.ends == ["released"]


def test_what_is_no_request_is_aborted_before_there_is_an_association(node: Listening) -> None:
    for content, told in ((b"GET / HTTP/1.1\r\n\r\n", (2, 1)), (RELEASE_RQ, (2, 2)), (b"\1\0\0\0\0\4abcd", (2, 6))):
        with RawPeer(node.port) as peer:
            peer.send(content)
            assert peer.aborted() == told
            assert peer.receive()[0] == 0
    assert node.kept.ends == []


def test_who_is_silent_is_ended_by_the_time_that_it_is_in(tmp_path: Path) -> None:
    with listening(tmp_path, artim_seconds=0.5, idle_seconds=1.5, association_seconds=4) as node:
        with RawPeer(node.port) as peer:
            began = time.monotonic()
            assert peer.receive()[0] == 0, "closed, without a word (PS3.8 9.2, AA-2)"
            assert 0.4 < time.monotonic() - began < 5
        with associated(node.port) as peer:
            began = time.monotonic()
            assert peer.aborted() == (0, 0)
            assert 1.4 < time.monotonic() - began < 8
        with associated(node.port) as peer:
            began = time.monotonic()
            while time.monotonic() - began < 3:
                assert peer.echo() == 0
            assert peer.aborted() == (0, 0)
            assert time.monotonic() - began < 10
    assert node.kept.ends == ["aborted"] * 2


@pytest.mark.parametrize("begin", [b"", b"".join(stored("1.2", bytes(50_000)))[:20_000]])
def test_a_byte_now_and_then_keeps_nobody_alive(begin: bytes, tmp_path: Path) -> None:
    """Before the association and amid a message; what had come before bought it some seconds."""
    with listening(tmp_path, artim_seconds=1, idle_seconds=1) as node, RawPeer(node.port) as peer:
        if begin:
            peer.associate()
            peer.send(begin[:3000])
        peer.line.settimeout(0.2)
        began, ended = time.monotonic(), False
        while not ended:
            assert time.monotonic() - began < 15
            try:
                peer.send(b"\1" if not begin else begin[:1])
                ended = not peer.line.recv(1) or bool(begin)
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert time.monotonic() - began > 0.8


def test_a_node_that_stops_aborts_whoever_is_associated(tmp_path: Path) -> None:
    with listening(tmp_path) as node, associated(node.port) as idle, associated(node.port) as sending:
        sending.send(p_data(command_pdv()))
        node.listener.stop()
        assert idle.aborted() == sending.aborted() == (0, 0)
        assert not node.listener.listening
        with pytest.raises(ConnectionRefusedError):
            RawPeer(sending.line.getpeername()[1])
    assert node.kept.ends == ["aborted"] * 2


def test_a_sender_that_never_pauses_is_aborted_by_a_node_that_stops(tmp_path: Path) -> None:
    message = b"".join(stored("1.2", bytes(1000)))
    with listening(tmp_path) as node, associated(node.port) as peer:
        ended = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    peer.send(message * 50)

        def read() -> None:  # so that no response waits
            while peer.receive()[0] == 4:
                pass
            ended.set()

        threads = [threading.Thread(target=target) for target in (send, read)]
        for thread in threads:
            thread.start()
        eventually(lambda: node.kept.files, "the first is there")
        node.listener.stop()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert node.kept.ends == ["aborted"]
