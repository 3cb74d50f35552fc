"""Multipart bodies (RFC 2046 5.1) as they come: of whatever length, a chunk and a little more is in memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from enum import Enum

LONGEST_PREAMBLE = LONGEST_HEADERS = 1 << 14
LONGEST_BOUNDARY = 200
"""RFC 2046 5.1.1 says 70, and Orthanc sends 73."""
LONGEST_PADDING = 64

_REST_OF_LINE = re.compile(rb"[ \t]*\r\n")
_PADDING = re.compile(rb"-?|[ \t]*\r?")


class MalformedMultipart(ValueError):
    """The framing of a body is broken; what came before it broke was whole."""


@dataclass(frozen=True)
class MediaType:
    """A value of Content-Type (RFC 9110 8.3.1): type in lower case, and two parameters, empty where absent."""

    name: str
    root: str
    """The parameter ``type`` of multipart/related (RFC 2387 3.1), in lower case."""
    boundary: str

    @classmethod
    def parse(cls, value: str) -> "MediaType":
        """Read one; what cannot be read is text/plain, as RFC 2045 5.2 says."""
        message = Message()
        message["Content-Type"] = value
        root, boundary = (message.get_param(name) for name in ("type", "boundary"))
        return cls(message.get_content_type(), str(root or "").lower(), str(boundary or ""))


@dataclass(frozen=True)
class PartBegins:
    """The header of a part: values by name in lower case."""

    headers: dict[str, str]


@dataclass(frozen=True)
class PartContent:
    """The next bytes of the part that has begun."""

    data: bytes


@dataclass(frozen=True)
class PartEnds:
    """The part that has begun is whole."""


Event = PartBegins | PartContent | PartEnds


class _Place(Enum):
    PREAMBLE = "preamble"
    HEADERS = "headers"
    BEFORE_CONTENT = "before content"  # a part may be empty: then its delimiter begins with the end of its header
    CONTENT = "content"
    EPILOGUE = "epilogue"


class MultipartReader:
    """Tells the parts of a body apart.

    A delimiter is a line of its own: the boundary within a line of the content, or with more behind it, is content.

    Raises
    ------
    MalformedMultipart
        The boundary is none (RFC 2046 5.1.1).
    """

    def __init__(self, boundary: str) -> None:
        if not 0 < len(boundary) <= LONGEST_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
            raise MalformedMultipart("the boundary is missing or none")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._pending = bytearray(b"\r\n")  # so that a delimiter at the very beginning is one like all others
        self._place = _Place.PREAMBLE
        self._skipped = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes of the body. Raises `MalformedMultipart` where a preamble or header does not end."""
        self._pending += chunk
        moved = True
        while moved:
            before = self._place, len(self._pending)
            yield from self._step()
            moved = before != (self._place, len(self._pending))

    def close(self) -> None:
        """Say that the body has ended. Raises `MalformedMultipart` where its last delimiter has not come."""
        if self._place is not _Place.EPILOGUE:
            raise MalformedMultipart(f"the body ends in the {self._place.value} of a part")

    def _step(self) -> Iterator[Event]:
        match self._place:
            case _Place.EPILOGUE:
                self._pending.clear()
            case _Place.HEADERS:
                yield from self._headers()
            case _Place.BEFORE_CONTENT:
                if not self._delimiter.startswith(self._pending[: len(self._delimiter)]):
                    del self._pending[:2]
                    self._place = _Place.CONTENT
                elif len(self._pending) >= len(self._delimiter):
                    self._place = _Place.CONTENT
            case _:
                yield from self._up_to_delimiter()

    def _headers(self) -> Iterator[Event]:
        end = self._pending.find(b"\r\n\r\n")
        if max(end, len(self._pending) if end < 0 else 0) > LONGEST_HEADERS:
            raise MalformedMultipart("the header of a part does not end")
        if end >= 0:
            lines = self._pending[:end].decode("latin-1").split("\r\n")
            del self._pending[: end + 2]
            self._place = _Place.BEFORE_CONTENT
            pairs = (line.partition(":") for line in lines if line)
            yield PartBegins({name.strip().lower(): value.strip() for name, _, value in pairs})

    def _up_to_delimiter(self) -> Iterator[Event]:
        at = self._pending.find(self._delimiter)
        while at >= 0:
            rest = bytes(self._pending[at + len(self._delimiter) :][: LONGEST_PADDING + 2])
            last, line = rest.startswith(b"--"), _REST_OF_LINE.match(rest)
            if last or line:
                yield from self._content(at)
                if self._place is _Place.CONTENT:
                    yield PartEnds()
                # the end of the line stays: in an empty header it is one half of its end
                del self._pending[: len(self._delimiter) + (line.end() - 2 if line else 0)]
                self._place = _Place.EPILOGUE if last else _Place.HEADERS
                return
            if len(rest) < LONGEST_PADDING + 2 and _PADDING.fullmatch(rest):
                yield from self._content(at)  # more must come before it is known what this is
                return
            at = self._pending.find(self._delimiter, at + 1)
        yield from self._content(max(0, len(self._pending) - len(self._delimiter) + 1))

    def _content(self, length: int) -> Iterator[Event]:
        """What lies before a place in what has come belongs to the part, or to what is before all parts."""
        if self._place is _Place.CONTENT and length:
            yield PartContent(bytes(memoryview(self._pending)[:length]))
        elif self._place is _Place.PREAMBLE:
            self._skipped += length
            if self._skipped > LONGEST_PREAMBLE:
                raise MalformedMultipart("no part begins")
        del self._pending[:length]
