"""Simulated scanners against the real watcher and ledger: nothing is started early for good, and nothing late."""

import statistics
from pathlib import Path

import pytest

from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE
from tests.scanner import HABITS, Habit, Sent
from tests.simulated_node import ARCHIVES, NONE, SOURCE, play

STUDIES = 3
"""Of each habit and archive, times the habit's weight."""


def sent(habit: Habit, archive: str, folder: Path) -> list[Sent]:
    url = f"sqlite:///{folder / 'ledger.sqlite'}"
    return play(habit, archive, max(1, round(STUDIES * habit.weight)), seed=20, url=url)


def habit(name: str) -> Habit:
    return next(one for one in HABITS if one.name == name)


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("one", HABITS, ids=lambda one: one.name)
def test_every_series_runs_with_all_of_its_images_in_the_end(one: Habit, archive: str, tmp_path: Path) -> None:
    for series in sent(one, archive, tmp_path):
        at, instances, decision = series.decisions[-1]
        assert instances == len(series.came), "an early start was not superseded"
        assert at >= series.last_new
        counts = [count for _, count, _ in series.decisions]
        assert counts == sorted(set(counts)), "a series ran again with nothing new"
        if archive == SOURCE:
            assert decision.partial == (series.planned != len(series.came))
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert not ledger.receiving()
    assert {job.state for job in ledger.list_jobs() if job.stage == ASSEMBLE} == {"ready"}
    ledger.close()


def test_where_there_is_evidence_half_of_the_series_start_within_a_second_of_their_last_image(tmp_path: Path) -> None:
    for archive in ARCHIVES:
        (tmp_path / archive).mkdir()
        series = [series for one in HABITS for series in sent(one, archive, tmp_path / archive) if series.evidence]
        assert statistics.median(one.delay for one in series) < 1.0


def test_senders_that_behave_are_never_started_early(tmp_path: Path) -> None:
    for name in ("one association per series", "one association per study", "associations linger"):
        (tmp_path / name).mkdir()
        assert not any(series.early for series in sent(habit(name), NONE, tmp_path / name))


def test_what_was_never_made_is_partial_unless_the_archive_says_so_too(tmp_path: Path) -> None:
    one = habit("slices that were never made")
    for archive in (NONE, SOURCE):
        (tmp_path / archive).mkdir()
        partial = {series.decisions[-1][2].partial for series in sent(one, archive, tmp_path / archive)}
        assert partial == {archive == NONE}
