"""What a peer asks for in its A-ASSOCIATE-RQ (PS3.8 9.3.2, PS3.7 D.3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_items import PDU_ITEM_TYPES
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext

_ITEMS = 74  # offset of the variable items in the PDU
_PRESENTATION_CONTEXT, _USER_INFORMATION = 0x20, 0x50
_MOST_ITEMS = 512  # 128 presentation contexts (PS3.8 9.3.2.2), and as much for each as one can negotiate beside
_MOST_SYNTAXES = 128  # twice as many as there are; reading is slow, and nobody may keep the node at it


@dataclass(frozen=True)
class AssociationRequest:
    """An A-ASSOCIATE-RQ, read.

    Attributes
    ----------
    called, calling
        AE titles, without the spaces around them.
    contexts
        The presentation contexts as proposed: identifiers odd and unique, each with a transfer syntax at least.
    roles
        SCU and SCP role that the peer proposes for itself, by SOP class (PS3.7 D.3.3.4).
    windowed
        Whether it proposes an asynchronous operations window (PS3.7 D.3.3.3).
    identity
        The user that it names (PS3.7 D.3.3.7), or None.
    maximum_pdu
        The longest P-DATA-TF that it takes, in bytes after the PDU's length field; 0 for any (PS3.8 D.1).
    software
        Its implementation version name, or empty.
    """

    called: str
    calling: str
    protocol_version: int
    application_context: str
    contexts: Sequence[PresentationContext]
    roles: Mapping[UID, tuple[bool, bool]]
    windowed: bool
    identity: UserIdentityNegotiation | None
    maximum_pdu: int
    software: str

    @classmethod
    def read(cls, pdu: bytes) -> Self:
        """Read a whole PDU, from its type on. Items of kinds that are not known are left out (PS3.8 9.3.1).

        Raises
        ------
        ValueError
            It is no A-ASSOCIATE-RQ as the standard has it; the connection is to be aborted (PS3.8 9.3.8).
        """
        known = pdu[:_ITEMS] + _known(pdu[_ITEMS:])
        try:
            decoded = A_ASSOCIATE_RQ()
            decoded.decode(known)
            asked = decoded.to_primitive()
            items = asked.user_information
            roles = [item for item in items if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
            lengths = [item for item in items if isinstance(item, MaximumLengthNotification)]
            versions = [item for item in items if isinstance(item, ImplementationVersionNameNotification)]
            request = cls(
                called=asked.called_ae_title.strip(),
                calling=asked.calling_ae_title.strip(),
                protocol_version=decoded.protocol_version,
                application_context=str(asked.application_context_name or ""),
                contexts=asked.presentation_context_definition_list,
                roles={cast(UID, item.sop_class_uid): (bool(item.scu_role), bool(item.scp_role)) for item in roles},
                windowed=any(isinstance(item, AsynchronousOperationsWindowNegotiation) for item in items),
                identity=next((item for item in items if isinstance(item, UserIdentityNegotiation)), None),
                maximum_pdu=(lengths[0].maximum_length_received or 0) if lengths else 0,
                software=(versions[0].implementation_version_name or "") if versions else "",
            )
        except Exception as error:  # pynetdicom does not say what its decoders raise; ours is all they may mean
            raise ValueError(f"not an A-ASSOCIATE-RQ ({type(error).__name__})") from error
        identifiers = {context.context_id for context in request.contexts}
        if len(identifiers) != len(request.contexts) or not identifiers:
            raise ValueError("an A-ASSOCIATE-RQ without presentation contexts, or with two of the same identifier")
        if not all(context.abstract_syntax and context.transfer_syntax for context in request.contexts):
            raise ValueError("an A-ASSOCIATE-RQ with a presentation context without abstract or transfer syntax")
        return request


def _known(items: bytes) -> bytes:
    """The variable items whose kind pynetdicom knows; those of the user information too."""
    known = []
    for kind, content in _items(items, _MOST_ITEMS):
        if kind == _USER_INFORMATION:
            inner = _items(content, _MOST_ITEMS)
            content = b"".join(_item(*one) for one in inner if one[0] in PDU_ITEM_TYPES)
        elif kind == _PRESENTATION_CONTEXT:  # the identifier and three reserved bytes come first
            inner = _items(content[4:], _MOST_SYNTAXES)
            content = content[:4] + b"".join(_item(*one) for one in inner if one[0] in PDU_ITEM_TYPES)
        if kind in PDU_ITEM_TYPES:
            known.append(_item(kind, content))
    return b"".join(known)


def _items(content: bytes, most: int) -> list[tuple[int, bytes]]:
    """Type and value of each item. Raises `ValueError` where the last is cut off, or there are too many."""
    items: list[tuple[int, bytes]] = []
    position = 0
    while position < len(content):
        end = position + 4 + int.from_bytes(content[position + 2 : position + 4])
        if end > len(content) or len(items) == most:
            raise ValueError("an A-ASSOCIATE-RQ with an item that is longer than what it is in, or with too many items")
        items.append((content[position], content[position + 4 : end]))
        position = end
    return items


def _item(kind: int, content: bytes) -> bytes:
    return bytes((kind, 0)) + len(content).to_bytes(2) + content
