"""STOW-RS to one archive (PS3.18 10.5)."""

import json
import os
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from pydicom.uid import UID, generate_uid

from service.deliver.association import Sendable
from service.deliver.base import Pacing
from service.deliver.scu import Answer
from service.deliver.statuses import Verdict, verdict
from service.errors import ArchiveUnavailable, Rejected
from service.types import ClientTls, Web
from service.wire.http import web_client
from service.wire.requestor import Patience

MOST_BYTES, MOST_FILES = 64 << 20, 64
"""Of one request, unless a single file is larger."""

_CHUNK = 1 << 18
_LARGEST_ANSWER = 16 << 20
_FAILED_SOP_SEQUENCE, _REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
_REFERENCED_INSTANCE, _FAILURE_REASON, _WARNING_REASON = "00081155", "00081197", "00081196"
_TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122  # PS3.18 table I.2-2
_WAITS = (401, 403, 408, 425, 429)  # the first two: an operator will renew what this node shows


class StowRs:
    """Sends by STOW-RS (`service.deliver.base.Way`), several files in a request.

    Parameters
    ----------
    name
        Of the archive, as the settings have it.
    tls
        How TLS is spoken to it; None for ``https`` with the authorities of the system.
    """

    def __init__(self, name: str, web: Web, tls: ClientTls | None, patience: Patience) -> None:
        self._name = name
        self._web = web
        self._tls = tls
        self._limits = httpx.Timeout(patience.answer, connect=patience.association)

    def send(self, files: Sequence[Sendable], pacing: Pacing) -> Generator[Answer]:
        """As `Way.send`."""
        for batch in _batches(files):
            for file in batch:
                pacing(file.path.stat().st_size)
            yield from self._post(batch)

    def close(self) -> None:
        """There is nothing to close."""

    def _post(self, batch: Sequence[Sendable]) -> Iterator[Answer]:
        body = MultipartBody(batch)
        headers = {
            "Accept": "application/dicom+json",
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={body.boundary}',
            "Content-Length": str(body.length),
        }
        with web_client(self._name, self._web, self._tls, self._limits) as client:
            url = f"{self._web.url}/studies"
            with client.stream("POST", url, content=body.chunks(), headers=headers) as response:
                content = _whole(response)
        return self._answers(batch, response.status_code, content)

    def require_open(self) -> None:
        """Ask for a study that nobody has. Raises `ArchiveUnavailable` where that is not answered, or refused."""
        with web_client(self._name, self._web, self._tls, self._limits) as client:
            keys = {"StudyInstanceUID": generate_uid(), "limit": "1"}
            headers = {"Accept": "application/dicom+json"}
            self._require_let_in(client.get(f"{self._web.url}/studies", params=keys, headers=headers).status_code)

    def _require_let_in(self, code: int) -> None:
        if (code >= 500 and code != httpx.codes.NOT_IMPLEMENTED) or code in _WAITS:
            fix = f"; correct dicomweb_token or dicomweb_user of archives.{self._name}" if code in (401, 403) else ""
            raise ArchiveUnavailable(f"{self._name}: DICOMweb answers with {code}{fix}")

    def _answers(self, batch: Sequence[Sendable], code: int, content: bytes) -> Iterator[Answer]:
        """What became of each (PS3.18 10.5.3). 200: all stored; 202: some; 409: none.

        Where the answer lists instances it is believed in what it lists alone: there are servers that pass over what
        they do not understand, and answer 200.
        """
        self._require_let_in(code)
        told = _told(content)
        failed = _reasons(told, _FAILED_SOP_SEQUENCE, _FAILURE_REASON)
        stored = _reasons(told, _REFERENCED_SOP_SEQUENCE, _WARNING_REASON)
        if code not in (200, 202) and not failed:
            raise Rejected(
                f"{self._name}: DICOMweb answers what is sent with {code}; archives.{self._name}.dicomweb must be the "
                "base URL of DICOMweb services that take STOW-RS"
            )
        for file in batch:
            uid = file.sop_instance_uid
            if uid in failed:
                yield self._failed(file, failed[uid])
            elif uid in stored or (code == httpx.codes.OK and not told):
                warned = stored.get(uid, 0)
                yield Answer(file, warning=f"status 0x{warned:04X}" if warned else "")
            else:
                raise ArchiveUnavailable(f"{self._name}: DICOMweb does not say what became of what was sent")

    def _failed(self, file: Sendable, reason: int) -> Answer:
        said = verdict(reason)
        if said == Verdict.LATER:
            raise ArchiveUnavailable(f"{self._name}: out of resources (0x{reason:04X})")
        if said == Verdict.WARNED:
            return Answer(file, warning=f"status 0x{reason:04X}")
        unsupported = said == Verdict.UNSUPPORTED or reason == _TRANSFER_SYNTAX_NOT_SUPPORTED
        words = f"{UID(file.sop_class_uid).name} is refused by {self._name} with status 0x{reason:04X}"
        return Answer(file, words, unsupported=unsupported)


class MultipartBody:
    """Files as the parts of one body (RFC 2387), read while they are sent."""

    def __init__(self, files: Sequence[Sendable]) -> None:
        self.boundary = secrets.token_hex(16)
        self._parts = [(file.path, file.path.stat().st_size) for file in files]
        # no transfer-syntax beside it: Orthanc's plugin 1.7 passes such a part over, and answers 200
        self._head = f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{self.boundary}--\r\n".encode()

    @property
    def length(self) -> int:
        """In bytes."""
        return sum(len(self._head) + size + 2 for _, size in self._parts) + len(self._end)

    def chunks(self) -> Iterator[bytes]:
        """The body from its beginning. Raises `OSError` where a file cannot be read, or has another length by now."""
        for path, size in self._parts:
            yield self._head
            yield from _file(path, size)
            yield b"\r\n"
        yield self._end


def _file(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size == size:
            while size and (chunk := file.read(min(size, _CHUNK))):
                size -= len(chunk)
                yield chunk
    if size:
        raise OSError("a file that is being sent has another length by now")


def _batches(files: Sequence[Sendable]) -> Iterator[list[Sendable]]:
    batch: list[Sendable] = []
    total = 0
    for file in files:
        size = file.path.stat().st_size
        if batch and (len(batch) == MOST_FILES or total + size > MOST_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(file)
        total += size
    if batch:
        yield batch


def _whole(response: httpx.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > _LARGEST_ANSWER:
            raise httpx.DecodingError("too long")
    return bytes(content)


def _told(content: bytes) -> Mapping[str, Any]:
    """The data set of an answer (PS3.18 I.2), or nothing where it is none in JSON."""
    try:
        told = json.loads(content)
    except ValueError:
        return {}
    if isinstance(told, list) and len(told) == 1:
        told = told[0]
    return told if isinstance(told, dict) else {}


def _reasons(told: Mapping[str, Any], sequence: str, reason: str) -> dict[str, int]:
    """Reasons by SOP Instance UID, 0 where none is given."""
    found = {}
    for item in _values(told, sequence):
        if isinstance(item, dict) and (uid := _values(item, _REFERENCED_INSTANCE)):
            given = _values(item, reason)
            found[str(uid[0])] = int(given[0]) if given and str(given[0]).isdigit() else 0
    return found


def _values(item: Mapping[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []
