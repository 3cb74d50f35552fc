"""Who is at the other end of a connection: its address, and its certificate where it has shown one."""

import hashlib
import re
import socket
import ssl
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Self

_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "DNS": "DNS",
    "IP Address": "IP",
    "URI": "URI",
}
"""How the settings call what a certificate names (RFC 4514 section 3, RFC 5280 4.2.1.6)."""


@dataclass(frozen=True)
class Certificate:
    """What a verified TLS certificate says of its bearer.

    Attributes
    ----------
    names
        Of its subject and alternative subjects, as ``CN=ct1`` and ``DNS=ct1.example``.
    fingerprint
        SHA-256 of the whole certificate, in hexadecimal digits.
    """

    names: frozenset[str]
    fingerprint: str

    @classmethod
    def of(cls, connection: ssl.SSLSocket | ssl.SSLObject) -> Self | None:
        """What the peer has shown, or None."""
        content = connection.getpeercert(binary_form=True)
        return None if content is None else cls(names_of(connection.getpeercert()), hashlib.sha256(content).hexdigest())

    def matches(self, wanted: str) -> bool:
        """Whether a setting means it: ``sha256:...``, or names that it bears all of (``CN=ct1, O=Clinic``)."""
        if wanted.startswith("sha256:"):
            return wanted.removeprefix("sha256:").replace(":", "").lower() == self.fingerprint
        return self.names.issuperset(re.split(r",\s*(?=[A-Z]+=)", wanted))

    def __str__(self) -> str:
        return ", ".join(sorted(self.names))


@dataclass(frozen=True)
class Peer:
    """The other end of a connection: an IP address, and the certificate that was verified at the handshake."""

    address: str
    certificate: Certificate | None = None

    @classmethod
    def of(cls, connection: socket.socket) -> Self:
        """The peer of a connection, after the handshake where it is one of TLS. Raises `OSError` where it is lost."""
        address = ip_address(connection.getpeername()[0].partition("%")[0])  # fe80::1%eth0
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        certificate = Certificate.of(connection) if isinstance(connection, ssl.SSLSocket) else None
        return cls(str(address), certificate)


def names_of(certificate: dict[str, Any] | None) -> frozenset[str]:
    """Names of a certificate as `ssl.SSLSocket.getpeercert` tells it."""
    told = certificate or {}
    pairs = [pair for part in told.get("subject", ()) for pair in part] + list(told.get("subjectAltName", ()))
    return frozenset(f"{_SHORT[kind]}={value}" for kind, value in pairs if kind in _SHORT)
