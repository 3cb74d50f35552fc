"""Peers that are silent, slow, broken or hostile, over real sockets."""

import hashlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.presentation import build_context

from service.receive.listener import Listener
from service.receive.policy import AssociationPolicy
from service.receive.tls import Tls
from service.received import Received
from service.settings import parse
from service.wire import VERIFICATION
from tests.certificates import Authority
from tests.raw_peer import (
    ABORT_RQ,
    COMMAND,
    ECHO,
    LAST,
    REJECTED,
    STORE,
    RawPeer,
    associated,
    p_data,
    pdv,
    request,
    store_command,
    stored,
)
from tests.receiving import Kept, Listening, listening
from tests.waiting import eventually

PROBES = int(os.environ.get("WETREAD_PROBES", "1000"))
SLICES, PDUS_EACH = 20, 4
SOON = 5.0
"""Seconds in which a node that is blocked does not answer, and one that is not does on any machine."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path) as running:
        yield running


def echo(port: int) -> float:
    """Seconds that a C-ECHO takes, from connecting to the release."""
    began = time.monotonic()
    with associated(port, calling="OTHER") as peer:
        assert peer.echo() == 0
        peer.release()
    return time.monotonic() - began


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_200_connections_that_never_speak_keep_nobody_waiting(tmp_path: Path) -> None:
    with listening(tmp_path, maximum_associations=20) as node, ExitStack() as stack:
        silent = [stack.enter_context(RawPeer(node.port)) for _ in range(200)]
        assert echo(node.port) < SOON
        eventually(lambda: connections() <= 40, "the oldest have made room")
        silent[0].line.settimeout(SOON)
        assert silent[0].receive()[0] == 0
        silent[-1].associate()  # the youngest may still
        assert silent[-1].echo() == 0
        assert echo(node.port) < SOON
    assert node.kept.ends.count("released") == 2


def test_associations_that_never_speak_keep_their_seats_and_nobody_elses(tmp_path: Path) -> None:
    with listening(tmp_path, maximum_associations=5, maximum_associations_per_sender=4) as node, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(associated(node.port))
        for _ in range(20):
            stack.enter_context(RawPeer(node.port))
        assert echo(node.port) < SOON


def test_all_of_many_rejections_at_once_arrive_and_their_connections_are_closed(tmp_path: Path) -> None:
    context = build_context(VERIFICATION)
    context.context_id = ECHO
    with listening(tmp_path, accept_unknown_senders=False) as node, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(node.port)) for _ in range(50)]
        for peer in peers:
            peer.send(request([context], "STRANGER", "NODE"))
        assert [peer.receive() for peer in peers] == [(REJECTED, bytes([0, 1, 1, 3]))] * 50
        assert [peer.receive()[0] for peer in peers] == [0] * 50  # although none of them has left


def test_a_silent_tls_client_keeps_nobody_waiting(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("node"), authority.issue("ct1")
    parsed = parse(
        {
            "node": {"ae_title": "NODE", "port": 0, "accept_unknown_senders": True},
            "tls": {
                "port": 0,
                "certificate": str(ours.certificate),
                "key": str(ours.key),
                "authorities": str(authority.certificate),
            },
        },
        "test",
    )
    kept = Kept(tmp_path)
    listener = Listener(parsed, AssociationPolicy(parsed), kept, Tls(parsed.tls))
    listener.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.certificate)
    context.load_cert_chain(theirs.certificate, theirs.key)
    try:
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(RawPeer(listener.port))
            began = time.monotonic()
            with RawPeer(listener.port) as peer:
                peer.line = context.wrap_socket(peer.line)
                peer.associate()
                assert peer.echo() == 0
                assert time.monotonic() - began < SOON
                data_set = os.urandom(300_000)
                assert peer.store("1.2.3", data_set, 100_000) == 0
                assert kept.data_set("1.2.3") == data_set
                peer.release()
            with RawPeer(listener.port) as peer:
                peer.line = context.wrap_socket(peer.line)
                peer.associate()
                listener.stop()  # also while others are at their handshake
                assert peer.aborted() == (0, 0)
    finally:
        listener.stop()


def pdus_of_a_series() -> list[bytes]:
    return [
        content for number in range(1, SLICES + 1) for content in stored(f"1.2.{number}", bytes([number]) * 3000, 1000)
    ]


@pytest.mark.parametrize("ending", ["abort", "close", "reset", "amid a header"])
def test_an_end_at_any_pdu_of_a_series_keeps_what_was_whole_and_tells_of_the_end(ending: str, tmp_path: Path) -> None:
    pdus = pdus_of_a_series()
    assert len(pdus) == SLICES * PDUS_EACH
    with listening(tmp_path) as node:
        for count in range(len(pdus) + 1):
            node.kept.files.clear()
            with associated(node.port) as peer:
                peer.send(b"".join(pdus[:count]))
                for _ in range(count // PDUS_EACH):
                    assert peer.status() == 0
                if ending == "abort":
                    peer.send(ABORT_RQ)
                elif ending == "reset":
                    peer.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                elif ending == "amid a header":
                    peer.send(b"\4\0\0\0\7")
            eventually(lambda count=count: len(node.kept.ends) == count + 1, "the end is noticed", 20)  # type: ignore[misc]
            assert list(node.kept.files) == [f"1.2.{number}" for number in range(1, count // PDUS_EACH + 1)]
        assert set(node.kept.ends) == {"aborted"}
        for number in range(1, SLICES + 1):
            assert node.kept.data_set(f"1.2.{number}") == bytes([number]) * 3000


def test_probes_that_connect_and_close_leave_nothing(node: Listening) -> None:
    """Health checks: half of them close, half are reset; WETREAD_PROBES=10000 for many."""
    echo(node.port)
    eventually(lambda: connections() == 0, "the first has ended")
    files, memory = open_files(), resident()
    for number in range(PROBES):
        with socket.create_connection(("127.0.0.1", node.port), timeout=20) as probe:
            if number % 2:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: connections() == 0, "all have ended")
    eventually(lambda: open_files() <= files, "all are closed")
    assert resident() - memory < 16 << 20
    assert echo(node.port) < SOON
    assert node.kept.ends == ["released"] * 2
    eventually(lambda: not node.listener._connections._open, "the listener has forgotten them")


def connections() -> int:
    """How many connections have a thread."""
    return sum(thread.name.startswith("association") for thread in threading.enumerate())


def test_associations_that_come_and_go_leave_nothing(node: Listening) -> None:
    echo(node.port)
    eventually(lambda: connections() == 0, "the first has ended")
    files = open_files()
    for number in range(100):
        with associated(node.port) as peer:
            if number % 3:
                assert peer.store("1.2", bytes(100_000)) == 0
            if number % 2:
                peer.release()
    eventually(lambda: connections() == 0, "all have ended")
    eventually(lambda: open_files() <= files, "all are closed")
    assert node.kept.ends.count("aborted") == 50


def test_memory_is_that_of_the_largest_instance_however_many_there_are(node: Listening) -> None:
    with associated(node.port) as peer:
        assert peer.store("1.2", bytes(1 << 20), 130_000) == 0
        before = resident()
        for _ in range(100):
            assert peer.store("1.2", bytes(1 << 20), 130_000) == 0
        assert resident() - before < 8 << 20


@pytest.mark.parametrize("size", [15 << 20, 40 << 20])
def test_an_association_that_waits_gives_the_memory_of_a_large_instance_back(
    size: int, node: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = os.urandom(size)
    taken = []

    def take(received: Received, *_: object) -> int:  # without memory of its own
        content = received.whole()
        taken.append(hashlib.sha256(content[received.length - size :]).digest())
        return 0

    monkeypatch.setattr(node.kept, "take", take)
    with associated(node.port) as peer:
        assert peer.echo() == 0
        before = anonymous()
        assert peer.store("1.2", data_set, 130_000) == 0
        eventually(lambda: anonymous() < before + (6 << 20), "the memory is given back", 20)
        pdus = list(stored("1.3", data_set, 130_000))
        for pdu in pdus[:-1]:
            peer.send(pdu)
        time.sleep(2.5)  # amid an instance nothing may be given back
        peer.send(pdus[-1])
        assert peer.status() == 0
    assert taken == [hashlib.sha256(data_set).digest()] * 2


def anonymous() -> int:
    """Bytes of memory of this process that are of no file."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


