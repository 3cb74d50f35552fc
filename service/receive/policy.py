"""Who may associate with this node, and what for: the one place that decides."""

import hmac
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Protocol, Self

import structlog
from pynetdicom.presentation import PresentationContext

from service.commitment import STORAGE_COMMITMENT
from service.receive.negotiation import APPLICATION_CONTEXT, Negotiator, rejection
from service.receive.peer import Peer
from service.receive.request import AssociationRequest
from service.settings import NodeSettings, SenderSettings, Settings

log = structlog.get_logger()

_NAME_AND_PASSCODE = 2  # User-Identity-Type (PS3.7 table D.3-14)

# result, source, diagnostic (PS3.8 table 9-21)
_APPLICATION_CONTEXT = (1, 1, 2)
_CALLING = (1, 1, 3)
_CALLED = (1, 1, 7)
_USER_IDENTITY = (1, 2, 1)  # PS3.7 D.3.3.7
_PROTOCOL_VERSION = (1, 2, 2)
_LOCAL_LIMIT = (2, 3, 2)


@dataclass(frozen=True)
class Accepted:
    """An association that may be.

    Attributes
    ----------
    sender
        The calling AE title.
    contexts
        The accepted presentation contexts by identifier, each with its one transfer syntax.
    answer
        The A-ASSOCIATE-AC.
    maximum_pdu
        The longest P-DATA-TF that the peer takes; 0 for any.
    seat
        Its place among ``node.maximum_associations``, freed at the end of a ``with`` statement.
    """

    sender: str
    contexts: Mapping[int, PresentationContext]
    answer: bytes
    maximum_pdu: int
    seat: "Seat"


@dataclass(frozen=True)
class Refused:
    """An association that may not be: the fields of its A-ASSOCIATE-RJ, and for the log why, and what to do."""

    code: tuple[int, int, int]
    reason: str
    fix: str

    @property
    def answer(self) -> bytes:
        """The A-ASSOCIATE-RJ."""
        return rejection(*self.code)


class GivesSeats(Protocol):
    """Whoever knows how many associations there are (`Seats`, `service.receive.desk`)."""

    def take(self, sender: str) -> "Seat | Refused":
        """A seat, or why there is none."""

    def free(self, sender: str) -> None:
        """Give one back."""


class Seats:
    """How many associations there are, in all and for each sender."""

    @classmethod
    def of(cls, node: NodeSettings) -> Self:
        """As many as the settings say."""
        return cls(node.maximum_associations, node.maximum_associations_per_sender)

    def __init__(self, in_all: int, for_each: int) -> None:
        self._in_all = in_all
        self._for_each = for_each
        self._taken = Counter[str]()
        self._lock = threading.Lock()

    def take(self, sender: str) -> "Seat | Refused":
        """A seat, or why there is none."""
        with self._lock:
            if self._taken.total() >= self._in_all:
                fix = "the sender tries again; node.maximum_associations where so many are meant to be"
                return Refused(_LOCAL_LIMIT, f"there are {self._in_all} associations already", fix)
            if self._taken[sender] >= self._for_each:
                fix = "the sender tries again; node.maximum_associations_per_sender where so many are meant to be"
                return Refused(_LOCAL_LIMIT, f"this sender has {self._for_each} associations already", fix)
            self._taken[sender] += 1
            return Seat(self, sender)

    def free(self, sender: str) -> None:
        """Give one back."""
        with self._lock:
            self._taken[sender] -= 1
            if not self._taken[sender]:
                del self._taken[sender]


class Seat:
    """One association's place; free again after the ``with`` statement, however often it is left."""

    def __init__(self, seats: GivesSeats, sender: str) -> None:
        self._seats: GivesSeats | None = seats
        self._sender = sender

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seats, self._seats = self._seats, None
        if seats is not None:
            seats.free(self._sender)


