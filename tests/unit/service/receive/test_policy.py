"""Who may associate, and what is answered: requests in, decisions out, no socket."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import MPEG4HP41, UID, JPEGLSLossless
from pynetdicom import build_context, build_role
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationVersionNameNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from structlog.testing import capture_logs

from service.commitment import STORAGE_COMMITMENT
from service.receive.contexts import CARRIED_ALONG, DECODABLE, PROCESSED, STORABLE, stores, stores_encoded
from service.receive.peer import Certificate, Peer
from service.receive.policy import Accepted, AssociationPolicy, Refused
from service.receive.request import AssociationRequest
from service.settings import NodeSettings, parse
from service.wire import VERIFICATION

CT, MR, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.34"
PRIVATE_CLASS, PRIVATE_SYNTAX = "1.3.12.2.1107.5.9.1", "1.2.840.113619.5.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CT1 = Certificate(frozenset({"CN=ct1", "O=Clinic"}), "ab" * 32)
HERE = Peer("10.1.2.3")


def encoded(
    *contexts: tuple[str, list[str]],
    calling: str = "CT1",
    called: str = "NODE",
    items: tuple[Any, ...] = (),
    application: str = "1.2.840.10008.3.1.1.1",
    version: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ."""
    asked = A_ASSOCIATE()
    asked.application_context_name = UID(application)
    asked.calling_ae_title, asked.called_ae_title = calling, called
    proposed = []
    for number, (sop_class, syntaxes) in enumerate(contexts or [(VERIFICATION, [IMPLICIT])]):
        context = build_context(sop_class, [*syntaxes])
        context.context_id = 2 * number + 1
        proposed.append(context)
    asked.presentation_context_definition_list = proposed
    asked.maximum_length_received = 65536
    asked.implementation_class_uid = UID("1.2.3")
    asked.user_information = [*asked.user_information, *items]
    pdu = A_ASSOCIATE_RQ(asked)
    pdu.protocol_version = version
    return bytes(pdu.encode())


def request(*contexts: tuple[str, list[str]], **changes: Any) -> AssociationRequest:
    return AssociationRequest.read(encoded(*contexts, **changes))


def policy(node: Mapping[str, Any] | None = None, sender: Mapping[str, Any] | None = None) -> AssociationPolicy:
    content: dict[str, Any] = {
        "node": {"ae_title": "NODE", **(node or {})},
        "senders": {"CT1": {"archive": "pacs", **(sender or {})}, "CT2": {"archive": "pacs"}},
        "archives": {
            "pacs": {"ae_title": "PACS", "host": "h", "port": 104},
            "silent": {"ae_title": "SILENT", "host": "h", "port": 104, "commitment": "verify"},
            "moving": {"ae_title": "MOVING", "host": "h", "port": 104, "fetch": "c-move"},
        },
    }
    if (sender or {}).get("certificates"):
        content["tls"] = {"certificate": "node.pem", "key": "node.key", "authorities": "authorities.pem"}
    return AssociationPolicy(parse(content, "test"))


def accepted(decision: Accepted | Refused) -> Accepted:
    assert isinstance(decision, Accepted), decision
    return decision


def answer(decision: Accepted | Refused) -> A_ASSOCIATE:
    """The A-ASSOCIATE-AC as pynetdicom reads it."""
    pdu = A_ASSOCIATE_AC()
    pdu.decode(accepted(decision).answer)
    assert pdu.encode() == accepted(decision).answer
    return pdu.to_primitive()


def user(name: bytes, passcode: bytes, kind: int = 2) -> UserIdentityNegotiation:
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.positive_response_requested = kind, True
    identity.primary_field, identity.secondary_field = name, passcode
    return identity


KNOWN = {"user_identity": "require", "users": {"anna": "pass phrase"}}


