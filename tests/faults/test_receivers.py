"""A node with two receivers: one reception for those who send, and whatever ends takes nothing else with it."""

import os
import re
import signal
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from pynetdicom.presentation import build_context

from service.wire import VERIFICATION
from tests.archive import Archive
from tests.certificates import Authority
from tests.copies import Series, data_set_of
from tests.killed_node import FRAGMENTS, all_get_on, looked_at
from tests.raw_peer import ACCEPTED, REJECTED, RELEASE_RP, RawPeer, request
from tests.running_node import RunningNode, Section, free_ports
from tests.sent_images import FIRST, Sender, SentImage
from tests.waiting import eventually

SENDERS = ("ONE", "TWO", "THREE", "FOUR")
SEED = 211


@contextmanager
def running(
    folder: Path,
    archive: Archive,
    engines: Section,
    quiet_seconds: float = 2.0,
    tls: Section | None = None,
    **node: object,
) -> Iterator[RunningNode]:
    series = {"quiet_seconds": quiet_seconds, "quiet_ceiling_seconds": quiet_seconds}
    sections = {"engines": engines, "node": {"receivers": 2, **node}, "series": series, "tls": tls or {}}
    with RunningNode(folder, archive.destination, senders=SENDERS, sections=sections) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, archive: Archive, engines: Section) -> Iterator[RunningNode]:
    with running(tmp_path, archive, engines) as node:
        yield node


def receivers(node: RunningNode) -> dict[int, int]:
    """The process of each receiver that was started last."""
    return {event["receiver"]: event["pid"] for event in node.logged("receiver.started")}


def connections(pid: int) -> int:
    """How many TCP connections a process has."""
    open_files = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    sockets = {name[8:-1] for name in open_files if name.startswith("socket:")}
    return sum(line.split()[9] in sockets for line in Path("/proc/net/tcp").read_text().splitlines()[1:])


def counted(node: RunningNode) -> dict[str, int]:
    """Instances by outcome, as ``/metrics`` has them."""
    metrics = httpx.get(node.health.replace("/health", "/metrics")).text
    found = re.findall(r'^wetread_instances_total\{outcome="(\w+)"\} ([0-9.]+)', metrics, re.MULTILINE)
    return {outcome: int(float(count)) for outcome, count in found}