def test_a_length_of_4_gib_takes_no_memory(node: Listening) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(associated(node.port, calling=f"CT{number}")) for number in range(20)]
        before = resident()
        for peer in peers:
            peer.send(p_data(pdv(STORE, COMMAND | LAST, store_command("1.2"))) + b"\4\0\0\1\xff\xff\0\1\xff\xfb\3\0")
        time.sleep(0.5)
        assert resident() - before < 8 << 20
        for peer in peers[:10]:
            peer.send(b"\4\0\xff\xff\xff\xff" * 20_000)
        assert resident() - before < 16 << 20


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_peer_sends_the_others_are_served(node: Listening, data: st.DataObject) -> None:
    """Good PDUs with some bytes changed, left out or put in."""
    whole = bytearray(b"".join(pdus_of_a_series()[: data.draw(st.integers(1, 9))]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    associate = data.draw(st.booleans())
    with RawPeer(node.port) as peer:
        if associate:
            peer.associate()
        with suppress(OSError):  # it may have seen enough
            peer.send(bytes(whole) + ABORT_RQ)
    with associated(node.port) as peer:
        assert peer.echo() == 0
        peer.send(ABORT_RQ)
    assert not node.kept.refusals


def test_requests_of_random_bytes_are_aborted_or_rejected(node: Listening) -> None:
    rng = random.Random(7)
    for _ in range(100):
        with RawPeer(node.port) as peer:
            content = rng.randbytes(rng.randrange(300))
            peer.send(b"\1\0" + len(content).to_bytes(4) + content)
            assert peer.receive()[0] in (3, 7)
    assert node.kept.ends == []
    eventually(lambda: connections() == 0, "all have ended")