@pytest.mark.parametrize(
    ("node", "sender", "peer", "asked", "outcome"),
    [
        ({}, {}, HERE, {}, None),
        ({}, {}, HERE, {"calling": "CT2"}, None),
        ({}, {}, HERE, {"calling": "MOVING"}, None),
        ({}, {}, HERE, {"calling": "PACS"}, (1, 1, 3)),
        ({}, {}, HERE, {"calling": "SILENT"}, (1, 1, 3)),
        ({}, {}, HERE, {"calling": "STRANGER"}, (1, 1, 3)),
        ({}, {}, HERE, {"calling": "ct1"}, (1, 1, 3)),
        ({"accept_unknown_senders": True}, {}, HERE, {"calling": "STRANGER"}, None),
        ({}, {}, HERE, {"called": "OTHER"}, (1, 1, 7)),
        ({"accept_unknown_senders": True}, {}, HERE, {"called": "node"}, (1, 1, 7)),
        ({}, {}, HERE, {"application": "1.2.3.4"}, (1, 1, 2)),
        ({}, {}, HERE, {"version": 2}, (1, 2, 2)),
        ({}, {}, HERE, {"version": 3}, None),
        ({}, {"addresses": ["10.1.0.0/16"]}, HERE, {}, None),
        ({}, {"addresses": ["192.168.0.0/16", "10.1.2.3"]}, HERE, {}, None),
        ({}, {"addresses": ["10.2.0.0/16"]}, HERE, {}, (1, 1, 3)),
        ({"accept_unknown_senders": True}, {"addresses": ["10.2.0.0/16"]}, HERE, {}, (1, 1, 3)),
        ({}, {"addresses": ["10.2.0.0/16"]}, HERE, {"calling": "CT2"}, None),
        ({}, {"addresses": ["10.2.0.0/16"]}, Peer("fe80::1"), {}, (1, 1, 3)),
        ({}, {"addresses": ["fe80::/10"]}, Peer("fe80::1"), {}, None),
        ({}, {"certificates": ["CN=ct1"]}, HERE, {}, (1, 1, 3)),
        ({}, {"certificates": ["CN=ct1"]}, Peer("10.1.2.3", CT1), {}, None),
        ({}, {"certificates": ["CN=ct7", "sha256:" + "AB:" * 31 + "AB"]}, Peer("10.1.2.3", CT1), {}, None),
        ({}, {"certificates": ["CN=ct1, O=Elsewhere"]}, Peer("10.1.2.3", CT1), {}, (1, 1, 3)),
        ({}, {}, HERE, {"items": (user(b"anna", b"?"),)}, None),
        ({"user_identity": "refuse"}, {}, HERE, {}, None),
        ({"user_identity": "refuse"}, {}, HERE, {"items": (user(b"anna", b"?"),)}, (1, 2, 1)),
        (KNOWN, {}, HERE, {}, (1, 2, 1)),
        (KNOWN, {}, HERE, {"items": (user(b"anna", b"pass phrase"),)}, None),
        (KNOWN, {}, HERE, {"items": (user(b"anna", b"other"),)}, (1, 2, 1)),
        (KNOWN, {}, HERE, {"items": (user(b"bert", b"x"),)}, (1, 2, 1)),
        (KNOWN, {}, HERE, {"items": (user(b"\xff", b"pass phrase"),)}, (1, 2, 1)),
        (KNOWN, {}, HERE, {"items": (user(b"anna", b"pass phrase", kind=1),)}, (1, 2, 1)),
    ],
)
def test_who_may_associate(
    node: dict[str, Any], sender: dict[str, Any], peer: Peer, asked: dict[str, Any], outcome: tuple[int, ...] | None
) -> None:
    with capture_logs() as events:
        decision = policy(node, sender).decide(request(**asked), peer)
    if outcome is None:
        assert isinstance(decision, Accepted)
        assert (decision.sender, decision.maximum_pdu) == (asked.get("calling", "CT1"), 65536)
        assert events == []
        return
    assert isinstance(decision, Refused)
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(decision.answer)
    assert (pdu.result, pdu.source, pdu.reason_diagnostic) == decision.code == outcome
    (event,) = events
    assert event["event"] == "association.rejected"
    assert (event["calling"], event["called"]) == (asked.get("calling", "CT1"), asked.get("called", "NODE"))
    assert (event["address"], event["reason"], event["fix"]) == (peer.address, decision.reason, decision.fix)
    assert "phrase" not in str(event)
    assert "anna" not in str(event)


