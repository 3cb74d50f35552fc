"""What evidence is worth, on hand-made observations."""

from dataclasses import replace

import pytest

from service.series.continuity import Verdict
from service.series.evidence import Observed, judge
from service.settings import SeriesSettings

SETTINGS = SeriesSettings()
RELEASED = Observed(instances=100, last_event=0.0, released=True)
WHOLE = replace(RELEASED, slices=Verdict(whole=True))
GAP = replace(RELEASED, slices=Verdict(gap="1 gap in the slice positions"))


def seconds_until_complete(observed: Observed) -> float:
    """Silence after which it is complete, to a tenth of a second."""
    return next(tenths / 10 for tenths in range(10_000) if judge(observed, SETTINGS, tenths / 10).complete)


@pytest.mark.parametrize(
    ("observed", "seconds"),
    [
        (Observed(100, 0.0), 2.0),  # after a restart: silence alone
        (RELEASED, 1.0),
        (WHOLE, 0.6),
        (replace(RELEASED, announced=True), 0.4),
        (replace(WHOLE, announced=True), 0.0),
        (replace(WHOLE, moved_on=True), 0.0),
        (replace(RELEASED, multi_frame=True), 0.0),
        (replace(RELEASED, archive=100, confirmed=True), 0.0),
        (replace(RELEASED, archive=100, confirmed=False), 1.0),  # something came since it was asked
        (replace(RELEASED, archive=90, confirmed=True), 1.0),  # it may be behind
        (replace(WHOLE, usual_pause=0.3), 0.6),  # the floor
        (replace(WHOLE, usual_pause=4.0), 6.0),
        (replace(WHOLE, usual_pause=500.0), 18.0),  # the ceiling
        (Observed(1, 0.0, open=True, whole_images=True), 0.0),
        (Observed(100, 0.0, open=True), 10.0),
        (Observed(100, 0.0, open=True, usual_pause=20.0), 100.0),
        (Observed(100, 0.0, open=True, usual_pause=200.0), 300.0),
        (Observed(100, 0.0, open=True, alive_until=1.0), 6.0),  # silence among other images weighs as much as after all
        (Observed(100, 0.0, open=True, alive_until=5.0), 2.0),
        (Observed(100, 0.0, open=True, moved_on=True), 1.2),
        (Observed(100, 0.0, open=True, moved_on=True, slices=Verdict(whole=True)), 0.8),
        (Observed(100, 0.0, open=True, moved_on=True, archive=100, confirmed=True), 0.0),
    ],
)
def test_silence_that_is_needed_beside_other_evidence(observed: Observed, seconds: float) -> None:
    assert seconds_until_complete(observed) == seconds
    assert not judge(observed, SETTINGS, seconds).partial


@pytest.mark.parametrize(
    ("observed", "seconds", "against"),
    [
        (GAP, 30.0, "1 gap in the slice positions"),
        (replace(GAP, moved_on=True), 6.0, "1 gap in the slice positions"),
        (replace(WHOLE, released=False, lost=True), 48.0, "an association was lost and nothing came after it"),
        (replace(WHOLE, archive=101, confirmed=True), 120.0, "the archive has 101"),
        (replace(WHOLE, archive=101, confirmed=False), 120.0, "the archive has 101"),
        (replace(GAP, open=True, released=False), 300.0, "1 gap in the slice positions"),
    ],
)
def test_what_speaks_against_delays_the_series_and_makes_it_partial(
    observed: Observed, seconds: float, against: str
) -> None:
    assert seconds_until_complete(observed) == seconds
    decision = judge(observed, SETTINGS, seconds)
    assert decision.partial
    assert decision.against == (against,)


def test_what_is_missing_in_the_archive_too_speaks_no_longer_against() -> None:
    decision = judge(replace(GAP, archive=100, confirmed=True), SETTINGS, 0.0)
    assert decision.complete
    assert not decision.partial


def test_a_decision_reads_as_one_line() -> None:
    assert str(judge(WHOLE, SETTINGS, 0.6)) == "released +50, no gap +20, quiet 0.6 s +30"
    assert str(judge(GAP, SETTINGS, 30.0)) == ("released +50, quiet 30.0 s +50; partial: 1 gap in the slice positions")
    assert str(judge(GAP, SETTINGS, 6.0)) == "released +50, quiet 6.0 s +10; against: 1 gap in the slice positions"
