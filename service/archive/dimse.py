"""Query and retrieve by DIMSE: C-FIND, C-GET and C-MOVE in the Study Root model (PS3.4 C)."""

import time
from collections.abc import Iterator, Sequence

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

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
from service.archive.identifiers import STUDY, chunks, identifier, patient_of, query, studies_of
from service.errors import ArchiveUnavailable, Rejected
from service.receive.contexts import DECODABLE, PROCESSED
from service.types import Destination
from service.wire import Patience, association

STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
STUDY_ROOT_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")
STUDY_ROOT_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")
"""Study Root Query/Retrieve Information Model (PS3.4 C.6.2)."""

_QUERY = Patience(CONNECT_SECONDS, QUERY_SECONDS)
_FETCH = Patience(CONNECT_SECONDS, QUIET_SECONDS)
_SYNTAXES: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_PENDING = (0xFF00, 0xFF01)
_OUT_OF_RESOURCES = 0xA700
_FOR_GOOD = {
    0x0122: "it does not support the SOP class",
    0x0124: "it does not allow it to this AE title",
    0xA801: "it does not know the AE title to send to; make this node known there, with host and port",
    0xA900: "the request does not match the SOP class",
}
"""Statuses that another attempt would not change (PS3.4 tables C.4-1 to C.4-3, PS3.7 C); all others may pass."""


