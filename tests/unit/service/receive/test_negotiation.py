"""What pynetdicom, as a peer over real sockets, makes of our answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import JPEG2000MC, MPEG4HP41, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, UserIdentityNegotiation
from structlog.testing import capture_logs

from service.wire import VERIFICATION, rejection
from tests.receiving import Listening, listening


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    users = {"user_identity": "require", "users": {"anna": "pass phrase"}}
    with listening(tmp_path, maximum_associations_per_sender=2, **users) as node:
        yield node


def associate(node: Listening, *items: Any, calling: str = "CT1", passcode: bytes = b"pass phrase") -> Association:
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.positive_response_requested = 2, True
    identity.primary_field, identity.secondary_field = b"anna", passcode
    contexts = [
        build_context(VERIFICATION),
        build_context(CTImageStorage, [ExplicitVRLittleEndian]),
        build_context(CTImageStorage, [MPEG4HP41, JPEG2000MC]),
        build_context(MRImageStorage, [ExplicitVRLittleEndian]),
    ]
    ae = AE(calling)
    return ae.associate("127.0.0.1", node.port, contexts, ae_title="NODE", ext_neg=[identity, *items])


def test_all_that_can_be_negotiated_is_understood(node: Listening) -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 8
    association = associate(node, window, build_role(CTImageStorage, scu_role=True, scp_role=True))
    assert association.is_established
    accepted = [(context.abstract_syntax, context.transfer_syntax) for context in association.accepted_contexts]
    assert [sop_class for sop_class, _ in accepted] == [VERIFICATION, CTImageStorage, CTImageStorage]
    assert accepted[1][1] == [ExplicitVRLittleEndian]
    assert [context.abstract_syntax for context in association.rejected_contexts] == [MRImageStorage]
    assert [(context.as_scu, context.as_scp) for context in association.accepted_contexts] == [(True, False)] * 3
    assert association.acceptor.asynchronous_operations == (1, 1)
    assert association.acceptor.user_identity is not None
    assert association.acceptor.user_identity.server_response == b""
    assert association.acceptor.implementation_version_name is not None
    assert association.acceptor.implementation_version_name.startswith("WETREAD_")
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_a_rejection_is_understood_and_a_seat_is_free_as_soon_as_its_association_ends(node: Listening) -> None:
    with capture_logs() as events:
        wrong = associate(node, passcode=b"other")
    answer = rejection(wrong)
    assert answer is not None
    assert (answer.result, answer.result_source) == (1, 2)
    assert [event["event"] for event in events] == ["association.rejected"]
    open_ones = [associate(node) for _ in range(2)]
    answer = rejection(associate(node))
    assert answer is not None
    assert answer.result_str == "Rejected Transient"
    assert answer.reason_str == "Local limit exceeded"
    other = associate(node, calling="CT2")
    assert other.is_established
    for association in [*open_ones, other]:
        association.release()
    for _ in range(3):
        again = associate(node)
        assert again.is_established
        again.release()