def test_there_are_so_many_seats_in_all_and_for_each_sender_and_each_is_free_again_once() -> None:
    deciding = policy({"maximum_associations": 3, "maximum_associations_per_sender": 2})

    def seat(calling: str) -> Accepted | Refused:
        return deciding.decide(request(calling=calling), HERE)

    first, second = accepted(seat("CT1")), accepted(seat("CT1"))
    third = seat("CT1")
    assert isinstance(third, Refused)
    assert (third.code, "per_sender" in third.fix) == ((2, 3, 2), True)
    other = accepted(seat("CT2"))
    full = seat("CT2")
    assert isinstance(full, Refused)
    assert (full.code, full.reason) == ((2, 3, 2), "there are 3 associations already")
    for _ in range(2):
        with first.seat:
            pass
    accepted(seat("CT1"))
    assert isinstance(seat("CT2"), Refused)
    with second.seat, other.seat:
        pass
    accepted(seat("CT2"))


def test_many_threads_never_have_more_seats_than_there_are() -> None:
    deciding, asked, at_once, most = policy({"maximum_associations": 5}), request(), [0], [0]
    lock = threading.Lock()

    def associate() -> None:
        for _ in range(20):
            decision = deciding.decide(asked, HERE)
            if isinstance(decision, Accepted):
                with decision.seat:
                    with lock:
                        at_once[0] += 1
                        most[0] = max(most[0], at_once[0])
                    with lock:
                        at_once[0] -= 1

    threads = [threading.Thread(target=associate) for _ in range(8)]
    with capture_logs():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 <= most[0] <= 5
    assert [type(deciding.decide(asked, HERE)) for _ in range(6)] == [Accepted] * 5 + [Refused]


@pytest.mark.parametrize(
    ("node", "sop_class", "syntaxes", "chosen"),
    [
        ({}, CT, [IMPLICIT], IMPLICIT),
        ({}, CT, [IMPLICIT, EXPLICIT], EXPLICIT),
        ({}, CT, [JPEGLSLossless], JPEGLSLossless),
        ({}, CT, [MPEG4HP41], MPEG4HP41),
        ({}, VERIFICATION, [IMPLICIT], IMPLICIT),
        ({}, SR, [EXPLICIT], EXPLICIT),
        ({"accept_carried_along": False}, SR, [EXPLICIT], 0x03),
        ({}, MR, [EXPLICIT], 0x03),
        ({"accept_private": True}, MR, [EXPLICIT], 0x03),
        ({}, PRIVATE_CLASS, [EXPLICIT], 0x03),
        ({"accept_private": True}, PRIVATE_CLASS, [EXPLICIT], EXPLICIT),
        ({}, CT, [PRIVATE_SYNTAX], 0x04),
        ({"accept_private": True}, CT, [PRIVATE_SYNTAX], PRIVATE_SYNTAX),
        ({"accept_private": True}, CT, [PRIVATE_SYNTAX, IMPLICIT], IMPLICIT),
        ({"accept_private": True}, PRIVATE_CLASS, [PRIVATE_SYNTAX], PRIVATE_SYNTAX),
        ({"accept_private": True}, CT, ["1.2.840.10008.1.2.6.2"], 0x04),
    ],
)
def test_what_is_stored(node: dict[str, Any], sop_class: str, syntaxes: list[str], chosen: str | int) -> None:
    decision = accepted(policy(node).decide(request((VERIFICATION, [IMPLICIT]), (sop_class, syntaxes)), HERE))
    assert decision.contexts[1].abstract_syntax == VERIFICATION
    if isinstance(chosen, int):
        assert set(decision.contexts) == {1}
        assert [context.result for context in answer(decision).presentation_context_definition_results_list] == [
            0,
            chosen,
        ]
        return
    assert decision.contexts[3].transfer_syntax == [chosen]
    assert [
        str(context.transfer_syntax[0]) for context in answer(decision).presentation_context_definition_results_list
    ] == [
        IMPLICIT,
        chosen,
    ]


