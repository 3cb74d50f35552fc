"""Until when the certificates of ``[tls]`` serve: what `wetread check`, the log and ``/metrics`` say of them."""

import contextlib
import math
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from service.errors import ConfigurationError
from service.receive.peer import names_of
from service.receive.tls import server_context
from service.settings import TlsSettings

log = structlog.get_logger()

SOON_DAYS = 30
"""A certificate that ends sooner is told as wrong, for its renewal takes time."""
DAY = 86400.0

_NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name


@dataclass(frozen=True)
class Term:
    """When a certificate is valid, in seconds since the epoch; ``key`` and ``path`` say which file names it."""

    key: str
    path: Path
    names: str
    begins: float
    ends: float

    @classmethod
    def of(cls, certificate: dict[str, Any], key: str, path: Path) -> Self:
        """That of one which `ssl` has told of."""
        begins, ends = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
        return cls(key, path, ", ".join(sorted(names_of(certificate))), begins, ends)

    def found(self, now: float) -> tuple[bool, str]:
        """Whether it is right, and until when, with the fix where it is not."""
        what, day = f"{self.key} = {self.path} ({self.names})", time.strftime("%Y-%m-%d", time.gmtime(self.ends))
        if self.begins > now:
            return False, f"{what}: is not valid yet; renew it, or correct the clock"
        if self.ends < now:
            return False, f"{what}: has expired on {day}; renew it"
        if self.days(now) < SOON_DAYS:
            return False, f"{what}: expires on {day}, in {self.days(now):.0f} days; renew it"
        return True, f"{what}: until {day}"

    def days(self, now: float) -> float:
        """How many are left; fewer than 0 where it has ended."""
        return (self.ends - now) / DAY


def looked_at(settings: TlsSettings) -> Iterator[tuple[bool, str]]:
    """Whether each is right, and how it is, with the fix where it is not."""
    try:
        found = list(terms(settings))
    except ConfigurationError as error:
        yield False, str(error)
    except ssl.SSLError as error:
        key = f"tls.certificate = {settings.certificate}"
        yield False, f"{key}: does not serve for TLS ({error.reason}); make another one"
    else:
        yield from (term.found(time.time()) for term in found)


def terms(settings: TlsSettings) -> Iterator[Term]:
    """Of the node's certificate, those that lead from it to its authority, and those of the senders' authorities.

    Raises
    ------
    ConfigurationError, OSError
        A file cannot be read, or is not what it should be.
    ssl.SSLError
        The certificate does not serve for TLS.
    """
    context = server_context(settings)
    assert settings.certificate is not None
    sender = _sender(settings.certificate)
    own = [_shown(settings, sender), *sender.get_ca_certs()]
    yield from (Term.of(each, "tls.certificate", settings.certificate) for each in own if isinstance(each, dict))
    if settings.clients != "none" and settings.authorities is not None:
        theirs = context.get_ca_certs()
        yield from (Term.of(each, "tls.authorities", settings.authorities) for each in theirs if isinstance(each, dict))


def _sender(trusted: Path) -> ssl.SSLContext:
    """Who trusts the node's certificate by itself, whoever has signed it, and even when it has ended."""
    sender = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sender.check_hostname = False
    sender.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    sender.load_verify_locations(trusted)
    return sender


def _shown(settings: TlsSettings, sender: ssl.SSLContext) -> dict[str, Any]:
    """What the node's certificate says, as a sender sees it: that of a handshake in memory. Raises `ssl.SSLError`."""
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


class CertificateWatch:
    """Tells of certificates before they end: a sender whose node's certificate has ended sends nothing.

    Parameters
    ----------
    clock
        Seconds since the epoch.
    """

    def __init__(self, settings: TlsSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._told = -math.inf

    def look(self) -> None:
        """Log, at most once a day, one event ``tls.certificate_expires`` for each that ends soon or has ended."""
        now = self._clock()
        if now - self._told < DAY:
            return
        self._told = now
        for term in self._terms():
            if (days := term.days(now)) < SOON_DAYS:
                fix = f"renew it in {term.path}, which is read again without a restart"
                log.warning(
                    "tls.certificate_expires", key=term.key, certificate=term.names, days=math.floor(days), fix=fix
                )

    def ends(self) -> Mapping[tuple[str, str], float]:
        """When each ends, by key and names; of several with the same names the first to end."""
        found: dict[tuple[str, str], float] = {}
        for term in self._terms():
            name = term.key, term.names
            found[name] = min(term.ends, found.get(name, math.inf))
        return found

    def _terms(self) -> list[Term]:
        try:
            return list(terms(self._settings)) if self._settings.on else []
        except (ConfigurationError, OSError):  # being replaced just now; `service.receive.tls` says what is wrong
            return []
