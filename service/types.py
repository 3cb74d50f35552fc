"""What the rooms of the service hand to each other: result objects and destinations."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        Which its certificate must be for: a DNS name or an address; empty for the host that is connected to.
    """

    authorities: Path
    certificate: Path | None
    key: Path | None
    name: str


@dataclass(frozen=True)
class Web:
    """How an archive's DICOMweb services are spoken to.

    Attributes
    ----------
    url
        Their base, without a slash at the end.
    token
        Bearer token (RFC 6750), or empty.
    user, password
        For basic authentication (RFC 7617), or empty.
    """

    url: str
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def authorization(self) -> Mapping[str, str]:
        """The header of a request that shows who asks; none where nothing is to be shown."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.user:
            return {"Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}
        return {}


@dataclass(frozen=True)
class Destination:
    """An archive that results are sent to: its AE title, host and DICOM port, and TLS where it is spoken there.

    ``web`` says that results go there by STOW-RS.
    """

    name: str
    ae_title: str
    host: str
    port: int
    tls: ClientTls | None = None
    web: Web | None = None


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