class AssociationPolicy:
    """Decides about requests as the settings say; any thread may ask.

    Parameters
    ----------
    seats
        Whose seats are taken; default: as many as the settings say.
    """

    def __init__(self, settings: Settings, seats: "GivesSeats | None" = None) -> None:
        self._settings = settings
        self._node = settings.node
        self._moving = {archive.ae_title for archive in settings.archives.values() if archive.fetch == "c-move"}
        self._reporting = {
            archive.ae_title for archive in settings.archives.values() if archive.commitment in ("auto", "require")
        }
        self._negotiator = Negotiator(settings.node)
        self._seats = seats or Seats.of(settings.node)

    def decide(self, request: AssociationRequest, peer: Peer) -> Accepted | Refused:
        """Accept a request, or refuse it with one event ``association.rejected`` that says why and what to do."""
        seat = self._refusal(request, peer) or self._seats.take(request.calling)
        if isinstance(seat, Refused):
            log.warning(
                "association.rejected",
                calling=request.calling,
                called=request.called,
                address=peer.address,
                reason=seat.reason,
                fix=seat.fix,
            )
            return seat
        try:
            agreement = self._negotiator.agree(
                request,
                identified=self._node.user_identity == "require",
                stores=self._may_store(request.calling),
                reports=request.calling in self._reporting,
            )
        except BaseException:
            with seat:
                raise
        return Accepted(request.calling, agreement.contexts, agreement.answer, request.maximum_pdu, seat)

    def _refusal(self, request: AssociationRequest, peer: Peer) -> Refused | None:
        if not request.protocol_version & 1:  # bit 0 is version 1, the only one there is (PS3.8 9.3.2)
            return Refused(_PROTOCOL_VERSION, "the protocol version is not 1", "the sender is to speak DICOM")
        if request.application_context != APPLICATION_CONTEXT:
            fix = f"the sender is to name {APPLICATION_CONTEXT}"
            return Refused(_APPLICATION_CONTEXT, "the application context is not that of DICOM", fix)
        if request.called != self._node.ae_title:
            fix = f"the sender calls {self._node.ae_title}, or node.ae_title is changed to what it calls"
            return Refused(_CALLED, "called AE title not recognised", fix)
        sender = self._settings.senders.get(request.calling)
        if sender is not None:
            return against(request.calling, sender, peer) or self._of_the_user(request)
        if self._may_store(request.calling):
            return self._of_the_user(request)
        if request.calling in self._reporting and STORAGE_COMMITMENT in {
            one.abstract_syntax for one in request.contexts
        }:
            return None  # an archive, which knows no user of ours
        fix = f"add [senders.{request.calling}] with an archive, where it may send"
        return Refused(_CALLING, "calling AE title not recognised", fix)

    def _may_store(self, calling: str) -> bool:
        return calling in self._settings.senders or self._node.accept_unknown_senders or calling in self._moving

    def _of_the_user(self, request: AssociationRequest) -> Refused | None:
        identity = request.identity
        if self._node.user_identity == "refuse" and identity is not None:
            fix = 'the sender names no user, or node.user_identity = "ignore"'
            return Refused(_USER_IDENTITY, "the sender names a user", fix)
        if self._node.user_identity != "require":
            return None
        if identity is None or identity.user_identity_type != _NAME_AND_PASSCODE:
            fix = 'the sender gives one of [node.users], or node.user_identity = "ignore"'
            return Refused(_USER_IDENTITY, "the sender gives no user name and passcode", fix)
        name = (identity.primary_field or b"").decode("utf-8", "replace")
        known = self._node.users.get(name)
        expected = b"" if known is None else known.get_secret_value().encode()
        if hmac.compare_digest(expected, identity.secondary_field or b"") and expected:
            return None
        fix = "the sender gives one of [node.users] with its passcode"
        return Refused(_USER_IDENTITY, "the user is not known, or the passcode is not its", fix)


def against(title: str, sender: SenderSettings, peer: Peer) -> Refused | None:
    """What speaks against a known sender at that end of the wire: its address, or its certificate."""
    key = f"senders.{title}"
    address = ip_address(peer.address)
    if sender.addresses and not any(address in network for network in sender.addresses):
        return Refused(_CALLING, f"{key} sends from another address", f"add it to {key}.addresses, where it is right")
    if not sender.certificates:
        return None
    if peer.certificate is None:
        fix = f"it sends to tls.port with a certificate that {key}.certificates names"
        return Refused(_CALLING, f"{key} shows no certificate", fix)
    if not any(peer.certificate.matches(wanted) for wanted in sender.certificates):
        shown = f"{peer.certificate}, sha256:{peer.certificate.fingerprint}"
        fix = f"add its certificate to {key}.certificates, where it is right ({shown})"
        return Refused(_CALLING, f"{key} shows another certificate", fix)
    return None
