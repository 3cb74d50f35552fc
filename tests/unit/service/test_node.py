import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from service.errors import ConfigurationError
from service.lanes import whose_results
from service.ledger.jobs import Whose
from service.node import Node
from service.settings import Settings, parse
from service.spool import Spool
from tests.certificates import Authority, Issued
from tests.running_node import free_ports, small_engines
from tests.waiting import eventually

PORTS = ("node.port", "stow.port", "tls.port", "http.port")


def settings_of(folder: Path, ports: Mapping[str, int], certificate: Issued) -> Settings:
    files = {"certificate": str(certificate.certificate), "key": str(certificate.key), "clients": "none"}
    return parse(
        {
            "node": {"port": ports["node.port"]},
            "tls": {"port": ports["tls.port"], **files},
            "stow": {"enabled": True, "port": ports["stow.port"]},
            "http": {"port": ports["http.port"]},
            "engines": small_engines(folder / "models"),
            "spool": {"path": str(folder / "spool")},
        },
        "test",
    )


@pytest.mark.parametrize("key", ["tls.port", "http.port"])
def test_a_node_that_cannot_have_a_port_ends_what_it_has_begun(key: str, tmp_path: Path) -> None:
    ports = dict(zip(PORTS, free_ports(4), strict=True))
    settings = settings_of(tmp_path, ports, Authority(tmp_path).issue("node"))
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", ports.pop(key))), pytest.raises(ConfigurationError, match=key):
        Node(settings).start()
    for port in ports.values():
        socket.create_server(("127.0.0.1", port)).close()
    spool = Spool(tmp_path / "spool")
    spool.lock()
    spool.unlock()
    eventually(lambda: not {thread.name for thread in set(threading.enumerate()) - before}, "no thread is left", 10)


def test_a_certificate_that_ends_soon_is_told_at_the_start_and_by_the_metrics(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dict.fromkeys(PORTS, 0), Authority(tmp_path).issue("node", days=10))
    with capture_logs() as events, Node(settings) as node:
        shown = httpx.get(f"http://127.0.0.1:{node.http_port}/metrics").text
    [told] = [event for event in events if event["event"] == "tls.certificate_expires"]
    assert (told["key"], told["days"]) == ("tls.certificate", 9)
    assert 'wetread_certificate_expiry_timestamp_seconds{certificate="CN=node' in shown


def test_each_archive_has_threads_of_its_own_and_nobody_is_left_out() -> None:
    archives = {name: {"ae_title": name.upper(), "host": "h", "port": 104} for name in ("a", "b", "unused")}
    senders = {"CT1": {"archive": "a"}, "CT2": {"archive": "b"}, "CT3": {"archive": "a"}}
    settings = parse({"archives": {**archives, "b": {**archives["b"], "parallel": 2}}, "senders": senders}, "test")
    assert list(whose_results(settings)) == [
        Whose(("CT1", "CT3")),
        Whose(("CT2",)),
        Whose(("CT2",)),
        Whose(("CT1", "CT2", "CT3"), only=False),
    ]
