"""The operator's page over HTTP: who may see it, and what its buttons do.

Without a password it is for whoever sits at the machine, or comes by a tunnel. With one it is for whoever knows it, and
belongs behind a proxy that speaks HTTPS. Requests that another site has a browser send are refused.
"""

import base64
import binascii
import ipaddress
import secrets
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from service.ledger.ledger import Ledger
from service.operate.page import STYLE, Page

log = structlog.get_logger()

_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def operator_routes(page: Page, ledger: Ledger, password: str) -> list[Route]:
    """The page, its style sheet and its buttons.

    Parameters
    ----------
    password
        What it is shown for, under any user name (basic authentication, RFC 7617); empty for this machine only.
    """
    verbs = {"retry": ledger.operator_retry, "cancel": ledger.operator_cancel}

    async def show(_request: Request) -> Response:
        html = await run_in_threadpool(page.html)
        return Response(html, media_type="text/html")

    async def style(_request: Request) -> Response:
        return Response(STYLE(), media_type="text/css")

    async def act(request: Request) -> Response:
        verb, job = str(request.path_params["verb"]), int(request.path_params["job"])
        if verb not in verbs:
            return PlainTextResponse("no such button", 404)
        done = await run_in_threadpool(verbs[verb], job)
        log.info("operator.acted", verb=verb, job=job, done=done)
        return RedirectResponse("/", status_code=303)

    async def retry_all(_request: Request) -> Response:
        count = await run_in_threadpool(ledger.retry_dead)
        log.info("operator.acted", verb="retry", jobs=count)
        return RedirectResponse("/", status_code=303)

    def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guard(request: Request) -> Response:
            response = _refusal(request, password)
            if response is None:
                try:
                    response = await answer(request)
                except DBAPIError as error:
                    reason = str(error.orig).strip()
                    response = PlainTextResponse(f"The ledger cannot be reached: {reason}. Look again later.", 503)
            response.headers.update(_SAFE)
            return response

        return guard

    return [
        Route("/", guarded(show)),
        Route("/page.css", guarded(style)),
        Route("/jobs/{job:int}/{verb}", guarded(act), methods=["POST"]),
        Route("/jobs/dead/retry", guarded(retry_all), methods=["POST"]),
    ]


def _refusal(request: Request, password: str) -> Response | None:
    """Why a request is not answered, or None where it is."""
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    if request.method == "POST" and (
        (origin is not None and origin.partition("://")[2] != host)
        or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    ):
        return PlainTextResponse("Another site has asked for this.", 403)
    if password:
        if _knows(request, password):
            return None
        return PlainTextResponse("A password is needed: http.password.", 401, {"WWW-Authenticate": "Basic"})
    if _is_local(request, host):
        return None
    return PlainTextResponse("For this machine only; set http.password to see it from another one.", 403)


def _knows(request: Request, password: str) -> bool:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        said = base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (ValueError, binascii.Error):
        return False
    return secrets.compare_digest(said, password.encode())


def _is_local(request: Request, host: str) -> bool:
    """Whether it comes from this machine, through no proxy, and under a name that only this machine has.

    A page of another site could point a name of its own at the loopback interface.
    """
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return _is_loopback(request.client.host) and (name == "localhost" or _is_loopback(name.strip("[]")))


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
        return (getattr(found, "ipv4_mapped", None) or found).is_loopback
    except ValueError:
        return False