def gone(pids: Sequence[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def peers(node: RunningNode, stack: ExitStack, *titles: str) -> list[RawPeer]:
    """One association after the other."""
    found = []
    for title in titles:
        peer = stack.enter_context(RawPeer(node.destination.port, calling=title, called="WETREAD"))
        peer.associate()
        found.append(peer)
    return found


def answer_to(node: RunningNode, title: str) -> int:
    """The type of the PDU that answers a request."""
    with RawPeer(node.destination.port, calling=title, called="WETREAD") as peer:
        context = build_context(VERIFICATION)
        context.context_id = 1
        peer.send(request([context], title, "WETREAD"))
        return peer.receive()[0]


def test_associations_spread_over_the_receivers_and_one_series_is_whole(
    node: RunningNode, archive: Archive, series: Series
) -> None:
    with ExitStack() as stack:
        for peer in peers(node, stack, *SENDERS):
            assert peer.echo() == 0
        assert [connections(pid) for pid in receivers(node).values()] == [2, 2]
    parts = [series.files[start::4] for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        sent = pool.map(lambda part, title: node.send(part, title), parts, SENDERS)
        assert sum(map(len, sent)) == len(series.files)
    jobs = node.ended(series.uid)
    assert [job["state"] for job in jobs] == ["done"] * 6
    assert jobs[0]["note"].startswith("40 instances")
    assert sorted(map(data_set_of, node.stored())) == sorted(map(data_set_of, series.files))
    assert len(archive.objects) == 2
    assert counted(node) == {"new": 40}
    assert not node.logged("not.an.event")


def test_seats_are_those_of_the_node_whatever_receiver_serves(
    tmp_path: Path, archive: Archive, engines: Section
) -> None:
    limits = {"maximum_associations": 3, "maximum_associations_per_sender": 2}
    with running(tmp_path, archive, engines, **limits) as node, ExitStack() as stack:
        _, second, third = peers(node, stack, "ONE", "ONE", "TWO")
        assert answer_to(node, "THREE") == REJECTED
        assert node.event("association.rejected", calling="THREE")["reason"].startswith("there are 3")
        third.release()
        assert answer_to(node, "ONE") == REJECTED
        assert node.event("association.rejected", calling="ONE")["reason"].startswith("this sender has 2")
        second.line.close()
        eventually(lambda: answer_to(node, "ONE") == ACCEPTED, "the seat of one that was lost is free")
        node.event("association.aborted", sender="ONE")


def test_the_same_instance_by_two_receivers_counts_once(node: RunningNode) -> None:
    images = [SentImage(SEED, 1, FIRST + number) for number in range(30)]
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        both = peers(node, stack, "ONE", "TWO")
        assert [connections(pid) for pid in receivers(node).values()] == [1, 1]
        for image in images:
            assert list(pool.map(lambda peer, image=image: peer.store(image.uid, image.data_set), both)) == [0, 0]
        [first, *_] = images
        assert both[1].store(first.uid, first.data_set[:-2] + b"\1\2") == 0
    assert len(node.stored()) == 30
    assert counted(node) == {"new": 30, "duplicate": 30, "beside": 1}
    [(reason, _)] = node.quarantined()
    assert "another instance came first" in reason


def test_associations_by_tls_are_served_by_receivers(tmp_path: Path, archive: Archive, engines: Section) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("node"), authority.issue("one")
    [port] = free_ports(1)
    tls = {
        "port": port,
        "certificate": str(ours.certificate),
        "key": str(ours.key),
        "authorities": str(authority.certificate),
    }
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(theirs.certificate, theirs.key)
    image = SentImage(SEED, 1, FIRST)
    with running(tmp_path, archive, engines, tls=tls) as node, RawPeer(port, calling="ONE", called="WETREAD") as peer:
        assert len(node.logged("receiver.listening")) == 2
        peer.line = context.wrap_socket(peer.line, server_hostname="127.0.0.1")
        peer.associate()
        assert peer.store(image.uid, image.data_set) == 0
        assert peer.release() == RELEASE_RP
        with RawPeer(port) as stranger, pytest.raises(ssl.SSLError):  # noqa: PT012
            stranger.line = ssl.create_default_context(cafile=authority.certificate).wrap_socket(
                stranger.line, server_hostname="127.0.0.1"
            )
            stranger.line.recv(1)
        assert node.event("tls.refused")["reason"] == "the sender shows no certificate"
        assert list(map(data_set_of, node.stored())) == [image.data_set]


def test_what_tells_all_processes_to_end_leaves_the_receivers_to_the_node(node: RunningNode) -> None:
    """As systemd and a terminal do."""
    pids = [*receivers(node).values()]
    with ExitStack() as stack:
        [peer] = peers(node, stack, "ONE")
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert peer.echo() == 0
        node.process.send_signal(signal.SIGTERM)
        assert peer.aborted() == (0, 0)
    assert node.wait() == 0
    assert node.logged("association.aborted", reason="the node is stopping")
    assert gone(pids)
    assert not node.logged("receiver.lost")


def test_a_receiver_that_is_killed_under_load_takes_nothing_with_it_that_was_acknowledged(
    tmp_path: Path, archive: Archive, engines: Section
) -> None:
    with running(tmp_path, archive, engines, quiet_seconds=3600.0) as node:
        port = node.destination.port
        senders = [Sender(port, SENDERS[number], SEED, number, size) for number, size in enumerate(FRAGMENTS)]
        for sender in senders:
            sender.start()
        for killed in (1, 2, 1):
            kill_and_see_another(node, killed, senders)
        health = httpx.get(node.health).json()
        assert (health["status"], health["receivers_lost"]) == ("ok", 0)
        for sender in senders:
            sender.end()
        assert len(node.logged("receiver.lost")) == 3
        assert all("signal 9" in event["reason"] for event in node.logged("receiver.lost"))
        assert node.terminate() == 0
        assert len(looked_at(node.spool, senders)) >= sum(sender.acknowledged for sender in senders)
        assert not list(node.spool.glob("receivers/*/incoming/*"))


def kill_and_see_another(node: RunningNode, number: int, senders: list[Sender]) -> None:
    """Kill a receiver as soon as all senders get on."""
    before, pid = [sender.acknowledged for sender in senders], receivers(node)[number]
    eventually(lambda: all_get_on(node, senders, before), "all senders get on")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: receivers(node)[number] != pid, "another one is started")


def test_associations_of_a_receiver_that_is_killed_are_lost_and_their_seats_free(
    tmp_path: Path, archive: Archive, engines: Section
) -> None:
    with running(tmp_path, archive, engines, maximum_associations=2) as node, ExitStack() as stack:
        image = SentImage(SEED, 1, FIRST)
        one, two = peers(node, stack, "ONE", "TWO")
        assert [peer.store(image.uid, image.data_set) for peer in (one, two)] == [0, 0]
        assert answer_to(node, "ONE") == REJECTED
        pids = receivers(node)
        os.kill(pids[1], signal.SIGKILL)
        lost = node.event("receiver.lost")
        assert lost["receiver"] == 1
        assert lost["connections"] >= 1
        assert httpx.get(node.health).json()["receivers_lost"] == 1
        assert two.echo() == 0, "the other one serves as before"
        assert answer_to(node, "ONE") == ACCEPTED
        os.kill(pids[2], signal.SIGKILL)
        node.event("receiver.lost", receiver=2)
        assert answer_to(node, "ONE") == ACCEPTED, "who comes while none serves has to wait, and is served"


def test_a_receiver_that_hangs_is_ended_and_started_again_and_others_serve_meanwhile(node: RunningNode) -> None:
    first, second = receivers(node).values()
    os.kill(first, signal.SIGSTOP)
    node.event("receiver.hangs")
    again = eventually(lambda: {*receivers(node).values()} - {first, second}, "it is started again", 60)
    assert gone([first])
    with ExitStack() as stack:
        assert len(peers(node, stack, *SENDERS)) == len(SENDERS)
        assert {connections(pid) for pid in (second, *again)} == {2}


def test_a_node_that_is_killed_leaves_no_process_and_another_can_start_at_once(node: RunningNode) -> None:
    pids = [*receivers(node).values()]
    image = SentImage(SEED, 1, FIRST)
    with ExitStack() as stack:
        for peer in peers(node, stack, *SENDERS):
            peer.store(image.uid, image.data_set)
        node.kill()
        eventually(lambda: gone(pids), "the receivers have ended", 5.0)
        node.start()
    assert not [*(node.spool / "incoming").iterdir()]
    assert len(node.stored()) == 1
    [found] = node.stored()
    assert data_set_of(found) == image.data_set


def test_a_receiver_that_cannot_begin_keeps_the_node_from_starting_and_says_why(
    tmp_path: Path, archive: Archive, engines: Section
) -> None:
    node = RunningNode(tmp_path, archive.destination, sections={"engines": engines, "node": {"receivers": 2}})
    node.spool.mkdir()
    (node.spool / "receivers").write_text("")  # where there should be a folder
    node.launch()
    assert node.wait() == 1
    assert "spool.path" in str(node.events[-1])
    assert not node.logged("receiver.listening")
