"""The Storage and Verification SCP (PS3.4 B, A): from the wire to the spool.

An instance is acknowledged with 0x0000 only after its bytes, its directory entry and the ledger's row of its series are
on disk. The pixels are never decoded here.
"""

import secrets
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer
from sqlalchemy.exc import DBAPIError

from service.errors import OutOfResources, Quarantined
from service.header import HeaderFacts, read_facts
from service.receive.contexts import CARRIED_ALONG, PROCESSED, TRANSFER_SYNTAXES
from service.settings import Settings
from service.spool import Spool, key_of
from service.versions import CORRECTED_REASON, Stored
from service.wire import VERIFICATION, affected, without_delay

log = structlog.get_logger()

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900  # PS3.4 B.2.3


class Arrivals(Protocol):
    """Who wants to know what arrives (`service.series.completeness`)."""

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """An instance is stored and not yet acknowledged; an error here keeps it from being acknowledged."""

    def released(self, association: int) -> None:
        """The sender has released an association."""

    def aborted(self, association: int) -> None:
        """An association was aborted, or its connection lost."""


class Receiver:
    """Listens for associations and stores what they bring.

    Parameters
    ----------
    count
        Called once for each instance with what became of it (``new``, ``duplicate``, ``corrected``, ``quarantined``,
        ``refused``).
    """

    def __init__(self, settings: Settings, spool: Spool, arrivals: Arrivals, count: Callable[[str], None]) -> None:
        self._settings = settings
        self._spool = spool
        self._arrivals = arrivals
        self._count = count
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
            ae.require_calling_aet = sorted(self._settings.senders) or [secrets.token_hex(8)]
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

    def stop(self) -> None:
        """Take no new associations and end those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        content = event.encoded_dataset()
        sender = str(event.assoc.requestor.ae_title).strip()
        try:
            return self._keep(content, sender, event)
        except (OutOfResources, DBAPIError) as error:
            self._count("refused")
            log.error("instance.refused", sender=sender, reason=str(error.__cause__ or error))  # noqa: TRY400
            return OUT_OF_RESOURCES

    def _keep(self, content: bytes, sender: str, event: evt.Event) -> int:
        try:
            facts = read_facts(content)
        except Quarantined as error:
            self._quarantine(key_of(affected(event)[1]), content, str(error))
            return SUCCESS
        if (facts.sop_class_uid, facts.sop_instance_uid) != affected(event):
            self._count("refused")
            log.warning("instance.refused", sender=sender, reason="SOP class or instance differ from the command's")
            return DATA_SET_DOES_NOT_MATCH
        series = key_of(facts.study_uid, facts.series_uid)
        outcome = self._spool.store(series, key_of(facts.sop_instance_uid), content)
        if outcome is Stored.CORRECTED:
            log.warning("instance.corrected", series=series, reason=CORRECTED_REASON)
        self._arrivals.arrived(id(event.assoc), facts, sender)
        self._count(outcome.value)
        return SUCCESS

    def _quarantine(self, series: str, content: bytes, reason: str) -> None:
        self._spool.quarantine(series, content, reason)
        self._count("quarantined")
        log.warning("instance.quarantined", series=series, reason=reason)

    def _released(self, event: evt.Event) -> None:
        self._arrivals.released(id(event.assoc))

    def _aborted(self, event: evt.Event) -> None:
        self._arrivals.aborted(id(event.assoc))

    def _closed(self, event: evt.Event) -> None:
        # told by another thread, at times before the release; an association whose thread lives tells its end itself
        if not event.assoc.is_alive():
            self._arrivals.aborted(id(event.assoc))


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
