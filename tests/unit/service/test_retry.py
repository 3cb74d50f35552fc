import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from engines.errors import EngineFault, InferenceLost
from service.errors import ArchiveUnavailable, ConfigurationError, OutOfResources, Quarantined, Rejected
from service.retry import RetryPolicy, Verdict
from service.settings import RetrySettings

POLICY = RetryPolicy(first_seconds=5.0, longest_seconds=900.0, give_up_hours=72.0, jitter=0.0)


@pytest.mark.parametrize("error", [Quarantined("no"), Rejected("no"), ConfigurationError("no")])
def test_what_time_cannot_heal_ends_the_work_at_once(error: Exception) -> None:
    assert POLICY.after(error, attempts=1, age_seconds=0.0) == Verdict("no")


@pytest.mark.parametrize(
    "error",
    [
        ArchiveUnavailable("away"),
        OutOfResources("away"),
        OSError("away"),
        MemoryError("away"),
        OperationalError("SELECT :name", {"name": "Doe^Jane"}, sqlite3.OperationalError("away")),
    ],
)
def test_what_time_may_heal_is_tried_again_however_often(error: Exception) -> None:
    assert POLICY.after(error, attempts=100, age_seconds=71 * 3600) == Verdict("away", 900.0)


def test_the_wait_doubles_up_to_the_longest() -> None:
    waits = [POLICY.after(OSError(), attempts, 0.0).wait_seconds for attempts in (1, 2, 3, 8, 9, 10_000)]
    assert waits == [5.0, 10.0, 20.0, 640.0, 900.0, 900.0]


def test_what_failed_together_is_not_tried_again_together() -> None:
    waits = {RetryPolicy(first_seconds=10.0).after(OSError(), 1, 0.0).wait_seconds for _ in range(50)}
    assert len(waits) > 40
    assert all(wait is not None and 8.0 <= wait <= 12.0 for wait in waits)


def test_in_the_end_it_is_given_up() -> None:
    verdict = POLICY.after(ArchiveUnavailable("away"), attempts=3, age_seconds=72 * 3600 + 1)
    assert verdict == Verdict("given up after 72 h: away")


def test_what_nobody_has_foreseen_is_tried_a_few_times_and_told_by_its_place() -> None:
    with pytest.raises(KeyError) as caught:
        {}["Doe^Jane"]
    first, last = (POLICY.after(caught.value, attempts, 0.0) for attempts in (1, 3))
    assert first.wait_seconds == 5.0
    assert last.wait_seconds is None
    assert "unexpected KeyError in test_retry.py" in last.reason
    assert "Doe" not in last.reason
    assert "ValueError in model.py:3" in POLICY.after(EngineFault("ValueError in model.py:3"), 1, 0.0).reason


def test_an_inference_is_given_up_only_if_it_is_to_blame() -> None:
    assert POLICY.after(InferenceLost("hung", blamed=True), 3, 0.0) == Verdict("hung (attempt 3)")
    assert POLICY.after(InferenceLost("hung", blamed=True), 2, 0.0).wait_seconds == 10.0
    assert POLICY.after(InferenceLost("hung"), 3, 0.0).wait_seconds == 20.0


def test_the_settings_give_the_policy() -> None:
    policy = RetryPolicy.of(RetrySettings(first_seconds=1, longest_seconds=2, give_up_hours=3))
    assert (policy.first_seconds, policy.longest_seconds, policy.give_up_hours) == (1, 2, 3)
