from datetime import datetime

import pytest

from service.deliver.pace import Pace
from service.deliver.windows import Windows
from service.errors import ConfigurationError
from service.settings import parse


def at(day: int, hour: int, minute: int = 0) -> float:
    return datetime(2026, 3, day, hour, minute).timestamp()


@pytest.mark.parametrize(
    ("windows", "now", "opens"),
    [
        ((), at(1, 12), at(1, 12)),
        (("19:00-06:00",), at(1, 12), at(1, 19)),
        (("19:00-06:00",), at(1, 23, 59), at(1, 23, 59)),
        (("19:00-06:00",), at(1, 5, 59), at(1, 5, 59)),
        (("19:00-06:00",), at(1, 6), at(1, 19)),
        (("08:00-12:00", "13:00-24:00"), at(1, 12, 30), at(1, 13)),
        (("08:00-12:00", "13:00-24:00"), at(1, 23, 30), at(1, 23, 30)),
        (("08:00-12:00", "13:00-24:00"), at(1, 0), at(1, 8)),
        (("08:00-09:00",), at(1, 9), at(2, 8)),
        (("00:00-24:00",), at(1, 9), at(1, 9)),
    ],
)
def test_an_archive_is_sent_to_within_its_windows(windows: tuple[str, ...], now: float, opens: float) -> None:
    assert Windows.of(windows).opens_at(now) == opens


def test_the_beginning_of_a_window_is_not_missed_by_a_rounding() -> None:
    windows = Windows.of(("19:00-06:00",))
    opens = windows.opens_at(at(1, 12))
    assert windows.opens_at(opens) == opens


@pytest.mark.parametrize("wrong", ["7-19", "19:00", "25:00-26:00", "19:00-06:60", "24:00-06:00"])
def test_what_is_no_span_of_the_day_is_told(wrong: str) -> None:
    archive = {"ae_title": "PACS", "host": "h", "port": 104, "windows": [wrong]}
    with pytest.raises(ConfigurationError, match=r"archives\.pacs\.windows"):
        parse({"archives": {"pacs": archive}}, "test")


def test_the_slower_of_two_rates_counts() -> None:
    pace = Pace(objects=10, megabytes=1)
    assert pace.reserve(100.0, 50_000) == 0.0
    assert pace.reserve(100.0, 2_000_000) == pytest.approx(0.1)
    assert pace.reserve(100.0, 0) == pytest.approx(2.1)
    assert pace.reserve(110.0, 0) == 0.0


def test_without_a_rate_nothing_waits() -> None:
    assert [Pace().reserve(1.0, 1 << 30) for _ in range(3)] == [0.0] * 3
