import json
import os
import threading
import time
from collections.abc import Callable, Iterator
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


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_endless, Path.mkdir])
@pytest.mark.timeout(20)
def test_what_is_no_file_holds_up_nobody(spool: Path, make: Callable[[Path], None]) -> None:
    (spool / "control").mkdir()
    make(spool / "control" / "0.request")
    (spool / "control" / "0.answer").mkdir()
    os.utime(spool / "control" / "0.answer", (0, 0))
    (spool / "control" / "1.request").write_text('{"verb": "reload"}')
    answer_requests(spool, {"reload": lambda: {"models": ["a"]}})
    assert json.loads((spool / "control" / "1.answer").read_text())["models"] == ["a"]


def test_what_nobody_has_foreseen_is_answered_by_its_place_alone(spool: Path) -> None:
    def fail() -> dict[str, object]:
        raise ValueError("DOE^JANE")

    answering(spool, fail)
    with pytest.raises(ConfigurationError, match=r"unexpected ValueError in test_control\.py"):
        ask(spool, "reload", 10)


def test_ten_thousand_files_that_are_no_requests_do_not_matter(spool: Path) -> None:
    (spool / "control").mkdir()
    for number in range(10_000):
        (spool / "control" / f"{number}.junk").touch()
    answering(spool, lambda: {"models": ["a"]})
    assert ask(spool, "reload", 30)["models"] == ["a"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 100_000, b'{"verb": "format"}', b'{"verb": ["reload"]}', b"\xff\xfe"]
)
def test_what_cannot_be_understood_is_removed(spool: Path, content: bytes) -> None:
    (spool / "control").mkdir()
    (spool / "control" / "x.request").write_bytes(content)
    answer_requests(spool, {"reload": lambda: pytest.fail("reloaded")})
    assert not list((spool / "control").iterdir())
