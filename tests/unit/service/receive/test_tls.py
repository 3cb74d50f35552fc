"""TLS over real sockets; the sender is Python's."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.errors import ConfigurationError
from service.receive.peer import Peer
from service.receive.tls import Tls
from service.settings import TlsSettings
from tests.certificates import Authority, Issued

A_ASSOCIATE_RQ = bytes.fromhex("0100000000440001") + bytes(66)


@dataclass
class Clinic:
    """A node's certificates, and those of a sender that it knows."""

    folder: Path
    authority: Authority
    node: Issued
    sender: Issued

    def settings(self, **changes: Any) -> TlsSettings:
        content = {
            "certificate": self.node.certificate,
            "key": self.node.key,
            "authorities": self.authority.certificate,
            "handshake_seconds": 5,
        }
        return TlsSettings.model_validate(content | changes)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    folder = tmp_path_factory.mktemp("clinic")
    authority = Authority(folder)
    return Clinic(folder, authority, authority.issue("node"), authority.issue("ct1"))


@dataclass
class Shaken:
    """What came of a handshake: the node's end, or its error; and the events."""

    secured: ssl.SSLSocket | None
    error: OSError | None
    events: list[MutableMapping[str, Any]]
    seen: Any

    @property
    def event(self) -> MutableMapping[str, Any]:
        (event,) = self.events
        return event


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=10) as sender,
        listener.accept()[0] as node,
    ):
        yield node, sender


def shake(tls: Tls, speak: Callable[[socket.socket], Any]) -> Shaken:
    """Let a sender speak to the node, each in its thread."""
    with capture_logs() as events, connected() as (node, sender), ThreadPoolExecutor(1) as pool:
        speaking = pool.submit(speak, sender)
        secured, error = None, None
        try:
            secured = tls.wrap(node)
        except OSError as raised:
            error = raised
        return Shaken(secured, error, events, speaking.result(10))


def sender_context(authority: Authority, shown: Issued | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.certificate)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def speaking(context: ssl.SSLContext) -> Callable[[socket.socket], Any]:
    """A sender that shakes hands, and tells the version, the cipher suite and whom it has met; or its error."""

    def speak(connection: socket.socket) -> Any:
        try:
            with context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
                told = secured.version(), (secured.cipher() or ("",))[0], secured.getpeercert()
                connection = secured
                secured.settimeout(0.3)
                with contextlib.suppress(TimeoutError):  # in TLS 1.3 a refusal comes after the client's part is done
                    secured.recv(1)
                return told
        except OSError as error:
            return error

    return speak


def test_both_ends_show_who_they_are_and_the_newest_version_is_preferred(clinic: Clinic) -> None:
    shaken = shake(Tls(clinic.settings()), speaking(sender_context(clinic.authority, clinic.sender)))
    assert shaken.seen[0] == "TLSv1.3"
    assert shaken.events == []
    assert shaken.secured is not None


def test_the_peer_is_known_by_what_its_certificate_names(clinic: Clinic) -> None:
    tls, context = Tls(clinic.settings()), sender_context(clinic.authority, clinic.sender)
    with connected() as (node, sender), ThreadPoolExecutor(1) as pool:
        secured = pool.submit(tls.wrap, node)
        with context.wrap_socket(sender, server_hostname="127.0.0.1"), secured.result(10) as end:
            peer = Peer.of(end)
    assert peer.address == "127.0.0.1"
    assert peer.certificate is not None
    assert peer.certificate.names == {"CN=ct1", "O=Clinic", "DNS=ct1.clinic.example", "IP=127.0.0.1"}
    assert peer.certificate.matches("CN=ct1")
    assert peer.certificate.matches("O=Clinic, DNS=ct1.clinic.example")
    assert not peer.certificate.matches("CN=ct1, O=Other")
    digits = peer.certificate.fingerprint.upper()
    assert peer.certificate.matches("sha256:" + ":".join(digits[i : i + 2] for i in range(0, 64, 2)))
    assert not peer.certificate.matches("sha256:" + "0" * 64)


def test_tls_1_2_has_forward_secrecy_and_authenticated_encryption(clinic: Clinic) -> None:
    context = sender_context(clinic.authority, clinic.sender)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    version, cipher, _ = shake(Tls(clinic.settings()), speaking(context)).seen
    assert (version, cipher) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")


