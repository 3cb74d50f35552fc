from collections.abc import Iterator

import pytest

from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, NextJob, SeriesRecord
from service.series.evidence import FETCHED, Decision, Evidence


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()


def test_one_at_a_time_has_a_turn_and_the_next_one_when_it_is_due(ledger: Ledger) -> None:
    turn = ledger.take_turn("nightly", 60.0)
    assert turn is not None
    assert ledger.take_turn("nightly", 60.0) is None, "somebody has it"
    assert ledger.take_turn("another", 60.0) is not None
    ledger.end_turn(turn, 60.0, done=True)
    assert ledger.take_turn("nightly", 60.0) is None, "it is not due"
    ledger.end_turn(turn, 0.0, done=True)
    assert ledger.take_turn("nightly", 60.0) is not None


def test_a_turn_of_one_who_is_gone_is_taken_by_another(ledger: Ledger) -> None:
    turn = ledger.take_turn("nightly", 0.0)
    assert turn is not None
    other = ledger.take_turn("nightly", 60.0)
    assert other is not None
    ledger.hold_turn(other, 0.0)
    assert ledger.take_turn("nightly", 60.0) is not None


def test_a_turn_goes_on_from_the_beginning_of_the_last_one_that_came_to_its_end(ledger: Ledger) -> None:
    first = ledger.take_turn("nightly", 60.0)
    assert first is not None
    ledger.end_turn(first, 0.0, done=False)
    second = ledger.take_turn("nightly", 60.0)
    assert second is not None
    assert second.done_until == first.done_until
    ledger.end_turn(second, 0.0, done=True)
    third = ledger.take_turn("nightly", 60.0)
    assert third is not None
    assert third.done_until == second.began_at > first.done_until


def test_what_was_received_since_then_is_known_and_what_was_fetched_is_none_of_it(ledger: Ledger) -> None:
    turn = ledger.take_turn("priors", 60.0)
    assert turn is not None
    evidence = {
        "00aa": Decision(True, False, (Evidence("released", 100.0, ""),)),
        "00bb": Decision(True, False, (Evidence(FETCHED, 100.0, ""),)),
        "00cc": None,
    }
    for key, decision in evidence.items():
        sender = "OTHER" if key == "00cc" else "CT1"
        ledger.open_series(SeriesRecord(key, f"1.{key}", f"1.2.{key}", "CT", sender), 3)
        ledger.complete_series(key, 3, "", [NextJob(ASSEMBLE)], decision)
    assert [one.key for one in ledger.received_since(turn.began_at - 60, ["CT1"])] == ["00aa"]
    assert ledger.received_since(turn.began_at + 3600, ["CT1"]) == []
    assert (ledger.instances_of("00aa"), ledger.instances_of("00dd")) == (3, None)
