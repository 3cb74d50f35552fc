"""DICOM TLS as a server: the BCP 195 RFC 8996, 9325 profile (PS3.15 B.12), with certificates that may change."""

import socket
import ssl
import threading
import time
from pathlib import Path

import structlog

from service.errors import ConfigurationError
from service.settings import TlsSettings
from service.tls import CIPHERS, present, require_readable, trust

log = structlog.get_logger()

_VERIFY = {"require": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
_HANDSHAKE = 0x16  # the first byte of a client that speaks TLS (RFC 8446 5.1)

_ITS_CLOCK = "renew the sender's certificate, or correct the clock of one of the two"
_ITS_AUTHORITY = "add the authority that signed the sender's certificate to tls.authorities, where it is right"
_OUR_AUTHORITY = "the sender is to trust the authority that signed tls.certificate"
_MODERN = "the sender is to speak TLS 1.2 or 1.3 with forward secrecy and AES-GCM (PS3.15 B.12)"

_CERTIFICATES = {
    3: ("there is no revocation list of the authority of the sender's certificate", "add it to tls.revoked"),
    9: ("the sender's certificate is not valid yet", _ITS_CLOCK),
    10: ("the sender's certificate has expired", _ITS_CLOCK),
    12: ("the revocation list of the sender's authority has expired", "renew it in tls.revoked"),
    18: ("the sender's certificate is signed by itself", _ITS_AUTHORITY),
    19: ("the sender's certificate is signed by an authority that is not known", _ITS_AUTHORITY),
    20: ("the sender's certificate is signed by an authority that is not known", _ITS_AUTHORITY),
    21: ("the sender's certificate is signed by an authority that is not known", _ITS_AUTHORITY),
    23: ("the sender's certificate was revoked", "give the sender a new one, where it may send"),
    26: ("the sender's certificate is not meant for clients", "its extended key usage is to have clientAuth"),
}
"""What verification may find (OpenSSL's X509_V_ERR numbers), and the fix."""

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "the sender shows no certificate",
        'give it one that an authority of tls.authorities signed, or set tls.clients = "optional"',
    ),
    "TLSV1_ALERT_UNKNOWN_CA": ("the sender does not trust the node's certificate", _OUR_AUTHORITY),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("the sender does not take the node's certificate", _OUR_AUTHORITY),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("the sender does not take the node's certificate", _OUR_AUTHORITY),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("for the sender the node's certificate has expired", "renew tls.certificate"),
    "NO_SHARED_CIPHER": ("the sender has none of the node's cipher suites", _MODERN),
    "UNSUPPORTED_PROTOCOL": ("the sender's version of TLS is too old", _MODERN),
    "VERSION_TOO_LOW": ("the sender's version of TLS is too old", _MODERN),
}
"""What OpenSSL calls the other ends of a handshake, and the fix."""


class NotTls(ConnectionError):
    """The peer does not begin a handshake."""


class Tls:
    """Makes TLS connections of plain ones.

    Parameters
    ----------
    settings
        With a certificate; its files are read here, and again when they have changed.

    Raises
    ------
    ConfigurationError
        A file cannot be read, is no certificate or key, or the key is another certificate's.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._seen = _versions(settings)
        self._context = server_context(settings)

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Shake hands, within ``tls.handshake_seconds``; for the connection's own thread, for it waits for the peer.

        Raises
        ------
        OSError
            There is no TLS connection now: the plain one is closed, and one event ``tls.refused`` says why, or none
            where the peer only left.
        """
        deadline = time.monotonic() + self._settings.handshake_seconds
        opened, address = connection, "unknown"
        try:
            address = connection.getpeername()[0]  # once it is refused, it may be gone
            connection.settimeout(self._settings.handshake_seconds)
            first = connection.recv(1, socket.MSG_PEEK)
            if first and first[0] != _HANDSHAKE:
                raise NotTls
            opened = secured = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            secured.settimeout(max(0.1, deadline - time.monotonic()))  # for the whole handshake, not for each byte
            secured.do_handshake()
        except OSError as error:
            self._note(address, error)
            opened.close()
            raise
        return secured

    @property
    def context(self) -> ssl.SSLContext:
        """Certificates as the files have them now; where they are wrong, as they were when they were right."""
        with self._lock:
            versions = _versions(self._settings)
            if versions != self._seen:
                self._seen = versions
                try:
                    self._context = server_context(self._settings)
                except ConfigurationError as error:
                    log.error("tls.not_renewed", reason=str(error), fix="until then the old certificate serves")  # noqa: TRY400
                else:
                    log.info("tls.renewed", certificate=str(self._settings.certificate))
            return self._context

    def _note(self, address: str, error: OSError) -> None:
        told = self._told(error)
        if told is not None:
            log.warning("tls.refused", address=address, reason=told[0], fix=told[1])

    def _told(self, error: OSError) -> tuple[str, str] | None:
        """What has gone wrong, and what to do; None where the peer left before it said anything wrong."""
        if isinstance(error, TimeoutError):
            return "no handshake in time", "end what connects and is silent, or raise tls.handshake_seconds"
        if isinstance(error, NotTls):
            return "the sender does not use TLS", "it is to use TLS on tls.port, or the plain node.port"
        if isinstance(error, ssl.SSLCertVerificationError):
            other = (f"the sender's certificate is not right: {error.verify_message}", _ITS_AUTHORITY)
            return _CERTIFICATES.get(error.verify_code, other)
        if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
            return None
        return _REASONS.get(error.reason, (f"the handshake failed: {error.reason}", _MODERN))


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """How the node speaks TLS as a server.

    Raises
    ------
    ConfigurationError
        As `Tls`.
    """
    assert settings.certificate is not None
    assert settings.key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET  # no resumption: an authority that was removed counts for everybody at once
    context.num_tickets = 0
    present(context, "tls", settings.certificate, settings.key)
    context.verify_mode = _VERIFY[settings.clients]
    if settings.clients != "none" and settings.authorities is not None:
        trust(context, "tls", settings.authorities)
    if settings.clients != "none" and settings.revoked is not None:
        require_readable("tls.revoked", settings.revoked)
        try:
            context.load_verify_locations(settings.revoked)
        except ssl.SSLError:
            raise ConfigurationError(f"tls.revoked = {settings.revoked}: has no revocation list in PEM") from None
        if not context.cert_store_stats()["crl"]:
            raise ConfigurationError(f"tls.revoked = {settings.revoked}: has no revocation list, only certificates")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _versions(settings: TlsSettings) -> tuple[tuple[int, int, int] | None, ...]:
    """By what to see that a file has changed."""
    files = (settings.certificate, settings.key, settings.authorities, settings.revoked)

    def version(path: Path | None) -> tuple[int, int, int] | None:
        try:
            status = path.stat() if path is not None else None
        except OSError:  # it is being replaced, or was removed
            return None
        return status and (status.st_ino, status.st_mtime_ns, status.st_size)

    return tuple(version(path) for path in files)
