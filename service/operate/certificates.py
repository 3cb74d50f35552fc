"""Until when the certificates of ``[tls]`` and of archives serve: what `wetread check`, log and ``/metrics`` say."""

import contextlib
import math
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import structlog

from service.errors import ConfigurationError
from service.receive.peer import names_of
from service.receive.tls import server_context
from service.settings import ArchiveTlsSettings, Settings, TlsSettings
from service.tls import present, trust

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


def looked_at(settings: Settings) -> Iterator[tuple[bool, str]]:
    """Whether each is right, and how it is, with the fix where it is not."""
    for section, terms in _sections(settings).items():
        try:
            found = list(terms())
        except ConfigurationError as error:
            yield False, str(error)
        except ssl.SSLError as error:
            yield False, f"{section}.certificate: does not serve for TLS ({error.reason}); make another one"
        else:
            yield from (term.found(time.time()) for term in found)


Terms = Callable[[], Iterator[Term]]
"""Reads the certificates of one section.

Raises
------
ConfigurationError, OSError
    A file cannot be read, or is not what it should be.
ssl.SSLError
    The certificate does not serve for TLS.
"""


def _sections(settings: Settings) -> Mapping[str, Terms]:
    """The sections of the settings that name certificates."""
    found: dict[str, Terms] = {"tls": partial(_of_listener, settings.tls)} if settings.tls.on else {}
    for name, archive in settings.archives.items():
        if archive.tls is not None:
            section = f"archives.{name}.tls"
            found[section] = partial(_of_archive, section, archive.tls)
    return found


def _of_listener(settings: TlsSettings) -> Iterator[Term]:
    """The node's certificate, those that lead from it to its authority, and those of the senders' authorities."""
    context = server_context(settings)
    assert settings.certificate is not None
    sender = _who_trusts(ssl.PROTOCOL_TLS_CLIENT, settings.certificate)
    node = server_context(settings.model_copy(update={"clients": "none"}))
    _shake_hands(sender_end := _End(sender), _End(node, server=True))
    own = [sender_end.peer, *sender.get_ca_certs()]
    yield from (Term.of(each, "tls.certificate", settings.certificate) for each in own if isinstance(each, dict))
    if settings.clients != "none" and settings.authorities is not None:
        yield from _authorities(context, "tls.authorities", settings.authorities)


def _of_archive(section: str, settings: ArchiveTlsSettings) -> Iterator[Term]:
    """What an archive is shown where it is no certificate of ``[tls]``, and the authorities that sign the archive's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust(context, section, settings.authorities)
    if settings.certificate is not None and settings.key is not None:
        node = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        node.check_hostname, node.verify_mode = False, ssl.CERT_NONE
        present(node, section, settings.certificate, settings.key)
        archive = _who_trusts(ssl.PROTOCOL_TLS_SERVER, settings.certificate)
        archive.verify_mode = ssl.CERT_REQUIRED
        present(archive, section, settings.certificate, settings.key)  # it needs one, and nobody looks at it
        _shake_hands(_End(node), archive_end := _End(archive, server=True))
        yield Term.of(archive_end.peer, f"{section}.certificate", settings.certificate)
    yield from _authorities(context, f"{section}.authorities", settings.authorities)


def _authorities(context: ssl.SSLContext, key: str, path: Path) -> Iterator[Term]:
    yield from (Term.of(each, key, path) for each in context.get_ca_certs() if isinstance(each, dict))


def _who_trusts(protocol: int, trusted: Path) -> ssl.SSLContext:
    """Somebody who trusts these certificates by themselves, whoever has signed them, and even when they have ended."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    context.load_verify_locations(trusted)
    return context


class _End:
    """One end of a handshake in memory."""

    def __init__(self, context: ssl.SSLContext, server: bool = False) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.channel = context.wrap_bio(self.incoming, self.outgoing, server_side=server)

    @property
    def peer(self) -> dict[str, Any]:
        """What the other end's certificate says, as this end sees it."""
        return self.channel.getpeercert() or {}


def _shake_hands(client: _End, server: _End) -> None:
    """Let two ends get to know each other. Raises `ssl.SSLError`."""
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.channel.do_handshake()
            other.incoming.write(end.outgoing.read())


class CertificateWatch:
    """Tells of certificates before they end: a sender whose node's certificate has ended sends nothing.

    Parameters
    ----------
    clock
        Seconds since the epoch.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
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
        found: list[Term] = []
        for terms in _sections(self._settings).values():
            # being replaced just now; who speaks TLS with it says what is wrong
            with contextlib.suppress(ConfigurationError, OSError):
                found += terms()
        return found
