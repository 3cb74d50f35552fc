import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import ConfigurationError
from service.ledger.ledger import Ledger
from service.operate.fetching import FetchRule
from service.settings import Settings, parse
from service.spool import Spool
from tests.running_node import free_ports


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield ledger
    ledger.close()


def settings_with(rule: Mapping[str, object]) -> Settings:
    [nobody] = free_ports(1)
    archive = {"ae_title": "PACS", "host": "127.0.0.1", "port": nobody}
    return parse({"archives": {"pacs": archive}, "senders": {"CT1": {"archive": "pacs"}}, "fetch": {"r": rule}}, "test")


def rule_of(folder: Path, ledger: Ledger, now: float, **keys: object) -> FetchRule:
    settings = settings_with({"archive": "pacs", **keys})
    return FetchRule("r", settings.fetch["r"], settings, Spool(folder / "spool"), ledger, clock=lambda: now)


def test_outside_of_its_window_a_rule_asks_nothing(tmp_path: Path, ledger: Ledger) -> None:
    noon = datetime(2026, 3, 2, 12, 0).timestamp()
    with capture_logs() as events:
        rule_of(tmp_path, ledger, noon, windows=["19:00-06:00"]).look()
    assert events == []
    assert ledger.take_turn("fetch.r", 1.0) is not None, "its turn was not taken"


def test_an_archive_that_is_away_is_asked_again_soon_and_the_turn_goes_on_where_it_was(
    tmp_path: Path, ledger: Ledger
) -> None:
    rule = rule_of(tmp_path, ledger, time.time(), every_minutes=0.05)
    first = ledger.take_turn("fetch.r", 0.0)
    assert first is not None
    with capture_logs() as events:
        rule.look()
        rule.look()
    [told] = [event for event in events if event["event"] == "fetch.failed"]
    assert (told["rule"], told["archive"]) == ("r", "pacs")
    assert ledger.take_turn("fetch.r", 1.0) is None, "it is not due yet"
    time.sleep(3.1)
    again = ledger.take_turn("fetch.r", 1.0)
    assert again is not None
    assert again.done_until == first.done_until


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"studies": "received"}, r"fetch\.r: .*say in priors how many"),
        ({"studies": "received", "priors": 1, "by": "c-move"}, r"fetch\.r: .*priors of priors"),
        ({"modalities": []}, r"fetch\.r\.modalities"),
        ({"modalities": ["ct"]}, r"fetch\.r\.modalities\.0 = 'ct'"),
        ({"windows": ["7-19"]}, r"fetch\.r\.windows\.0 = '7-19'"),
        ({"every": 5}, r"fetch\.r\.every = 5: no such key; .*every_minutes"),
    ],
)
def test_a_wrong_key_of_a_rule_is_named(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings_with({"archive": "pacs", **keys})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"archive": "nowhere"}, r"fetch\.r: no archive 'nowhere' \(known: pacs\)"),
        ({"sender": "CT2"}, r"fetch\.r: no sender 'CT2'"),
        ({"by": "wado-rs"}, r"fetch\.r: archives\.pacs\.dicomweb is not set"),
    ],
)
def test_what_a_rule_names_and_is_not_there_is_an_error(
    keys: dict[str, object], message: str, tmp_path: Path, ledger: Ledger
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rule_of(tmp_path, ledger, time.time(), **keys)
