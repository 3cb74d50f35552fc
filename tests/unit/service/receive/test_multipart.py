"""Multipart bodies, whole, hostile, and in every way that a network cuts them up."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.receive.multipart import (
    LONGEST_HEADERS,
    LONGEST_PREAMBLE,
    MalformedMultipart,
    MediaType,
    MultipartReader,
    PartBegins,
    PartContent,
)

Part = tuple[dict[str, str], bytes]


def parts(body: bytes, step: int = 0, boundary: str = "b") -> list[Part]:
    """The parts of a body that comes in chunks of so many bytes."""
    reader, found, ended = MultipartReader(boundary), list[Part](), 0
    step = step or max(1, len(body))
    for at in range(0, len(body), step):
        for event in reader.feed(body[at : at + step]):
            if isinstance(event, PartBegins):
                found.append((event.headers, b""))
            elif isinstance(event, PartContent):
                found[-1] = (found[-1][0], found[-1][1] + event.data)
            else:
                ended += 1
    reader.close()
    assert ended == len(found)
    return found


BODIES = {
    "one part": (b"--b\r\nContent-Type: x\r\n\r\nhello\r\n--b--\r\n", [({"content-type": "x"}, b"hello")]),
    "preamble and epilogue": (b"to nobody\r\n--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\ny", [({}, b"x")]),
    "boundary within a line": (b"--b\r\n\r\nx--b\r\ny --b--\r\n--b--", [({}, b"x--b\r\ny --b--")]),
    "a line that only begins with it": (b"--b\r\n\r\nx\r\n--bc\r\ny\r\n--b--", [({}, b"x\r\n--bc\r\ny")]),
    "padding behind the boundary": (b"--b \t\r\nA: 1\r\n\r\nx\r\n--b  \r\n\r\ny\r\n--b--",
                                    [({"a": "1"}, b"x"), ({}, b"y")]),
    "ends of lines in the content": (b"--b\r\n\r\n\r\n\r\n\r\n--b--", [({}, b"\r\n\r\n")]),
    "empty, with and without header": (b"--b\r\nA: 1\r\n\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b--",
                                       [({"a": "1"}, b""), ({}, b""), ({}, b"")]),
    "no part": (b"--b--", []),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body_has_the_same_parts_however_it_is_cut_up(name: str) -> None:
    body, expected = BODIES[name]
    for step in range(len(body) + 1):
        assert parts(body, step) == expected, f"in chunks of {step}"


@given(st.lists(st.binary(max_size=60)), st.integers(1, 40), st.text("abc-\n", min_size=1, max_size=5))
def test_whatever_content_comes_out_as_it_went_in(contents: list[bytes], step: int, boundary: str) -> None:
    boundary = "b" + boundary.replace("\n", "'")
    contents = [content for content in contents if f"--{boundary}".encode() not in content]
    body = b"".join(b"--%s\r\n\r\n%s\r\n" % (boundary.encode(), content) for content in contents)
    assert parts(body + b"--%s--" % boundary.encode(), step, boundary) == [({}, content) for content in contents]


@given(st.lists(st.sampled_from([b"\r\n", b"--", b"b", b" ", b":", b"\x00", b"\r\n--b", b"--b--", b"\r", b"\n"])))
def test_whatever_comes_is_read_or_refused_with_words_however_it_is_cut_up(pieces: list[bytes]) -> None:
    def outcome(step: int) -> list[Part] | str:
        try:
            return parts(b"".join(pieces), step)
        except MalformedMultipart as error:
            return str(error)

    assert outcome(0) == outcome(1) == outcome(3)


@pytest.mark.parametrize("body", [b"", b"--b", b"--b\r\nA: 1\r\n", b"--b\r\n\r\nx", b"--b\r\n\r\nx\r\n--b", b"--c--"])
def test_a_body_without_its_last_delimiter_is_broken(body: bytes) -> None:
    with pytest.raises(MalformedMultipart, match="ends"):
        parts(body)


@pytest.mark.parametrize("boundary", ["", "b" * 201, "b\r\nc", "ä"])
def test_what_is_no_boundary_is_refused(boundary: str) -> None:
    with pytest.raises(MalformedMultipart, match="boundary"):
        MultipartReader(boundary)


@pytest.mark.parametrize(("begin", "limit"), [(b"", LONGEST_PREAMBLE), (b"--b\r\nA: ", LONGEST_HEADERS)])
def test_what_does_not_end_is_given_up_and_takes_no_memory(begin: bytes, limit: int) -> None:
    reader = MultipartReader("b")
    list(reader.feed(begin))
    chunks = itertools.repeat(b"x" * 1000, limit // 1000 + 2)
    with pytest.raises(MalformedMultipart):
        list(itertools.chain.from_iterable(map(reader.feed, chunks)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            'multipart/related; type="application/dicom"; boundary="a b"',
            ("multipart/related", "application/dicom", "a b"),
        ),
        ("Multipart/Related; boundary=xx;type=Application/DICOM", ("multipart/related", "application/dicom", "xx")),
        ("application/dicom", ("application/dicom", "", "")),
        ("", ("text/plain", "", "")),
        ("nothing; ; =", ("text/plain", "", "")),
    ],
)  # fmt: skip
def test_media_types(value: str, expected: tuple[str, str, str]) -> None:
    assert MediaType.parse(value) == MediaType(*expected)
