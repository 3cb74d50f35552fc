import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from service.errors import ConfigurationError
from service.operate.http import EngineHealth, Health, HttpServer
from service.operate.metrics import Metrics

WELL = Health(
    version="1.2.3",
    receiver_listening=True,
    ledger_reachable=True,
    spool_writable=True,
    spool_free_bytes=5_000_000,
    engines=(EngineHealth("ct-lung", "openvino", "fp32", "CPU", verified=True),),
)


class Node:
    """A server whose health can be set."""

    def __init__(self) -> None:
        self.health = WELL
        self.metrics = Metrics.on_new_registry()
        self.server = HttpServer("127.0.0.1", 0, lambda: self.health, self.metrics)
        self.server.start()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.server.port}{path}", trust_env=False)


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.server.stop()


def test_a_healthy_node_answers_200_with_what_it_serves(node: Node) -> None:
    answer = node.get("/health")

    assert answer.status_code == 200
    content = answer.json()
    assert content["status"] == "ok"
    assert content["version"] == "1.2.3"
    assert content["spool_free_bytes"] == 5_000_000
    assert content["engines"] == [
        {
            "model": "ct-lung", "runtime": "openvino", "precision": "fp32", "device": "CPU", "verified": True,
            "problem": "", "refusals": [],
        }
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["receiver_listening", "ledger_reachable", "spool_writable"])
def test_a_node_with_a_broken_part_answers_503_and_names_it(node: Node, part: str) -> None:
    node.health = replace(WELL, **{part: False})

    answer = node.get("/health")

    assert answer.status_code == 503
    assert answer.json()["status"] == "degraded"
    assert answer.json()[part] is False


@pytest.mark.parametrize("engines", [(), (EngineHealth("ct-lung", "openvino", "fp32", "CPU", verified=False),)])
def test_a_node_without_verified_engines_is_degraded(node: Node, engines: tuple[EngineHealth, ...]) -> None:
    node.health = replace(WELL, engines=engines)

    assert node.get("/health").status_code == 503


def test_metrics_show_counts_durations_and_jobs(node: Node) -> None:
    node.metrics.count_instance("new")
    node.metrics.count_instance("new")
    node.metrics.stage_seconds.labels("infer").observe(3.0)
    node.metrics.watch_jobs(lambda: {("deliver", "dead"): 2})

    text = node.get("/metrics").text

    assert 'wetread_instances_total{outcome="new"} 2.0' in text
    assert 'wetread_stage_seconds_bucket{le="5.0",stage="infer"} 1.0' in text
    assert 'wetread_jobs{stage="deliver",state="dead"} 2.0' in text


def test_two_nodes_in_one_process_count_for_themselves(node: Node) -> None:
    other = Metrics.on_new_registry()
    other.count_instance("new")

    assert "wetread_instances_total{" not in node.get("/metrics").text


def test_a_taken_port_is_a_configuration_error_that_names_the_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HttpServer("127.0.0.1", port, lambda: WELL, Metrics.on_new_registry())
        with pytest.raises(ConfigurationError, match=rf"http\.port = {port}"):
            server.start()


def test_a_stopped_server_gives_its_port_back(node: Node) -> None:
    other = Node()
    port = other.server.port
    other.server.stop()

    with socket.create_server(("127.0.0.1", port)) as again:
        assert again.getsockname()[1] == port
