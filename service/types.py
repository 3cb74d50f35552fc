"""What the rooms of the service hand to each other: result objects and destinations."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClientTls:
    """How TLS is spoken to an archive.

    Attributes
    ----------
    authorities
        PEM file of the authorities that sign the archive's certificate.
    certificate, key
        PEM files of what the archive is shown; None for nothing.
    name
        Which its certificate must be for: a DNS name or an address.
    """

    authorities: Path
    certificate: Path | None
    key: Path | None
    name: str


@dataclass(frozen=True)
class Destination:
    """An archive that results are sent to: its AE title, host and DICOM port, and TLS where it is spoken there."""

    name: str
    ae_title: str
    host: str
    port: int
    tls: ClientTls | None = None


@dataclass(frozen=True)
class ResultObject:
    """One encoded result: ``kind`` is ``SEG`` or ``SR``, ``path`` a DICOM file, ``series_uid`` its own series.

    ``predecessors`` are the SOP Instance UIDs of the reports that an SR supersedes.
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    series_uid: str = ""
    predecessors: tuple[str, ...] = ()
