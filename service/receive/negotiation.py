"""What of a request is taken, and the answer: A-ASSOCIATE-AC and -RJ (PS3.8 9.3.3, 9.3.4; PS3.7 D.3.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationVersionNameNotification,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from service import __version__
from service.commitment import STORAGE_COMMITMENT
from service.receive.contexts import CARRIED_ALONG, PROCESSED, STORABLE, UNCOMPRESSED, stores, stores_encoded
from service.receive.request import AssociationRequest
from service.results.uids import IMPLEMENTATION_CLASS_UID
from service.settings import NodeSettings
from service.wire import VERIFICATION

APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")
"""The DICOM application context (PS3.7 A.2.1)."""


@dataclass(frozen=True)
class Agreement:
    """What was negotiated: the accepted presentation contexts by identifier, and the A-ASSOCIATE-AC that says so."""

    contexts: Mapping[int, PresentationContext]
    answer: bytes


class Negotiator:
    """Answers what peers propose: Storage and Verification, each of which only they may use of us; and from archives
    Storage Commitment, to report on what was asked of them.

    What is negotiated beside presentation contexts (PS3.7 D.3.3): roles are answered, SCU for the peer and never SCP,
    but for Storage Commitment SCP and never SCU (some archives propose no role; they are understood all the same); an
    asynchronous operations window is answered with one operation at a time; SOP class extended negotiation is optional
    and gets no answer, common extended negotiation has none.
    """

    def __init__(self, node: NodeSettings) -> None:
        self._node = node
        self._supported = [_supported(VERIFICATION, *STORABLE)]
        for sop_class in (*PROCESSED, *CARRIED_ALONG):
            if stores(sop_class, node):
                self._supported.append(_supported(sop_class, *STORABLE))

    def agree(
        self, request: AssociationRequest, identified: bool = False, *, stores: bool = True, reports: bool = False
    ) -> Agreement:
        """Accept what can be.

        Parameters
        ----------
        identified
            The user that the peer names was looked at and is right.
        stores, reports
            Whether the peer may store instances, and whether it may report on storage commitment.
        """
        supported = self._supported_for(request) if self._node.accept_private else self._supported
        if not stores:
            supported = supported[:1]
        if reports:
            supported = [*supported, _commitment()]
        results, roles = negotiate_as_acceptor(list(request.contexts), supported, dict(request.roles))
        answer = A_ASSOCIATE()
        answer.application_context_name = APPLICATION_CONTEXT
        answer.called_ae_title, answer.calling_ae_title = request.called, request.calling
        answer.result, answer.result_source = 0x00, 0x01
        answer.presentation_context_definition_results_list = results
        answer.maximum_length_received = self._node.maximum_pdu
        answer.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = f"WETREAD_{__version__}"[:16]
        information: list[Any] = [*answer.user_information, version, *roles]
        if request.windowed:
            window = AsynchronousOperationsWindowNegotiation()
            window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
            information.append(window)
        if identified and request.identity is not None and request.identity.positive_response_requested:
            confirmation = UserIdentityNegotiation()
            confirmation.server_response = b""  # so for names and passcodes (PS3.7 D.3.3.7.2)
            information.append(confirmation)
        answer.user_information = information
        accepted = {int(context.context_id or 0): context for context in results if context.result == 0x00}
        return Agreement(accepted, bytes(A_ASSOCIATE_AC(answer).encode()))

    def _supported_for(self, request: AssociationRequest) -> list[PresentationContext]:
        """What is supported, and of what is proposed the private SOP classes and transfer syntaxes."""
        proposed = {syntax for context in request.contexts for syntax in context.transfer_syntax}
        syntaxes = [*STORABLE, *sorted(syntax for syntax in proposed if syntax not in STORABLE)]
        syntaxes = [syntax for syntax in syntaxes if stores_encoded(syntax, self._node)]
        classes = {str(context.abstract_syntax) for context in request.contexts}
        storage = [_supported(UID(sop_class), *syntaxes) for sop_class in classes if stores(sop_class, self._node)]
        return [*self._supported[:1], *storage]


def rejection(result: int, source: int, diagnostic: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    answer = A_ASSOCIATE()
    answer.result, answer.result_source, answer.diagnostic = result, source, diagnostic
    return bytes(A_ASSOCIATE_RJ(answer).encode())


def _commitment() -> PresentationContext:
    context = build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))
    context.scu_role, context.scp_role = False, True
    return context


def _supported(sop_class: UID, *syntaxes: UID) -> PresentationContext:
    context = build_context(sop_class, list(syntaxes))
    context.scu_role, context.scp_role = True, False  # what the peer may be
    return context
