"""DICOM TLS, the BCP 195 RFC 8996, 9325 profile (PS3.15 B.12): what both ends share, and the end of a client."""

import ssl
from collections.abc import Callable
from pathlib import Path

from service.errors import ConfigurationError
from service.types import ClientTls

CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""For TLS 1.2: those of RFC 9325 section 4.2, and ChaCha20 for processors without AES. TLS 1.3 has its own."""


def present(context: ssl.SSLContext, section: str, certificate: Path, key: Path) -> None:
    """Show this certificate to peers.

    Parameters
    ----------
    section
        Of the settings, for errors: its ``certificate`` and ``key`` name the files.

    Raises
    ------
    ConfigurationError
        A file cannot be read, is no certificate or key, or the key is another certificate's.
    """
    for name, path in (("certificate", certificate), ("key", key)):
        require_readable(f"{section}.{name}", path)
    try:
        # a key that is encrypted would have it asked for on the terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"{section}.key = {key}: not the key of {certificate}; name the one it was made with"
            ) from None
        raise ConfigurationError(
            f"{section}.certificate = {certificate}, {section}.key = {key}: no certificate and key in PEM, "
            "or the key is encrypted; `openssl x509 -in FILE` and `openssl pkey -in FILE` tell which"
        ) from None


def trust(context: ssl.SSLContext, section: str, authorities: Path) -> None:
    """Trust peers that these have signed. Raises `ConfigurationError`."""
    require_readable(f"{section}.authorities", authorities)
    try:
        context.load_verify_locations(authorities)
    except ssl.SSLError:
        raise ConfigurationError(f"{section}.authorities = {authorities}: has no certificate in PEM") from None


def require_readable(key: str, path: Path) -> None:
    """Raise `ConfigurationError` where a file cannot be read, for OpenSSL does not say which."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{key} = {path}: cannot be read ({error.strerror}); name another file") from None


def client_context(settings: ClientTls, section: str, failed: Callable[[str], None]) -> ssl.SSLContext:
    """How the node speaks TLS to an archive. Files are read for each association, so that renewed ones count at once.

    Parameters
    ----------
    section
        Of the settings, for errors.
    failed
        Called with the reason and the fix where the handshake fails: pynetdicom tells nobody.

    Raises
    ------
    ConfigurationError
        As `present`, `trust`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the certificate is required, and the name in it
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    trust(context, section, settings.authorities)
    if settings.certificate is not None and settings.key is not None:
        present(context, section, settings.certificate, settings.key)

    class Telling(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
            except OSError as error:
                failed(_told(error, section))
                raise

    context.sslsocket_class = Telling
    return context


def _told(error: OSError, section: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        fix = {
            10: "renew the archive's certificate, or correct a clock",
            62: f"name in {section}.name what the certificate is for",
            64: f"name in {section}.name what the certificate is for",
        }.get(error.verify_code, f"add the authority that signed it to {section}.authorities, where it is right")
        return f"its certificate is not right ({error.verify_message}); {fix}"
    if isinstance(error, TimeoutError):
        return "no TLS handshake in time; does it speak TLS on this port?"
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return f"the TLS handshake failed ({reason}); does it speak TLS on this port, and take {section}.certificate?"
