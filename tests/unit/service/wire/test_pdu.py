"""PDUs from bytes that come in pieces of any size."""

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.wire.ends import (
    INVALID_PARAMETER,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    ConnectionLost,
    PeerAborted,
    ProtocolError,
    ReleaseRequested,
)
from service.wire.pdu import FragmentReader, abort, read_request
from tests.raw_peer import ABORT_RQ, COMMAND, DATA, LAST, RELEASE_RQ, p_data, pdv

ROOM = 1 << 16


@dataclass
class Pieces:
    """What a peer sends, as it comes: these many bytes at a time, at most."""

    content: bytes
    sizes: list[int] = field(default_factory=lambda: [1 << 20])
    calls: int = 0
    most: int = 0

    def receive(self, view: memoryview, fill: bool = False) -> int:
        if not self.content:
            raise ConnectionLost("closed by the peer")
        count = min(len(view), len(self.content), self.sizes[self.calls % len(self.sizes)])
        view[:count] = self.content[:count]
        self.content = self.content[count:]
        self.calls += 1
        self.most = max(self.most, len(view))
        return count


def reader(content: bytes, sizes: list[int] | None = None, maximum: int = ROOM) -> FragmentReader:
    view = memoryview(bytearray(ROOM + 32))
    return FragmentReader(Pieces(content, sizes or [1 << 20]), view, maximum)


def read_all(content: bytes, sizes: list[int]) -> list[tuple[int, int, bytes]]:
    """All fragments until the release."""
    source, view = Pieces(content, sizes), memoryview(bytearray(1 << 18))
    fragments, found, at = FragmentReader(source, view, ROOM), [], 0
    while True:
        try:
            context, control, length = fragments.fragment()
        except ReleaseRequested:
            return found
        end = fragments.payload(at, length)
        found.append((context, control, bytes(view[at:end])))
        at = end


pdvs = st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=300))


@given(st.lists(st.lists(pdvs, min_size=1, max_size=4), max_size=6), st.lists(st.integers(1, 400), min_size=1))
@settings(max_examples=200, deadline=None)
def test_fragments_are_what_was_sent_however_it_comes(
    sent: list[list[tuple[int, int, bytes]]], sizes: list[int]
) -> None:
    content = b"".join(p_data(*[pdv(*each) for each in one]) for one in sent) + RELEASE_RQ
    assert read_all(content, sizes) == [each for one in sent for each in one]


def test_a_payload_and_the_header_behind_it_cost_one_call() -> None:
    content = b"".join(p_data(pdv(1, DATA, bytes(1000))) for _ in range(10)) + RELEASE_RQ
    source = Pieces(content)
    fragments, view_at = FragmentReader(source, memoryview(bytearray(ROOM)), ROOM), 0
    for _ in range(10):
        _, _, length = fragments.fragment()
        view_at = fragments.payload(view_at, length)
    assert source.calls == 11


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x09\0\0\0\0\4" + bytes(4), UNRECOGNIZED_PDU),
        (b"G\0\0\0\0\4" + bytes(4), UNRECOGNIZED_PDU),
        (b"\x01\0\0\0\0\4" + bytes(4), UNEXPECTED_PDU),
        (b"\x06\0\0\0\0\4" + bytes(4), UNEXPECTED_PDU),
        (b"\x05\0\0\0\0\5" + bytes(5), INVALID_PARAMETER),
        (b"\x04\0" + struct.pack(">I", ROOM + 1) + bytes(8), INVALID_PARAMETER),
        (b"\x04\0\xff\xff\xff\xff" + bytes(8), INVALID_PARAMETER),
        (p_data(b""), INVALID_PARAMETER),
        (p_data(b"\0\0\0\1\1"), INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 1, 1, 2)), INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 0xFFFFFFFF, 1, 2) + bytes(20)), INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 23, 1, 2) + bytes(20)), INVALID_PARAMETER),
        (p_data(pdv(1, 2, b""), b"\0\0\0"), INVALID_PARAMETER),
    ],
)
def test_what_must_not_come_ends_the_association_with_the_reason_of_the_standard(content: bytes, reason: int) -> None:
    for sizes in ([1], [1 << 20]):
        with pytest.raises(ProtocolError) as caught:
            reader(content, sizes).fragment()
        assert (caught.value.source, caught.value.reason) == (2, reason)


def test_an_abort_is_told_from_a_release_and_from_a_lost_connection() -> None:
    with pytest.raises(PeerAborted, match="source 2, reason 6"):
        reader(abort(2, 6), [3]).fragment()
    with pytest.raises(ReleaseRequested):
        reader(RELEASE_RQ, [3]).fragment()
    with pytest.raises(ConnectionLost):
        reader(RELEASE_RQ[:9]).fragment()


def test_an_abort_that_came_with_a_payload_is_seen_after_it() -> None:
    fragments = reader(p_data(pdv(1, DATA, b"abcd")) + ABORT_RQ)
    assert fragments.fragment() == (1, DATA, 4)
    assert fragments.payload(0, 4) == 4
    with pytest.raises(PeerAborted):
        fragments.fragment()


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=400, deadline=None)
def test_any_bytes_end_in_one_of_the_ways_that_are_meant(content: bytes, size: int) -> None:
    for begin in (b"", b"\4\0\0\0", b"\4\0\0\0\0\x20\0\0\0"):
        fragments = reader(begin + content, [size], maximum=4096)

        def read(fragments: FragmentReader = fragments) -> None:
            while True:
                _, _, length = fragments.fragment()
                fragments.payload(0, length)

        with pytest.raises((ProtocolError, PeerAborted, ReleaseRequested, ConnectionLost)):
            read()


def test_a_request_is_read_as_a_whole() -> None:
    encoded = b"\1\0\0\0\x30\0" + bytes(0x3000)
    assert read_request(Pieces(encoded, [1, 700])) == encoded


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\1\0\xff\xff\xff\xff", INVALID_PARAMETER),
        (b"\1\0\0\x04\0\1", INVALID_PARAMETER),
        (p_data(pdv(1, COMMAND | LAST, b"ab")), UNEXPECTED_PDU),
        (b"GET / HTTP/1.1", UNRECOGNIZED_PDU),
        (b"\x16\3\1\2\0\1", UNRECOGNIZED_PDU),
    ],
)
def test_what_is_no_request_is_refused_by_its_first_bytes(content: bytes, reason: int) -> None:
    source = Pieces(content)
    with pytest.raises(ProtocolError) as caught:
        read_request(source)
    assert (caught.value.source, caught.value.reason) == (2, reason)
    assert source.most <= 6


def test_a_request_takes_no_memory_before_its_bytes_have_come() -> None:
    source = Pieces(b"\1\0\0\4\0\0")
    with pytest.raises(ConnectionLost):
        read_request(source)
    assert source.most <= 1 << 14
    with pytest.raises(PeerAborted):
        read_request(Pieces(ABORT_RQ))
