"""The Storage and Verification SCP (PS3.4 B, A): from the wire to the spool.

An instance is acknowledged with 0x0000 only after its bytes, its directory entry and the ledger's row of its series are
on disk. The pixels are never decoded here.
"""

import secrets
from typing import Any

import structlog
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer
from sqlalchemy.exc import DBAPIError

from service.errors import OutOfResources
from service.receive.contexts import CARRIED_ALONG, PROCESSED, TRANSFER_SYNTAXES
from service.receive.intake import Intake
from service.received import Received
from service.settings import Settings
from service.wire import VERIFICATION, affected, without_delay

log = structlog.get_logger()

OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3


class Receiver:
    """Listens for associations and gives what they bring to the intake."""

    def __init__(self, settings: Settings, intake: Intake) -> None:
        self._settings = settings
        self._intake = intake
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on (the chosen one where the setting is 0)."""
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def listening(self) -> bool:
        """Whether it takes associations now."""
        return self._server is not None

    def start(self) -> None:
        """Listen. Raises `OSError` where the address or port cannot be had."""
        node = self._settings.node
        ae = AE(ae_title=node.ae_title)
        ae.maximum_pdu_size = node.maximum_pdu
        ae.maximum_associations = node.maximum_associations
        ae.network_timeout = node.idle_seconds
        ae.require_called_aet = True
        if not node.accept_unknown_senders:
            # an empty list would let everybody in; a title that nobody can know lets nobody in
            ae.require_calling_aet = self._known_senders() or [secrets.token_hex(8)]
        ae.add_supported_context(VERIFICATION)
        for sop_class in (*PROCESSED, *(CARRIED_ALONG if node.accept_carried_along else ())):
            ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, without_delay),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REJECTED, _rejected),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._aborted),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        self._server = ae.start_server((node.host, node.port), block=False, evt_handlers=handlers)
        log.info("receiver.listening", ae_title=node.ae_title, host=node.host, port=self.port)

    def _known_senders(self) -> list[str]:
        """Calling AE titles that may send: the senders, and archives that are asked to send what is missing."""
        moving = {archive.ae_title for archive in self._settings.archives.values() if archive.fetch == "c-move"}
        return sorted({*self._settings.senders, *moving})

    def stop(self) -> None:
        """Take no new associations and end those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        sender = str(event.assoc.requestor.ae_title).strip()
        try:
            return self._intake.take(Received.of(event.encoded_dataset()), sender, id(event.assoc), affected(event))
        except (OutOfResources, DBAPIError) as error:
            self._intake.refuse(sender, str(error.__cause__ or error))
            return OUT_OF_RESOURCES

    def _released(self, event: evt.Event) -> None:
        self._intake.released(id(event.assoc))

    def _aborted(self, event: evt.Event) -> None:
        self._intake.aborted(id(event.assoc))

    def _closed(self, event: evt.Event) -> None:
        # told by another thread, at times before the release; an association whose thread lives tells its end itself
        if not event.assoc.is_alive():
            self._intake.aborted(id(event.assoc))


def _rejected(event: evt.Event) -> None:
    requestor, answer = event.assoc.requestor, event.assoc.acceptor.primitive
    asked = requestor.primitive
    log.warning(
        "association.rejected",
        calling=requestor.ae_title.strip(),
        called="" if asked is None else str(asked.called_ae_title).strip(),
        address=requestor.address,
        reason="" if answer is None else answer.reason_str,
        fix="the known calling AE titles are the tables [senders.AETITLE], the called one is node.ae_title",
    )
