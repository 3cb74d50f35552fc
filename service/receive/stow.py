"""STOW-RS (PS3.18 10.5), the second way in: the same SOP classes, intake and statuses as C-STORE, by HTTP.

A request's parts are taken one by one while it comes, and each is durable before the next is looked at; what of a
broken request was whole is kept, and its answer says so. Who sends is told by a bearer token or a client certificate.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from pydicom.config import IGNORE
from pydicom.uid import UID
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import OutOfResources, Quarantined, told_by_place
from service.header import read_facts
from service.receive.bearer import Bearers
from service.receive.contexts import stores, stores_encoded
from service.receive.intake import Intake, new_association
from service.receive.multipart import MalformedMultipart, MediaType, MultipartReader, PartBegins, PartContent
from service.receive.peer import Certificate, Peer
from service.receive.policy import GivesSeats
from service.receive.policy import Refused as NoSeat
from service.receive.request_body import RequestBody
from service.receive.store_response import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    STUDY_DIFFERS,
    TRANSFER_SYNTAX_NOT_SUPPORTED,
    Outcome,
    StoreResponse,
)
from service.receive.tls import Tls
from service.receive.upload import FileMeta, TooLarge, Upload, file_meta
from service.received import Received
from service.settings import Settings
from service.web import WebServer

log = structlog.get_logger()

DICOM = "application/dicom"
MOST_OTHERS = 100
"""Parts that are no instances, until a request is given up."""
RETRY_SECONDS = "60"
"""When a sender should try again that was told 503."""


class Refused(Exception):
    """A request is not read to its end; what it is answered with where nothing of it is kept, and why."""

    def __init__(self, http_status: int, reason: str, failure: int = CANNOT_UNDERSTAND) -> None:
        super().__init__(reason)
        self.http_status, self.failure = http_status, failure


@dataclass(frozen=True)
class Stow:
    """What all requests share; each that is read has a seat, as an association has."""

    settings: Settings
    intake: Intake
    seats: GivesSeats

    def server(self, tls: Callable[[], ssl.SSLContext] | None = None) -> WebServer:
        """A server to start; of HTTPS with ``tls``, which gives the context for each handshake."""
        routes = [Route(path, self._answer, methods=["POST"]) for path in ("/studies", "/studies/{study}")]
        stow = self.settings.stow
        return WebServer("stow", Starlette(routes=routes), stow.host, stow.port, tls, stow.maximum_connections)

    async def _answer(self, request: Request) -> Response:
        sender = Bearers(self.settings).sender(_peer_of(request), request.headers.get("authorization", ""))
        stow = self.settings.stow
        body = RequestBody(request.receive, stow.idle_seconds, stow.longest_seconds)
        response = StoreResponse()
        try:
            await self._read(request, body, sender, response)
        except (Refused, TimeoutError) as error:
            answer = _refusal(request, error, sender, response)
            await body.drain()
            return answer
        except ClientDisconnect:
            log.warning("stow.aborted", sender=sender, kept=response.kept)
            return Response(status_code=400)  # to nobody
        return _encoded(request, response, response.http_status)

    async def _read(self, request: Request, body: RequestBody, sender: str | None, response: StoreResponse) -> None:
        """Take all parts of a request."""
        if sender is None:
            raise Refused(401, "neither a token nor a certificate of a sender that may send from there")
        media = MediaType.parse(request.headers.get("content-type", ""))
        encoding = request.headers.get("content-encoding", "identity")
        if media.name != "multipart/related" or media.root not in ("", DICOM) or encoding != "identity":
            raise Refused(415, f'only multipart/related; type="{DICOM}" is taken')
        study = request.path_params.get("study", "")
        if study and not UID(study, IGNORE).is_valid:
            raise Refused(400, "the study of the URL is no UID")
        seat = self.seats.take(sender)
        if isinstance(seat, NoSeat):
            raise Refused(503, f"{seat.reason}; {seat.fix}")
        with seat:
            await self._take(body, media.boundary, _Transaction(self, sender, study, response))

    async def _take(self, body: RequestBody, boundary: str, transaction: "_Transaction") -> None:
        ended = self.intake.aborted
        try:
            await self._parts(body, MultipartReader(boundary), transaction)
            ended = self.intake.released
        except MalformedMultipart as error:
            raise Refused(400, str(error)) from None
        except TooLarge:
            raise Refused(413, "an instance is larger than stow.largest_mb", OUT_OF_RESOURCES) from None
        finally:
            transaction.upload.discard()
            await run_in_threadpool(ended, transaction.number)

    async def _parts(self, body: RequestBody, reader: MultipartReader, transaction: "_Transaction") -> None:
        async for chunk in body.chunks():
            for event in reader.feed(chunk):
                if isinstance(event, PartBegins):
                    transaction.begin(event.headers)
                elif isinstance(event, PartContent):
                    await transaction.add(event.data)
                else:
                    await transaction.end()
        reader.close()


def _peer_of(request: Request) -> Peer:
    channel = request.scope.get("extensions", {}).get("tls", {}).get("channel")
    return Peer(request.client.host if request.client else "", None if channel is None else Certificate.of(channel))


def _refusal(request: Request, error: Exception, sender: str | None, response: StoreResponse) -> Response:
    """The answer to a request that was not read to its end; its connection is closed."""
    refused = error if isinstance(error, Refused) else Refused(408, "it takes too long", PROCESSING_FAILURE)
    address = request.client.host if request.client else ""
    log.warning("stow.refused", sender=sender or "", address=address, reason=str(refused), kept=response.kept)
    if response.outcomes:
        response.outcomes.append(Outcome(refused.failure))
    answer = _encoded(request, response, 202 if response.kept else refused.http_status)
    answer.headers["Connection"] = "close"
    if refused.http_status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if refused.http_status == 503:
        answer.headers["Retry-After"] = RETRY_SECONDS
    return answer


def _encoded(request: Request, response: StoreResponse, status: int) -> Response:
    if not response.outcomes:
        return Response(status_code=status)
    body, media_type = response.encode(request.headers.get("accept", ""))
    busy = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    return Response(body, status, {**busy, "Content-Type": media_type})


def stow_servers(settings: Settings, intake: Intake, seats: GivesSeats) -> tuple[WebServer, ...]:
    """The one that the settings ask for, or none. Raises `ConfigurationError` for wrong certificates."""
    if not settings.stow.enabled:
        return ()
    stow = Stow(settings, intake, seats)
    if not settings.stow.tls:
        return (stow.server(),)
    tls = Tls(settings.tls)
    return (stow.server(lambda: tls.context),)


class _Transaction:
    """The instances of one request, each taken as soon as it is whole."""

    def __init__(self, stow: Stow, sender: str, study: str, response: StoreResponse) -> None:
        self._stow, self._sender, self._study, self._response = stow, sender, study, response
        self.number = new_association()
        self.upload = self._new_upload()
        self._failed: int | None = None

    def _new_upload(self) -> Upload:
        return Upload(self._stow.intake.spool_file, self._stow.settings.stow.largest_mb << 20)

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part begins. Raises `Refused` where it is not of the kind that was announced."""
        if MediaType.parse(headers.get("content-type", DICOM)).name != DICOM:
            raise Refused(415, f"a part is not {DICOM}")
        self.upload, self._failed = self._new_upload(), None

    async def add(self, data: bytes) -> None:
        """Some of it has come. Raises `TooLarge`."""
        if self._failed is None and self.upload.add(data):
            try:
                await run_in_threadpool(self.upload.flush)
            except OutOfResources:
                self._failed = OUT_OF_RESOURCES

    async def end(self) -> None:
        """It is whole. Raises `Refused` after too many parts that are no instances."""
        outcome = await run_in_threadpool(self._take)
        self._response.outcomes.append(outcome)
        if sum(not one.named for one in self._response.outcomes[-MOST_OTHERS:]) == MOST_OTHERS:
            raise Refused(400, "too many parts that are no DICOM files")

    def _take(self) -> Outcome:
        meta = None
        try:
            if self._failed is not None:
                return Outcome(self._failed)
            received = self.upload.whole()
            meta = file_meta(received.head)
            status = self._status(meta, received)
        except (OSError, OutOfResources, DBAPIError) as error:
            self._stow.intake.refuse(self._sender, str(error.__cause__ or error))
            status = OUT_OF_RESOURCES
        except Exception as error:  # one instance must not take the others of its request with it
            log.error("stow.failed", reason=told_by_place(error))  # noqa: TRY400
            status = PROCESSING_FAILURE
        finally:
            self.upload.discard()
        return Outcome(status, *(() if meta is None else (meta.sop_class_uid, meta.sop_instance_uid)))

    def _status(self, meta: FileMeta | None, received: Received) -> int:
        if refusal := CANNOT_UNDERSTAND if meta is None else self._refusal(meta, received):
            self._stow.intake.refuse(self._sender, f"STOW-RS, failure reason {refusal:04X}")
            return refusal
        assert meta is not None
        named = meta.sop_class_uid, meta.sop_instance_uid
        return self._stow.intake.take(received, self._sender, self.number, named)

    def _refusal(self, meta: FileMeta, received: Received) -> int:
        """Why an instance may not come in; 0 where it may."""
        node = self._stow.settings.node
        if not stores(meta.sop_class_uid, node):
            return SOP_CLASS_NOT_SUPPORTED
        if not stores_encoded(meta.transfer_syntax_uid, node):
            return TRANSFER_SYNTAX_NOT_SUPPORTED
        try:
            if self._study and read_facts(received).study_uid != self._study:
                return STUDY_DIFFERS
        except Quarantined:
            pass  # the intake keeps it, with the reason
        return 0
