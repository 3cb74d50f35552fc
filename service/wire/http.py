"""HTTP to an archive's DICOMweb services (PS3.18), for all that asks them and sends to them."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from service.errors import ArchiveUnavailable, ConfigurationError, Rejected
from service.tls import client_context
from service.types import ClientTls, Web


@contextmanager
def web_client(
    name: str, web: Web, tls: ClientTls | None, limits: httpx.Timeout | None = None
) -> Iterator[httpx.Client]:
    """A client that no proxy of the environment comes between: patients' data goes where the settings say.

    It shows who asks, for every request. What goes wrong on the way is told without the URL, which may hold UIDs.

    Parameters
    ----------
    name
        Of the archive, as the settings have it.
    tls
        How TLS is spoken to it; None for ``https`` with the authorities of the system. Files are read each time.

    Raises
    ------
    ArchiveUnavailable
        It cannot be reached, does not answer, or our certificates for it are not right now.
    Rejected
        The URL is none.
    """
    told: list[str] = []
    try:
        context = _context(name, web, tls, told)
        hooks = {"request": [_expecting(tls.name)]} if tls is not None and tls.name else {}
        with httpx.Client(
            trust_env=False, verify=context, timeout=limits, headers=web.authorization, event_hooks=hooks
        ) as client:
            yield client
    except ConfigurationError as error:  # a file that is being renewed, or an operator will: results wait
        raise ArchiveUnavailable(f"{name}: {error}") from None
    except httpx.ConnectError:
        fix = f"is not there or refuses the connection; start it, or correct archives.{name}.dicomweb or its TLS"
        raise ArchiveUnavailable(f"{name}: DICOMweb: {told[0]}" if told else f"{name}: DICOMweb {fix}") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise Rejected(
            f"archives.{name}.dicomweb is not a URL; it must be the base URL of its DICOMweb services"
        ) from None
    except httpx.HTTPError as error:  # its text may hold the URL
        raise ArchiveUnavailable(f"{name}: no answer from DICOMweb ({type(error).__name__})") from None


def _context(name: str, web: Web, tls: ClientTls | None, told: list[str]) -> ssl.SSLContext:
    if tls is not None:
        return client_context(tls, f"archives.{name}.tls", told.append)
    if web.url.startswith("https"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used, and soon made: it trusts nobody


def _expecting(name: str) -> Callable[[httpx.Request], None]:
    """Has a request expect a certificate for another name than that of the URL."""

    def expect(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = name

    return expect
