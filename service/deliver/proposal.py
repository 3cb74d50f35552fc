"""What this node asks for as an SCU, and what it is answered (PS3.8 9.3.2 to 9.3.4, by pynetdicom's classes)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from service import __version__
from service.results.storage import Storage
from service.results.uids import IMPLEMENTATION_CLASS_UID

MOST_CONTEXTS = 128
"""Of one association (PS3.8 9.3.2.2)."""
LONGEST_ANSWER = 16384
"""What we take in a P-DATA-TF PDU: only responses come."""

_APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")


@dataclass(frozen=True)
class Accepted:
    """What a peer has accepted.

    Attributes
    ----------
    contexts
        IDs of the presentation contexts by SOP class and transfer syntax.
    maximum_pdu
        Longest P-DATA-TF PDU that it takes; 0 for any.
    """

    contexts: Mapping[Storage, int]
    maximum_pdu: int


@dataclass(frozen=True)
class Refusal:
    """An association that was rejected (PS3.8 9.3.4); ``for_now``: the peer says that it may do later."""

    reason: str
    for_now: bool


def request(calling: str, called: str, proposed: Sequence[Storage]) -> bytes:
    """An A-ASSOCIATE-RQ with a presentation context for each pair of SOP class and transfer syntax, in their order."""
    asked = A_ASSOCIATE()
    asked.application_context_name = _APPLICATION_CONTEXT
    asked.calling_ae_title, asked.called_ae_title = calling, called
    contexts = [build_context(*each) for each in proposed]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    asked.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = LONGEST_ANSWER
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = f"WETREAD_{__version__}"[:16]
    asked.user_information = [length, implementation, version]
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def accepted(pdu: bytes, proposed: Sequence[Storage]) -> Accepted:
    """Read an A-ASSOCIATE-AC. Raises `ValueError` where it cannot be read."""
    answer = _read(A_ASSOCIATE_AC(), pdu)
    contexts = {}
    for context in answer.presentation_context_definition_results_list:
        identifier = context.context_id or 0
        number = (identifier - 1) // 2
        if context.result == 0 and number < len(proposed) and context.transfer_syntax[0] == proposed[number][1]:
            contexts[proposed[number]] = identifier
    return Accepted(contexts, int(answer.maximum_length_received or 0))


def rejected(pdu: bytes) -> Refusal:
    """Read an A-ASSOCIATE-RJ. Raises `ValueError` where it cannot be read."""
    answer = A_ASSOCIATE_RJ()
    _decode(answer, pdu)
    try:
        return Refusal(answer.reason_str, answer.result == _TRANSIENT)
    except Exception:  # a reason that the standard does not know
        return Refusal("it does not say why", answer.result == _TRANSIENT)


_TRANSIENT = 0x02  # PS3.8 table 9-21


def _read(answer: Any, pdu: bytes) -> A_ASSOCIATE:
    _decode(answer, pdu)
    try:
        primitive: A_ASSOCIATE = answer.to_primitive()
    except Exception as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    return primitive


def _decode(answer: Any, pdu: bytes) -> None:
    try:
        answer.decode(pdu)
    except Exception as error:  # pynetdicom fails in many ways on hostile bytes
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
