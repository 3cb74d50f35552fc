"""The archives as the settings describe them."""

import re
import threading
from collections.abc import Sequence

import structlog

from service.archive.base import Archive, Fetch, Keep, Query, SeriesEntry, Sought, StudyEntry
from service.archive.dicomweb import DicomWeb
from service.archive.dimse import Dimse
from service.errors import Rejected
from service.settings import ArchiveSettings, Settings
from service.types import Destination

log = structlog.get_logger()

_UID = re.compile(r"[0-9.]{1,64}")


def archives_of(settings: Settings) -> dict[str, Archive]:
    """The archive of each sender, by its calling AE title; none where the settings have it asked nothing.

    Call it once: an archive that refuses a question is remembered there.
    """
    asked = {
        name: ArchiveClient(settings.destination(name), archive, settings.node.ae_title)
        for name, archive in settings.archives.items()
        if archive.count != "no"
    }
    return {title: asked[sender.archive] for title, sender in settings.senders.items() if sender.archive in asked}


class ArchiveClient:
    """An `Archive` that is asked and that sends in the ways its settings name.

    An archive that refuses to be asked is asked no more.
    """

    def __init__(self, to: Destination, settings: ArchiveSettings, calling_ae_title: str) -> None:
        self._name = to.name
        dimse = Dimse(to, calling_ae_title)
        web = DicomWeb(to.name, settings.web, to.tls)
        self._query: Query = web if settings.count == "qido" else dimse
        ways: dict[str, Fetch] = {"c-get": dimse.get, "c-move": dimse.move, "wado-rs": web.fetch}
        self._fetch = ways.get(settings.fetch)
        self._lock = threading.Lock()
        self._refusal = ""

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """As `Archive.count`, but None where the archive refuses, which is logged once."""
        if self._refusal or not _known((study_uid, series_uid)):
            return None
        try:
            return self._query.count(study_uid, series_uid)
        except Rejected as error:
            self._ask_no_more(str(error))
            return None

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """As `Archive.instances`."""
        if self._refusal:
            raise Rejected(self._refusal)
        return self._query.instances(study_uid, series_uid) if _known((study_uid, series_uid)) else ()

    def series(self, study_uid: str) -> tuple[SeriesEntry, ...]:
        """As `Query.series`. Raises as `Archive`."""
        return self._query.series(study_uid) if _known((study_uid,)) else ()

    def studies(self, study_uid: str) -> tuple[StudyEntry, ...]:
        """As `Query.studies`. Raises as `Archive`."""
        return self._query.studies(study_uid) if _known((study_uid,)) else ()

    def search(self, sought: Sought) -> tuple[StudyEntry, ...]:
        """As `Query.search`. Raises as `Archive`."""
        return self._query.search(sought)

    @property
    def fetches(self) -> bool:
        """As `Archive.fetches`."""
        return self._fetch is not None

    def fetch(self, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str], keep: Keep) -> int:
        """As `Archive.fetch`."""
        wanted = [uid for uid in sop_instance_uids if _known((study_uid, series_uid, uid))]
        return self._fetch(study_uid, series_uid, wanted, keep) if self._fetch and wanted else 0

    def _ask_no_more(self, refusal: str) -> None:
        with self._lock:
            if not self._refusal:
                self._refusal = refusal
                fix = f'archives.{self._name}.count = "no" says so from the start; else correct it and restart'
                log.warning("archive.asked_no_more", archive=self._name, reason=refusal, fix=fix)


def _known(uids: Sequence[str]) -> bool:
    """Whether all are UIDs: an empty one would match everything, and so would some that are no UIDs."""
    return all(_UID.fullmatch(uid) for uid in uids)
