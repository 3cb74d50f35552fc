"""``[tls]`` and ``[archives.NAME.tls]``: certificates."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.settings.section import Port, Section


class TlsSettings(Section):
    """``[tls]``: the second DICOM listener, for TLS (PS3.15 B.12). It is there where ``certificate`` is set."""

    port: Port = 2762
    certificate: Path | None = None
    """PEM file of the node's certificate, followed by those that lead to the authority. Read again when it changes."""
    key: Path | None = None
    """PEM file of its private key, not encrypted."""
    authorities: Path | None = None
    """PEM file of the authorities that sign the senders' certificates."""
    revoked: Path | None = None
    """PEM file of the lists in which each of these authorities says which certificates count no more (CRLs)."""
    clients: Literal["require", "optional", "none"] = "require"
    """Whether a sender must show a certificate; one that is shown must be right in any case but none."""
    only: bool = False
    """Do not listen without TLS."""
    handshake_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0

    @property
    def on(self) -> bool:
        """Whether to listen with TLS."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.certificate is None and (self.key or self.authorities or self.revoked or self.only):
            raise ValueError("tls.certificate is missing; name the PEM file of the node's certificate")
        if self.certificate is not None and self.key is None:
            raise ValueError("tls.key is missing; name the PEM file of the certificate's private key")
        if self.certificate is not None and self.clients != "none" and self.authorities is None:
            raise ValueError(
                "tls.authorities is missing; name the PEM file of the authorities that sign the senders' certificates, "
                'or set tls.clients = "none" where senders have no certificates'
            )
        return self


class ArchiveTlsSettings(Section):
    """``[archives.NAME.tls]``: this archive is spoken to by TLS (PS3.15 B.12) on its port, and where its DICOMweb is
    ``https``."""

    authorities: Path
    """PEM file of the authorities that sign the archive's certificate. Files are read for each association."""
    certificate: Path | None = None
    """PEM file of the certificate that it is shown; default: that of ``[tls]``, or none."""
    key: Path | None = None
    """PEM file of its private key, not encrypted."""
    name: str = ""
    """Which the archive's certificate must be for: a DNS name or an address; default: its host, or that of the URL."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; name both, or none for those of [tls]")
        return self
