import socket
import threading
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.node import Node
from service.settings import parse
from service.spool import Spool
from tests.certificates import Authority
from tests.running_node import free_ports, small_engines
from tests.waiting import eventually


@pytest.mark.parametrize("key", ["tls.port", "http.port"])
def test_a_node_that_cannot_have_a_port_ends_what_it_has_begun(key: str, tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("node")
    ports = dict(zip(("node.port", "stow.port", "tls.port", "http.port"), free_ports(4), strict=True))
    settings = parse(
        {
            "node": {"port": ports["node.port"]},
            "tls": {
                "port": ports["tls.port"],
                "certificate": str(issued.certificate),
                "key": str(issued.key),
                "clients": "none",
            },
            "stow": {"enabled": True, "port": ports["stow.port"]},
            "http": {"port": ports["http.port"]},
            "engines": small_engines(tmp_path / "models"),
            "spool": {"path": str(tmp_path / "spool")},
        },
        "test",
    )
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", ports.pop(key))), pytest.raises(ConfigurationError, match=key):
        Node(settings).start()
    for port in ports.values():
        socket.create_server(("127.0.0.1", port)).close()
    spool = Spool(tmp_path / "spool")
    spool.lock()
    spool.unlock()
    eventually(lambda: not {thread.name for thread in set(threading.enumerate()) - before}, "no thread is left", 10)
