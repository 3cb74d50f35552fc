"""The seam between the node and what an archive can be asked: by DIMSE, by DICOMweb, or by a mixture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Keep = Callable[[bytes], None]
"""Takes one instance: a whole DICOM file (PS3.10), its data set bit for bit as the archive sent it. What it raises
ends the fetch."""


@dataclass(frozen=True)
class SeriesEntry:
    """A series as an archive lists it."""

    series_uid: str
    modality: str


@dataclass(frozen=True)
class StudyEntry:
    """A study as an archive lists it; ``date`` as in DICOM (YYYYMMDD), empty where it is not known.

    ``instances`` is how many it says that the study has; None where it does not say.
    """

    study_uid: str
    date: str
    modalities: tuple[str, ...]
    instances: int | None = None


@dataclass(frozen=True)
class Sought:
    """Which studies an archive is asked for.

    Attributes
    ----------
    dates
        Range of StudyDate (PS3.4 C.2.2.2.5), ``YYYYMMDD-YYYYMMDD``.
    modality
        One of ModalitiesInStudy; empty for any.
    description
        StudyDescription, where ``*`` and ``?`` stand for anything; empty for any.
    """

    dates: str
    modality: str = ""
    description: str = ""


class Archive(Protocol):
    """An archive that can be asked about a series. All methods may be called from several threads at once.

    Raises
    ------
    ArchiveUnavailable
        From each method: the archive cannot be reached, takes too long, or is out of resources (0xA7nn). Ask later.
    Rejected
        From each method: it refuses this node, or this way of asking, for good.
    """

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """How many instances of the series it has; None where it does not know the series. Takes at most 10 s."""

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """The SOP Instance UIDs that it has of the series, none twice; empty where it does not know the series. Takes
        at most 10 s.
        """

    @property
    def fetches(self) -> bool:
        """Whether it sends what `fetch` asks for; otherwise that does nothing."""

    def fetch(self, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str], keep: Keep) -> int:
        """Have it send instances of a series, and return how many it says that it has sent.

        It may be quiet for 10 s at a time and take a minute in all, after which what has not come by then does not come
        (`ArchiveUnavailable`); what has come was kept.
        """


class Query(Protocol):
    """A way to ask. Raises as `Archive`."""

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """As `Archive.count`."""

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """As `Archive.instances`."""

    def series(self, study_uid: str) -> tuple[SeriesEntry, ...]:
        """The series of a study; empty where it does not know the study. Takes at most 10 s."""

    def studies(self, study_uid: str) -> tuple[StudyEntry, ...]:
        """All studies of the patient of a study, that one among them.

        Empty where the archive does not know the study, or has no Patient ID of it. Takes at most 20 s.
        """

    def search(self, sought: Sought) -> tuple[StudyEntry, ...]:
        """The studies that match. Takes at most 10 s."""


Fetch = Callable[[str, str, Sequence[str], Keep], int]
"""A way to fetch: as `Archive.fetch`."""


def same_patient(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two pairs of Patient ID and its issuer stand for one patient; an issuer that is not known may be any."""
    return one[0] == other[0] and (one[1] == other[1] or not (one[1] and other[1]))


CONNECT_SECONDS = 2.0
"""Limit for each of: the connection, its acceptance, its end."""
QUERY_SECONDS = 8.0
"""Limit for a query, from before the connection to the last answer."""
QUIET_SECONDS = 10.0
"""Limit for each pause while instances are fetched."""
FETCH_SECONDS = 60.0
"""Limit for one fetch."""