class Dimse:
    """An archive that is asked by DIMSE (`service.archive.base.Query`).

    Parameters
    ----------
    archive
        AE title, host and port.
    calling
        Our own AE title; the one that a C-MOVE sends to.
    """

    def __init__(self, archive: Destination, calling: str) -> None:
        self._archive = archive
        self._calling = calling

    # ---- C-FIND ----------------------------------------------------------------------------------------------------

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """NumberOfSeriesRelatedInstances, or the number of instances where the archive does not give that."""
        end = time.monotonic() + QUERY_SECONDS
        wanted = identifier("SERIES", study_uid, series_uid, NumberOfSeriesRelatedInstances=None)
        with association(
            self._archive, self._calling, [build_context(STUDY_ROOT_FIND, _SYNTAXES)], patience=_QUERY
        ) as to:
            found = [match for match in self._find(to, wanted, end) if match.get("SeriesInstanceUID") == series_uid]
            if not found:
                return None
            numbers = [number for match in found if (number := match.get("NumberOfSeriesRelatedInstances")) is not None]
            return max(map(int, numbers)) if numbers else len(self._list(to, study_uid, series_uid, end))

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """SOP Instance UIDs, from a query at IMAGE level."""
        end = time.monotonic() + QUERY_SECONDS
        with association(
            self._archive, self._calling, [build_context(STUDY_ROOT_FIND, _SYNTAXES)], patience=_QUERY
        ) as to:
            return self._list(to, study_uid, series_uid, end)

    def series(self, study_uid: str) -> tuple[SeriesEntry, ...]:
        """From a query at SERIES level."""
        wanted = query("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID=None, Modality=None)
        with association(
            self._archive, self._calling, [build_context(STUDY_ROOT_FIND, _SYNTAXES)], patience=_QUERY
        ) as to:
            found = list(self._find(to, wanted, time.monotonic() + QUERY_SECONDS))
        entries = (
            SeriesEntry(str(match.get("SeriesInstanceUID") or ""), str(match.get("Modality") or "")) for match in found
        )
        return tuple(dict.fromkeys(entry for entry in entries if entry.series_uid))

    def studies(self, study_uid: str) -> tuple[StudyEntry, ...]:
        """From two queries at STUDY level: for the Patient ID, and by it."""
        keys = {**STUDY, "PatientID": None, "IssuerOfPatientID": None}
        with association(
            self._archive, self._calling, [build_context(STUDY_ROOT_FIND, _SYNTAXES)], patience=_QUERY
        ) as to:
            wanted = query("STUDY", StudyInstanceUID=study_uid, **keys)
            this = next(iter(list(self._find(to, wanted, time.monotonic() + QUERY_SECONDS))), None)
            patient = "" if this is None else str(this.get("PatientID") or "")
            if this is None or not patient:
                return ()
            wanted = query("STUDY", StudyInstanceUID=None, **(keys | {"PatientID": patient}))
            found = list(self._find(to, wanted, time.monotonic() + QUERY_SECONDS))
        # an identifier may hold * and ?, which match others; and two hospitals may have given the same one
        return studies_of(match for match in found if same_patient(patient_of(this), patient_of(match)))

    def search(self, sought: Sought) -> tuple[StudyEntry, ...]:
        """From a query at STUDY level."""
        keys: dict[str, str | None] = {"StudyDate": sought.dates, "ModalitiesInStudy": sought.modality or None}
        if sought.description:
            keys["StudyDescription"] = sought.description
        wanted = query("STUDY", StudyInstanceUID=None, **(STUDY | keys))
        with association(
            self._archive, self._calling, [build_context(STUDY_ROOT_FIND, _SYNTAXES)], patience=_QUERY
        ) as to:
            return studies_of(list(self._find(to, wanted, time.monotonic() + QUERY_SECONDS)))

    def _list(self, to: Association, study_uid: str, series_uid: str, end: float) -> tuple[str, ...]:
        wanted = identifier("IMAGE", study_uid, series_uid, SOPInstanceUID=None)
        uids = (str(match.get("SOPInstanceUID") or "") for match in self._find(to, wanted, end))
        return tuple(dict.fromkeys(uid for uid in uids if uid))

    def _find(self, to: Association, wanted: Dataset, end: float) -> Iterator[Dataset]:
        to.dimse_timeout = max(0.1, end - time.monotonic())
        for status, match in to.send_c_find(wanted, STUDY_ROOT_FIND):
            if self._goes_on("C-FIND", status, end) and match is not None:
                yield match
            to.dimse_timeout = max(0.1, end - time.monotonic())

    # ---- C-GET and C-MOVE ------------------------------------------------------------------------------------------

    def get(self, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str], keep: Keep) -> int:
        """Fetch by C-GET: the archive sends over the association that we asked for.

        Each SOP class is proposed with each transfer syntax in a presentation context of its own, so that the archive
        can send every instance as it holds it.
        """
        end = time.monotonic() + FETCH_SECONDS
        failures: list[Exception] = []

        def store(event: evt.Event) -> int:
            if failures or time.monotonic() > end:
                event.assoc.dimse_timeout = 0.1  # nothing more will come
                event.assoc.abort()
                return _OUT_OF_RESOURCES
            try:
                keep(event.encoded_dataset())
            except Exception as error:  # pynetdicom would log it and go on
                failures.append(error)
                return _OUT_OF_RESOURCES
            return 0x0000

        contexts = [build_context(STUDY_ROOT_GET, _SYNTAXES)]
        contexts += [build_context(sop_class, syntax) for sop_class in PROCESSED for syntax in DECODABLE]
        roles = [build_role(sop_class, scp_role=True) for sop_class in PROCESSED]
        handlers = [(evt.EVT_C_STORE, store)]
        sent = 0
        with association(self._archive, self._calling, contexts, roles, handlers, _FETCH) as to:
            try:
                for wanted in chunks(study_uid, series_uid, sop_instance_uids):
                    sent += self._sent("C-GET", to.send_c_get(wanted, STUDY_ROOT_GET), end)
            except ValueError as error:  # no accepted presentation context
                raise Rejected(f"{self._archive.name} does not take C-GET; choose another way to fetch") from error
            finally:
                if failures:
                    raise failures[0]
        return sent

    def move(self, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str], keep: Keep) -> int:
        """Fetch by C-MOVE: the archive sends to where it knows our AE title; ``keep`` is not used."""
        end = time.monotonic() + FETCH_SECONDS
        contexts = [build_context(STUDY_ROOT_MOVE, _SYNTAXES)]
        sent = 0
        with association(self._archive, self._calling, contexts, patience=_FETCH) as to:
            for wanted in chunks(study_uid, series_uid, sop_instance_uids):
                sent += self._sent("C-MOVE", to.send_c_move(wanted, self._calling, STUDY_ROOT_MOVE), end)
        return sent

    def _sent(self, service: str, responses: Iterator[tuple[Dataset, Dataset | None]], end: float) -> int:
        """The number of sub-operations that were completed, as the responses say."""
        sent = 0
        for status, _ in responses:
            self._goes_on(service, status, end)
            numbers = status.get("NumberOfCompletedSuboperations"), status.get("NumberOfWarningSuboperations")
            sent = max(sent, sum(int(number or 0) for number in numbers))
        return sent

    def _goes_on(self, service: str, status: Dataset, end: float) -> bool:
        """Whether a response is one of several; raises where its status says that there will be no answer."""
        name = self._archive.name
        code = status.get("Status")
        if code is None or (code in _PENDING and time.monotonic() > end):
            raise ArchiveUnavailable(
                f"{name}: no answer to {service} in time, or it ended the association; it must know the AE title "
                f"{self._calling}, and let it ask"
            )
        if code in _FOR_GOOD:
            raise Rejected(f"{name} refuses {service} (0x{code:04X}): {_FOR_GOOD[code]}")
        if code not in (0x0000, 0xB000, *_PENDING):  # 0xB000: some could not be sent
            raise ArchiveUnavailable(f"{name}: {service} failed with status 0x{code:04X}")
        return code in _PENDING