def test_every_sop_class_is_stored_in_every_transfer_syntax() -> None:
    deciding = policy()
    for sop_class in (*PROCESSED, *CARRIED_ALONG):
        assert stores(sop_class, NodeSettings())
        contexts = accepted(deciding.decide(request(*[(sop_class, [one]) for one in STORABLE]), HERE)).contexts
        assert [context.transfer_syntax for context in contexts.values()] == [[one] for one in STORABLE]
    assert all(stores_encoded(syntax, NodeSettings()) for syntax in STORABLE)


def test_what_can_be_decoded_is_less_than_what_can_be_stored() -> None:
    assert set(DECODABLE) < set(STORABLE)
    assert len(set(STORABLE)) == len(STORABLE)


def test_the_answer_names_the_node_and_what_it_takes() -> None:
    told = answer(policy({"maximum_pdu": 70000}).decide(request((CT, [EXPLICIT])), HERE))
    assert (told.maximum_length_received, told.application_context_name) == (70000, "1.2.840.10008.3.1.1.1")
    assert (told.called_ae_title, told.calling_ae_title) == ("NODE", "CT1")
    assert str(told.implementation_class_uid).startswith("2.25.")
    (version,) = [item for item in told.user_information if isinstance(item, ImplementationVersionNameNotification)]
    assert str(version.implementation_version_name).startswith("WETREAD_")
    assert not any(
        isinstance(item, AsynchronousOperationsWindowNegotiation | SCP_SCU_RoleSelectionNegotiation)
        for item in told.user_information
    )


@pytest.mark.parametrize("asked", [(0, 0), (5, 7), (1, 1)])
def test_an_asynchronous_operations_window_is_answered_with_one_operation_at_a_time(asked: tuple[int, int]) -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = asked
    told = answer(policy().decide(request(items=(window,)), HERE))
    (item,) = [item for item in told.user_information if isinstance(item, AsynchronousOperationsWindowNegotiation)]
    assert (item.maximum_number_operations_invoked, item.maximum_number_operations_performed) == (1, 1)


