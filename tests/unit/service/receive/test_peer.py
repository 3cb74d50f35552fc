import socket

import pytest

from service.receive.peer import Certificate, Peer, names_of

SHOWN = {
    "subject": ((("countryName", "DE"),), (("organizationName", "Clinic, North"),), (("commonName", "ct1"),)),
    "subjectAltName": (("DNS", "ct1.example"), ("IP Address", "10.0.0.1"), ("email", "it@clinic.example")),
}


def test_names_are_those_of_subject_and_alternative_subjects() -> None:
    names = {"C=DE", "O=Clinic, North", "CN=ct1", "DNS=ct1.example", "IP=10.0.0.1"}
    assert names_of(SHOWN) == names
    assert names_of(None) == frozenset()


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ("CN=ct1", True),
        ("CN=ct1, O=Clinic, North, C=DE", True),
        ("DNS=ct1.example,IP=10.0.0.1", True),
        ("CN=ct", False),
        ("CN=ct11", False),
        ("cn=ct1", False),
        ("CN=ct1, O=Clinic", False),
        ("sha256:" + "0f" * 32, True),
        ("sha256:" + "0F:" * 31 + "0F", True),
        ("sha256:" + "0e" * 32, False),
    ],
)
def test_a_setting_means_all_of_its_names_or_the_fingerprint(wanted: str, matches: bool) -> None:
    assert Certificate(names_of(SHOWN), "0f" * 32).matches(wanted) == matches


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_an_ipv4_sender_is_one_on_a_listener_of_both_kinds_too() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])),
        listener.accept()[0] as node,
    ):
        assert node.getpeername()[0] == "::ffff:127.0.0.1"
        assert Peer.of(node) == Peer("127.0.0.1")
