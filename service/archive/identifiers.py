"""Identifiers of C-FIND, C-GET and C-MOVE (PS3.4 C): what is asked for, and what of the answers counts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from pydicom import Dataset

from service.archive.base import StudyEntry

CHUNK = 100
"""So many instances are asked for in one request: some archives limit the length of an identifier."""
STUDY: dict[str, str | None] = dict.fromkeys(("StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances"))
"""What is asked for of each study."""


def studies_of(matches: Iterable[Dataset]) -> tuple[StudyEntry, ...]:
    """The studies that answers at STUDY level tell of."""
    return tuple(
        StudyEntry(
            str(match.StudyInstanceUID),
            str(match.get("StudyDate") or ""),
            _values(match.get("ModalitiesInStudy")),
            None if (count := match.get("NumberOfStudyRelatedInstances")) is None else int(count),
        )
        for match in matches
        if match.get("StudyInstanceUID")
    )


def patient_of(match: Dataset) -> tuple[str, str]:
    """Patient ID and its issuer."""
    return str(match.get("PatientID") or ""), str(match.get("IssuerOfPatientID") or "")


def _values(value: object) -> tuple[str, ...]:
    """Of an attribute that may have several, one or none."""
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(map(str, cast(Iterable[object], value)))


def identifier(level: str, study_uid: str, series_uid: str, **keys: str | list[str] | None) -> Dataset:
    """Study and series as unique keys (PS3.4 C.6.2.1), and what else is asked for."""
    return query(level, StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, **keys)


def query(level: str, **keys: str | list[str] | None) -> Dataset:
    """An identifier: keys with a value are matched, those without are asked for (PS3.4 C.2.2.1)."""
    wanted = Dataset()
    wanted.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(wanted, keyword, value)
    return wanted


def chunks(study_uid: str, series_uid: str, sop_instance_uids: Sequence[str]) -> Iterator[Dataset]:
    """Identifiers of instances of a series, `CHUNK` in each."""
    for start in range(0, len(sop_instance_uids), CHUNK):
        chunk = list(sop_instance_uids[start : start + CHUNK])
        yield identifier("IMAGE", study_uid, series_uid, SOPInstanceUID=chunk)