@pytest.mark.parametrize(
    ("proposed", "result", "replied"),
    [((True, False), 0x00, (True, False)), ((True, True), 0x00, (True, False)), ((False, True), 0x01, None)],
)
def test_a_peer_may_send_and_is_never_sent_to(
    proposed: tuple[bool, bool], result: int, replied: tuple[bool, bool] | None
) -> None:
    role = build_role(CT, scu_role=proposed[0], scp_role=proposed[1])
    told = answer(policy().decide(request((CT, [EXPLICIT]), (SR, [EXPLICIT]), items=(role,)), HERE))
    assert [one.result for one in told.presentation_context_definition_results_list] == [result, 0x00]
    roles = [item for item in told.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    if replied is not None:
        assert [(item.sop_class_uid, item.scu_role, item.scp_role) for item in roles] == [(CT, *replied)]


PUSH = str(STORAGE_COMMITMENT)


@pytest.mark.parametrize("roles", [(), ((False, True),), ((True, True),)])
def test_an_archive_may_report_on_storage_commitment_and_nothing_else(roles: tuple[tuple[bool, bool], ...]) -> None:
    proposed = [(VERIFICATION, [IMPLICIT]), (PUSH, [IMPLICIT]), (CT, [IMPLICIT])]
    items = tuple(build_role(PUSH, scu_role=scu, scp_role=scp) for scu, scp in roles)
    agreed = policy().decide(request(*proposed, calling="PACS", items=items), HERE)
    assert {str(one.abstract_syntax) for one in accepted(agreed).contexts.values()} == {VERIFICATION, PUSH}
    answered = [item for item in answer(agreed).user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    assert [(item.scu_role, item.scp_role) for item in answered] == [(False, True) for _ in roles]


def test_who_is_no_archive_may_not_report() -> None:
    agreed = policy().decide(request((PUSH, [IMPLICIT]), (CT, [IMPLICIT])), HERE)
    assert {str(one.abstract_syntax) for one in accepted(agreed).contexts.values()} == {CT}


def test_a_sender_that_is_an_archive_too_may_do_both() -> None:
    agreed = policy().decide(request((PUSH, [IMPLICIT]), (CT, [IMPLICIT]), calling="MOVING"), HERE)
    assert {str(one.abstract_syntax) for one in accepted(agreed).contexts.values()} == {CT, PUSH}


def test_an_archive_names_no_user_of_ours() -> None:
    assert isinstance(policy(KNOWN).decide(request((PUSH, [IMPLICIT]), calling="PACS"), HERE), Accepted)


def test_extended_negotiation_of_sop_classes_is_left_unanswered() -> None:
    extended, common = SOPClassExtendedNegotiation(), SOPClassCommonExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = UID(CT), b"\x02\x00\x03\x00\x01\x00"
    common.sop_class_uid, common.service_class_uid = UID(CT), UID("1.2.840.10008.4.2")
    told = answer(policy().decide(request((CT, [EXPLICIT]), items=(extended, common)), HERE))
    assert not any(
        isinstance(item, SOPClassExtendedNegotiation | SOPClassCommonExtendedNegotiation)
        for item in told.user_information
    )


@pytest.mark.parametrize(("setting", "confirmed"), [("ignore", False), ("require", True)])
def test_a_user_is_confirmed_only_where_it_was_looked_at(setting: str, confirmed: bool) -> None:
    asked = request(items=(user(b"anna", b"pass phrase"),))
    told = answer(policy(KNOWN | {"user_identity": setting}).decide(asked, HERE))
    items = [item for item in told.user_information if isinstance(item, UserIdentityNegotiation)]
    assert [item.server_response for item in items] == ([b""] if confirmed else [])


def test_items_of_unknown_kinds_are_left_out() -> None:
    pdu, unknown = encoded((CT, [EXPLICIT])), b"\x7a\x00\x00\x03abc"
    user_information = pdu.rindex(b"\x50\x00\x00")
    length = int.from_bytes(pdu[user_information + 2 : user_information + 4])
    longer = pdu[: user_information + 2] + (length + 7).to_bytes(2) + pdu[user_information + 4 :] + unknown
    for content in (pdu + unknown, longer, longer + unknown):
        assert [str(one.abstract_syntax) for one in AssociationRequest.read(content).contexts] == [CT]


def test_a_request_with_items_without_end_is_not_read() -> None:
    pdu = encoded((CT, [EXPLICIT]))
    with pytest.raises(ValueError, match="A-ASSOCIATE-RQ"):
        AssociationRequest.read(pdu + b"\x7a\x00\x00\x00" * 60000)
    with pytest.raises(ValueError, match="A-ASSOCIATE-RQ"):
        request((CT, [f"1.2.{number}" for number in range(200)]))


def test_a_request_against_the_rules_is_none() -> None:
    pdu = encoded((CT, [EXPLICIT]), (SR, [EXPLICIT]))
    second = pdu.rindex(b"\x20\x00\x00")
    same, even = bytearray(pdu), bytearray(pdu)
    same[second + 4], even[second + 4] = 1, 4
    for wrong in (pdu[:74], pdu[:80], pdu[:-3], bytes(same), bytes(even), pdu[:10] + b" " * 16 + pdu[26:], b""):
        with pytest.raises(ValueError, match="A-ASSOCIATE-RQ"):
            AssociationRequest.read(wrong)


@given(st.data())
def test_whatever_comes_is_a_request_that_can_be_decided_or_none(data: st.DataObject) -> None:
    content = bytearray(
        encoded((CT, [EXPLICIT, IMPLICIT]), (PRIVATE_CLASS, [PRIVATE_SYNTAX]), items=(user(b"a", b"b"),))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(6, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    with capture_logs():
        try:
            decided = DECIDING.decide(AssociationRequest.read(bytes(content)), HERE)
        except ValueError:
            return
    if isinstance(decided, Accepted):
        with decided.seat:
            assert answer(decided)


DECIDING = policy({"accept_private": True, "accept_unknown_senders": True} | KNOWN | {"user_identity": "ignore"})
