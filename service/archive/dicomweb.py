"""Query and retrieve by DICOMweb: QIDO-RS and WADO-RS (PS3.18 10.6, 10.4)."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx

from service.archive.base import (
    CONNECT_SECONDS,
    FETCH_SECONDS,
    QUERY_SECONDS,
    QUIET_SECONDS,
    Keep,
    SeriesEntry,
    Sought,
    StudyEntry,
    same_patient,
)
from service.archive.multipart import parameter_of, parts
from service.errors import ArchiveUnavailable, Rejected
from service.types import ClientTls, Web
from service.wire.http import web_client

PAGE = 1000
"""So many instances are asked for in one search."""
NUMBER_OF_STUDY_RELATED_INSTANCES, NUMBER_OF_SERIES_RELATED_INSTANCES = "00201208", "00201209"
STUDY_INSTANCE_UID, SERIES_INSTANCE_UID = "0020000D", "0020000E"
SOP_INSTANCE_UID = "00080018"
STUDY_DATE, MODALITY, MODALITIES_IN_STUDY = "00080020", "00080060", "00080061"
PATIENT_ID, ISSUER_OF_PATIENT_ID = "00100020", "00100021"
STUDY_DESCRIPTION = "00081030"

_STUDY = (MODALITIES_IN_STUDY, NUMBER_OF_STUDY_RELATED_INSTANCES)
"""What is wanted of a study. Each in a parameter of its own: of a list with commas, Orthanc 1.10 takes one."""
_AS_IT_IS = 'multipart/related; type="application/dicom"; transfer-syntax=*'

Keys = Mapping[str, str | tuple[str, ...]]
"""Of a search; what has several values is a parameter for each."""


@dataclass(frozen=True)
class Answer:
    """A whole answer over HTTP."""

    status: int
    content_type: str
    content: bytes


class DicomWeb:
    """An archive that is asked by DICOMweb (`service.archive.base.Query`).

    Parameters
    ----------
    name
        Of the archive, as the settings have it.
    web
        Where its DICOMweb services are, and what they are shown of who asks.
    tls
        How TLS is spoken to it; None for ``https`` with the authorities of the system.
    """

    def __init__(self, name: str, web: Web, tls: ClientTls | None = None) -> None:
        self._name = name
        self._web = web
        self._tls = tls

    # ---- QIDO-RS ---------------------------------------------------------------------------------------------------

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """NumberOfSeriesRelatedInstances, or the number of instances where the archive does not give that."""
        end = time.monotonic() + QUERY_SECONDS
        keys = _keys(study_uid, series_uid, includefield=NUMBER_OF_SERIES_RELATED_INSTANCES)
        with self._client() as client:
            found = [
                match
                for match in self._search(client, "series", keys, end)
                if _value(match, SERIES_INSTANCE_UID) == series_uid
            ]
            if not found:
                return None
            numbers = [_value(match, NUMBER_OF_SERIES_RELATED_INSTANCES) for match in found]
            known = [int(number) for number in numbers if number]
            return max(known) if known else len(self._list(client, study_uid, series_uid, end))

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """SOP Instance UIDs, page by page."""
        with self._client() as client:
            return self._list(client, study_uid, series_uid, time.monotonic() + QUERY_SECONDS)

    def series(self, study_uid: str) -> tuple[SeriesEntry, ...]:
        """Series with their modality."""
        with self._client() as client:
            found = self._search(client, "series", {"StudyInstanceUID": study_uid}, time.monotonic() + QUERY_SECONDS)
        entries = (SeriesEntry(_value(match, SERIES_INSTANCE_UID), _value(match, MODALITY)) for match in found)
        return tuple(dict.fromkeys(entry for entry in entries if entry.series_uid))

    def studies(self, study_uid: str) -> tuple[StudyEntry, ...]:
        """From two searches: for the Patient ID, and by it."""
        with self._client() as client:
            keys: Keys = {"StudyInstanceUID": study_uid}
            this = next(iter(self._search(client, "studies", keys, time.monotonic() + QUERY_SECONDS)), None)
            if this is None or not _value(this, PATIENT_ID):
                return ()
            keys = {"PatientID": _value(this, PATIENT_ID), "includefield": _STUDY}
            found = self._search(client, "studies", keys, time.monotonic() + QUERY_SECONDS)
        # an identifier may hold * and ?, which match others; and two hospitals may have given the same one
        return _studies(match for match in found if same_patient(_patient(this), _patient(match)))

    def search(self, sought: Sought) -> tuple[StudyEntry, ...]:
        """From a search for studies, page by page.

        Descriptions are compared here: they are no key that an archive must match by (PS3.18 10.6.1.2.2), and Orthanc
        finds none.
        """
        keys: dict[str, str | tuple[str, ...]] = {
            "StudyDate": sought.dates,
            "includefield": (*_STUDY, STUDY_DESCRIPTION),
        }
        if sought.modality:
            keys["ModalitiesInStudy"] = sought.modality
        end = time.monotonic() + QUERY_SECONDS
        seen: set[str] = set()
        entries: dict[str, StudyEntry] = {}
        with self._client() as client:
            while True:
                page = self._search(client, "studies", {**keys, "limit": str(PAGE), "offset": str(len(seen))}, end)
                if not (new := {entry.study_uid for entry in _studies(page)} - seen):
                    return tuple(entries.values())
                seen |= new
                fitting = [match for match in page if _fits(_value(match, STUDY_DESCRIPTION), sought.description)]
                entries |= {entry.study_uid: entry for entry in _studies(fitting) if entry.study_uid in new}

    def _list(self, client: httpx.Client, study_uid: str, series_uid: str, end: float) -> tuple[str, ...]:
        uids: dict[str, None] = {}
        while True:
            page = _keys(study_uid, series_uid, limit=str(PAGE), offset=str(len(uids)))
            found = [_value(match, SOP_INSTANCE_UID) for match in self._search(client, "instances", page, end)]
            new = dict.fromkeys(uid for uid in found if uid and uid not in uids)
            if not new:  # a page may be shorter than was asked for, and some archives give all of it again
                return tuple(uids)
            uids |= new

    def _search(self, client: httpx.Client, resource: str, keys: Keys, end: float) -> list[dict[str, Any]]:
        """Search at the root, where a 404 can mean nothing but a wrong URL."""
        answer = self._get(client, f"/{resource}", "application/dicom+json", end, keys)
        if answer.status == httpx.codes.NO_CONTENT:
            return []
        self._require_ok(answer, "a search")
        try:
            found = json.loads(answer.content)
        except ValueError:
            found = None
        if not isinstance(found, list) or not all(isinstance(match, dict) for match in found):
            raise Rejected(f"{self._name} answers a search with no DICOM JSON; {self._fix}")
        return found

    # ---- WADO-RS ---------------------------------------------------------------------------------------------------

    def fetch(self, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str], keep: Keep) -> int:
        """Fetch one by one, in the transfer syntax in which the archive holds each; what it does not have is left."""
        end = time.monotonic() + FETCH_SECONDS
        sent = 0
        with self._client() as client:
            for uid in sop_instance_uids:
                path = f"/studies/{study_uid}/series/{series_uid}/instances/{uid}"
                answer = self._get(client, path, _AS_IT_IS, end)
                if answer.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                    continue
                self._require_ok(answer, "a retrieval")
                for file in self._files(answer):
                    keep(file)
                    sent += 1
        return sent

    def _files(self, answer: Answer) -> Iterator[bytes]:
        boundary = parameter_of(answer.content_type, "boundary")
        if not boundary:
            raise Rejected(f"{self._name} answers a retrieval with no multipart content; {self._fix}")
        try:
            yield from parts(answer.content, boundary.encode())
        except ValueError as error:
            raise ArchiveUnavailable(f"{self._name}: an answer to a retrieval is incomplete") from error

    # ---- HTTP ------------------------------------------------------------------------------------------------------

    @property
    def _fix(self) -> str:
        return f"archives.{self._name}.dicomweb must be the base URL of its DICOMweb services"

    def _client(self) -> AbstractContextManager[httpx.Client]:
        return web_client(self._name, self._web, self._tls)

    def _get(self, client: httpx.Client, path: str, accept: str, end: float, keys: Keys | None = None) -> Answer:
        """The whole answer. Raises `ArchiveUnavailable` where it is not there by ``end`` (monotonic seconds)."""
        left = max(0.1, end - time.monotonic())
        limits = httpx.Timeout(min(left, QUIET_SECONDS), connect=CONNECT_SECONDS)
        pieces = []
        url = self._web.url + path
        with client.stream("GET", url, params=keys, headers={"Accept": accept}, timeout=limits) as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > end:
                    raise ArchiveUnavailable(f"{self._name}: DICOMweb takes too long to answer")
        return Answer(answer.status_code, answer.headers.get("content-type", ""), b"".join(pieces))

    def _require_ok(self, answer: Answer, what: str) -> None:
        code = answer.status
        if code == httpx.codes.OK:
            return
        if (code >= 500 and code != httpx.codes.NOT_IMPLEMENTED) or code in (408, 429):
            raise ArchiveUnavailable(f"{self._name}: DICOMweb answers {what} with {code}")
        raise Rejected(f"{self._name}: DICOMweb answers {what} with {code}; {self._fix}, open to this node")


def _keys(study_uid: str, series_uid: str, **others: str) -> dict[str, str]:
    return {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, **others}


def _value(match: dict[str, Any], tag: str) -> str:
    """The first value of an attribute (PS3.18 F.2), or nothing. Numbers may come as strings."""
    values = match.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _studies(matches: Iterable[dict[str, Any]]) -> tuple[StudyEntry, ...]:
    return tuple(
        StudyEntry(
            _value(match, STUDY_INSTANCE_UID),
            _value(match, STUDY_DATE),
            tuple(map(str, match.get(MODALITIES_IN_STUDY, {}).get("Value") or ())),
            int(count) if (count := _value(match, NUMBER_OF_STUDY_RELATED_INSTANCES)).isdigit() else None,
        )
        for match in matches
        if _value(match, STUDY_INSTANCE_UID)
    )


def _fits(description: str, sought: str) -> bool:
    """Whether a text is what is sought, where * and ? stand for others (PS3.4 C.2.2.2.4); nothing sought fits all."""
    pattern = "".join({"*": ".*", "?": "."}.get(letter) or re.escape(letter) for letter in sought)
    return not sought or re.fullmatch(pattern, description, re.IGNORECASE) is not None


def _patient(match: dict[str, Any]) -> tuple[str, str]:
    return _value(match, PATIENT_ID), _value(match, ISSUER_OF_PATIENT_ID)
