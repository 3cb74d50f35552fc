"""Multipart answers of DICOMweb (PS3.18 8.6.1.2), taken apart."""

from collections.abc import Iterator
from email.message import Message


def parts(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """The contents of a multipart body (RFC 2046 5.1.1), bit for bit. Raises `ValueError` where it has no end."""
    delimiter = b"\r\n--" + boundary
    before = len(boundary) + 2 if body.startswith(delimiter[2:]) else body.find(delimiter) + len(delimiter)
    if before < len(delimiter) - 2:
        raise ValueError("no delimiter")
    while not body.startswith(b"--", before):
        head = body.find(b"\r\n\r\n", before)
        end = body.find(delimiter, head + 4)
        if head < 0 or end < 0:
            raise ValueError("no closing delimiter")
        yield body[head + 4 : end]
        before = end + len(delimiter)


def parameter_of(content_type: str, name: str) -> str:
    """A parameter of a content type; empty where it has none of this name."""
    message = Message()
    message["content-type"] = content_type
    return str(message.get_param(name) or "")
