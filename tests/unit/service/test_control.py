import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.control import answer_requests, ask
from service.errors import ConfigurationError
from service.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    spool = Spool(tmp_path)
    spool.lock()
    yield tmp_path
    spool.unlock()


def answering(spool: Path, verb: object) -> threading.Thread:
    """A node that answers one request."""

    def look() -> None:
        while not list((spool / "control").glob("*.request")):
            time.sleep(0.01)
        answer_requests(spool, {"reload": verb})  # type: ignore[dict-item]

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread


def test_a_request_is_answered_and_nothing_is_left(spool: Path) -> None:
    answering(spool, lambda: {"models": ["a"]})
    assert ask(spool, "reload", 10)["models"] == ["a"]
    assert not list((spool / "control").iterdir())


def test_what_the_node_could_not_do_is_told_in_its_own_words(spool: Path) -> None:
    def refuse() -> dict[str, object]:
        raise ConfigurationError("model.toml: overlap is wrong")

    answering(spool, refuse)
    with pytest.raises(ConfigurationError, match="overlap is wrong"):
        ask(spool, "reload", 10)


def test_a_node_that_does_not_answer_is_not_waited_for_for_ever_nor_asked_later(spool: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"did not answer within 0\.2 s"):
        ask(spool, "reload", 0.2)
    assert not list((spool / "control").iterdir())


def test_without_a_node_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no node works on the spool"):
        ask(tmp_path, "reload", 1)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"verb": "format"}', b'{"verb": ["reload"]}', b"\xff\xfe"])
def test_what_cannot_be_understood_is_removed(spool: Path, content: bytes) -> None:
    (spool / "control").mkdir()
    (spool / "control" / "x.request").write_bytes(content)
    answer_requests(spool, {"reload": lambda: pytest.fail("reloaded")})
    assert not list((spool / "control").iterdir())
