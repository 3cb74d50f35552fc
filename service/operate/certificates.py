"""How the certificates of ``[tls]`` are: what `wetread check` says of them."""

import contextlib
import ssl
import time
from collections.abc import Iterator
from typing import Any

from service.errors import ConfigurationError
from service.receive.peer import names_of
from service.receive.tls import server_context
from service.settings import TlsSettings

SOON_DAYS = 30
"""A certificate that ends sooner is told as wrong, for its renewal takes time."""

_ENDS = {9: "is not valid yet", 10: "has expired"}  # OpenSSL's X509_V_ERR numbers


def looked_at(settings: TlsSettings) -> Iterator[tuple[bool, str]]:
    """Whether each is right, and how it is, with the fix where it is not."""
    key = f"tls.certificate = {settings.certificate}"
    try:
        context = server_context(settings)
        own = _own_certificate(settings)
    except ConfigurationError as error:
        yield False, str(error)
        return
    except ssl.SSLCertVerificationError as error:
        yield False, f"{key}: {_ENDS.get(error.verify_code, error.verify_message)}; renew it"
        return
    except ssl.SSLError as error:
        yield False, f"{key}: does not serve for TLS ({error.reason}); make another one"
        return
    named = ", ".join(sorted(names_of(own)))
    yield _until(own, f"{key} ({named})")
    if settings.clients == "none":
        return
    for authority in context.get_ca_certs():
        assert isinstance(authority, dict)
        yield _until(authority, f"tls.authorities: {', '.join(sorted(names_of(authority)))}")


def _until(certificate: dict[str, Any], what: str) -> tuple[bool, str]:
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    day = time.strftime("%Y-%m-%d", time.gmtime(ends))
    left = (ends - time.time()) / 86400
    if left < 0:
        return False, f"{what}: has expired on {day}; renew it"
    if left < SOON_DAYS:
        return False, f"{what}: expires on {day}, in {left:.0f} days; renew it"
    return True, f"{what}: until {day}"


def _own_certificate(settings: TlsSettings) -> dict[str, Any]:
    """What the node's certificate says, as a sender sees it: that of a handshake in memory.

    Raises
    ------
    ssl.SSLError
        The handshake fails, ``SSLCertVerificationError`` where the certificate has expired.
    """
    assert settings.certificate is not None
    sender = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sender.check_hostname = False
    sender.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trusted by itself, whoever has signed it
    sender.load_verify_locations(settings.certificate)
    to_node, to_sender = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        sender.wrap_bio(to_sender, to_node),
        server_context(settings.model_copy(update={"clients": "none"})).wrap_bio(to_node, to_sender, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].getpeercert() or {}