def old_version(context: ssl.SSLContext) -> None:
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1


def old_cipher(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(
    ("weaken", "reason"),
    [
        (old_version, "the sender's version of TLS is too old"),
        (old_cipher, "the sender has none of the node's cipher suites"),
    ],
)
def test_what_is_no_longer_safe_is_refused(
    weaken: Callable[[ssl.SSLContext], None], reason: str, clinic: Clinic
) -> None:
    context = sender_context(clinic.authority, clinic.sender)
    weaken(context)
    shaken = shake(Tls(clinic.settings()), speaking(context))
    assert isinstance(shaken.seen, ssl.SSLError)
    assert (shaken.event["event"], shaken.event["reason"]) == ("tls.refused", reason)
    assert "TLS 1.2 or 1.3" in shaken.event["fix"]


@pytest.mark.parametrize(
    ("who", "reason", "fix"),
    [
        ("nobody", "the sender shows no certificate", "tls.clients"),
        ("expired", "the sender's certificate has expired", "renew"),
        ("foreign", "the sender's certificate is signed by an authority that is not known", "tls.authorities"),
        ("a server", "the sender's certificate is not meant for clients", "clientAuth"),
        ("an authority of its own", "the sender's certificate is signed by itself", "tls.authorities"),
    ],
)
def test_who_is_not_known_is_refused_with_the_reason(who: str, reason: str, fix: str, clinic: Clinic) -> None:
    foreign = Authority(clinic.folder, "elsewhere")
    shown = {
        "nobody": lambda: None,
        "expired": lambda: clinic.authority.issue("ct2", days=-1),
        "foreign": lambda: foreign.issue("ct3"),
        "a server": lambda: clinic.authority.issue("ct4", usage="serverAuth"),
        "an authority of its own": lambda: Issued(foreign.certificate, clinic.folder / "elsewhere.key"),
    }[who]()
    shaken = shake(Tls(clinic.settings()), speaking(sender_context(clinic.authority, shown)))
    assert shaken.secured is None
    assert (shaken.event["event"], shaken.event["log_level"]) == ("tls.refused", "warning")
    assert (shaken.event["address"], shaken.event["reason"]) == ("127.0.0.1", reason)
    assert fix in shaken.event["fix"]
    assert isinstance(shaken.seen, OSError)


def test_a_certificate_is_a_choice_where_the_settings_say_so_but_a_wrong_one_is_not(clinic: Clinic) -> None:
    tls = Tls(clinic.settings(clients="optional"))
    assert shake(tls, speaking(sender_context(clinic.authority))).events == []
    foreign = Authority(clinic.folder, "far").issue("ct5")
    shaken = shake(tls, speaking(sender_context(clinic.authority, foreign)))
    assert "authority that is not known" in shaken.event["reason"]
    without = Tls(clinic.settings(clients="none", authorities=None))
    assert shake(without, speaking(sender_context(clinic.authority))).events == []


def test_a_sender_that_does_not_trust_the_node_is_told(clinic: Clinic) -> None:
    foreign = Authority(clinic.folder, "other")
    shaken = shake(Tls(clinic.settings()), speaking(sender_context(foreign, clinic.sender)))
    assert shaken.event["reason"] == "the sender does not trust the node's certificate"
    assert "tls.certificate" in shaken.event["fix"]


@pytest.mark.parametrize("text", [A_ASSOCIATE_RQ, b"GET / HTTP/1.1\r\n\r\n"])
def test_plain_text_is_refused(text: bytes, clinic: Clinic) -> None:
    shaken = shake(Tls(clinic.settings()), lambda connection: connection.sendall(text))
    assert shaken.event["reason"] == "the sender does not use TLS"


def silent(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        connection.recv(1)


def slow(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"\x16")
        for byte in b"\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(490):
            time.sleep(0.1)
            connection.sendall(bytes((byte,)))


@pytest.mark.parametrize("speak", [silent, slow])
def test_a_handshake_that_takes_too_long_is_ended(speak: Callable[[socket.socket], None], clinic: Clinic) -> None:
    tls = Tls(clinic.settings(handshake_seconds=0.5))
    began = time.monotonic()
    shaken = shake(tls, speak)
    assert shaken.event["reason"] == "no handshake in time"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("word", [b"", b"\x16\x03\x01"])
def test_a_probe_that_only_connects_is_not_worth_an_event(word: bytes, clinic: Clinic) -> None:
    def probe(connection: socket.socket) -> None:
        connection.sendall(word)
        connection.close()

    shaken = shake(Tls(clinic.settings()), probe)
    assert isinstance(shaken.error, OSError)
    assert shaken.events == []


def test_certificates_are_read_again_when_they_change(clinic: Clinic, tmp_path: Path) -> None:
    served = Issued(tmp_path / "served.pem", tmp_path / "served.key")

    def serve(issued: Issued) -> None:
        served.certificate.write_bytes(issued.certificate.read_bytes())
        served.key.write_bytes(issued.key.read_bytes())

    def met() -> tuple[str, list[str]]:
        shaken = shake(tls, speaking(sender_context(clinic.authority, clinic.sender)))
        (name,) = [value for part in shaken.seen[2]["subject"] for key, value in part if key == "commonName"]
        return name, [event["event"] for event in shaken.events]

    serve(clinic.node)
    tls = Tls(clinic.settings(certificate=served.certificate, key=served.key))
    assert met() == ("node", [])
    new = clinic.authority.issue("renewed")
    served.certificate.write_bytes(new.certificate.read_bytes())  # and its key a moment later
    assert met() == ("node", ["tls.not_renewed"])
    assert met() == ("node", [])
    served.key.write_bytes(new.key.read_bytes())
    assert met() == ("renewed", ["tls.renewed"])
    served.certificate.write_text("broken")
    assert met() == ("renewed", ["tls.not_renewed"])
    served.certificate.unlink()
    assert met() == ("renewed", ["tls.not_renewed"])
    serve(clinic.node)
    assert met() == ("node", ["tls.renewed"])


def test_an_authority_that_is_removed_counts_no_more(clinic: Clinic, tmp_path: Path) -> None:
    authorities = tmp_path / "authorities.pem"
    second = Authority(tmp_path, "second")
    authorities.write_bytes(clinic.authority.certificate.read_bytes() + second.certificate.read_bytes())
    tls = Tls(clinic.settings(authorities=authorities))
    context = sender_context(clinic.authority, second.issue("guest"))
    assert shake(tls, speaking(context)).events == []
    authorities.write_bytes(clinic.authority.certificate.read_bytes())
    shaken = shake(tls, speaking(context))
    assert [event["event"] for event in shaken.events] == ["tls.renewed", "tls.refused"]


def test_a_certificate_that_was_revoked_counts_no_more(clinic: Clinic) -> None:
    lost = clinic.authority.issue("lost")
    tls = Tls(clinic.settings(revoked=clinic.authority.revocations()))
    assert shake(tls, speaking(sender_context(clinic.authority, lost))).events == []
    clinic.authority.revocations(lost)
    refused = shake(tls, speaking(sender_context(clinic.authority, lost)))
    assert [event["event"] for event in refused.events] == ["tls.renewed", "tls.refused"]
    assert refused.events[1]["reason"] == "the sender's certificate was revoked"
    assert shake(tls, speaking(sender_context(clinic.authority, clinic.sender))).events == []


def test_what_is_wrong_with_the_files_is_said_with_the_fix(clinic: Clinic, tmp_path: Path) -> None:
    other, missing, empty = clinic.sender, tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    for changes, message in (
        ({"key": other.key}, r"tls\.key = .*: not the key of .*node\.pem"),
        ({"key": missing}, r"tls\.key = .*missing\.pem: cannot be read \(No such file"),
        ({"certificate": empty}, r"tls\.certificate = .*empty\.pem.*: no certificate and key in PEM"),
        ({"revoked": empty}, r"tls\.revoked = .*empty\.pem: has no revocation list"),
        ({"revoked": other.certificate}, r"tls\.revoked = .*: has no revocation list, only certificates"),
        ({"authorities": empty}, r"tls\.authorities = .*empty\.pem: has no certificate"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Tls(clinic.settings(**changes))
