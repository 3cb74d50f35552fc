import math
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.capacity import HERE, busy, needs, per_study, play
from benchmarks.scaling.inputs import Event, Inputs, Scenario, load


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return load(HERE / "capacity.toml")


def scenario(**keys: Any) -> Scenario:
    return Scenario(**{"title": "a test", "studies_per_day": 500, "machines": {"node": 1}, **keys})


def without_failures(inputs: Inputs) -> Inputs:
    calm = {name: group.model_copy(update={"fails_every_days": 0}) for name, group in inputs.machines.items()}
    return inputs.model_copy(update={"machines": calm})


def test_the_shipped_figures_are_whole_and_name_machines_that_there_are(inputs: Inputs) -> None:
    assert math.isclose(sum(kind.share for kind in inputs.kinds.values()), 1.0)
    for each in inputs.scenarios.values():
        assert each.machines.keys() <= inputs.machines.keys()
        assert {event.what for event in each.events} <= {*inputs.machines, "archive"}


def test_every_image_is_delivered_and_the_same_seed_plays_the_same_day(inputs: Inputs) -> None:
    one, again, other = (play(inputs, scenario(), seed) for seed in (1, 1, 2))
    assert one.images == sum(map(len, one.turnaround.values()))
    assert one.turnaround == again.turnaround != other.turnaround
    assert all(pool.running == {} and pool.waiting == [] for pool in one.pools.values())


def test_a_day_has_about_as_many_studies_as_it_should(inputs: Inputs) -> None:
    items = sum(kind.share * kind.items for kind in inputs.kinds.values())
    assert play(inputs, scenario(), 1).images == pytest.approx(500 * items, rel=0.15)


def test_an_archive_that_is_away_keeps_results_waiting_and_no_slot(inputs: Inputs) -> None:
    calm = without_failures(inputs)
    event = Event(what="archive", at_hour=10, hours=4)
    day = play(calm, scenario(events=(event,)), 1)
    assert day.images == sum(map(len, day.turnaround.values()))
    kept = [count for hour, _, count in day.looks if 10 < hour < 14]
    assert all(before <= after for before, after in pairwise(kept))
    assert kept[-1] > 50
    assert 14 < day.caught_up < 14.5
    assert max(work for hour, work, _ in day.looks if 10 < hour < 14) < 20


def test_what_runs_on_a_machine_that_fails_is_done_again_and_what_is_drained_is_not(inputs: Inputs) -> None:
    calm = without_failures(inputs)
    busy_day = scenario(studies_per_day=8000, machines={"receiver": 1, "worker": 2})
    lost = {}
    for planned in (False, True):
        events = tuple(Event(what="worker", at_hour=8 + hour, hours=0.5, planned=planned) for hour in range(8))
        day = play(calm, busy_day.model_copy(update={"events": events}), 1)
        assert day.images == sum(map(len, day.turnaround.values()))
        lost[planned] = day.lost
    assert lost[False] > 0
    assert lost[True] == 0


def test_urgent_images_overtake_where_there_is_a_queue(inputs: Inputs) -> None:
    day = play(without_failures(inputs), scenario(studies_per_day=13000), 1)
    every = sorted(second for times in day.turnaround.values() for second in times)
    assert sorted(day.urgent)[int(0.95 * len(day.urgent))] < every[int(0.95 * len(every))] / 3


def test_what_is_reckoned_is_what_is_played(inputs: Inputs) -> None:
    calm = without_failures(inputs)
    day = play(calm, scenario(studies_per_day=5000), 1)
    assert day.pools["infer"].worked == pytest.approx(5000 * per_study(calm)["infer"], rel=0.1)
    assert busy(calm, scenario(studies_per_day=5000))["infer"] == pytest.approx(
        5000 * per_study(calm)["infer"] / 86400 * calm.peak / 2
    )
    assert len(needs(calm)) == 8
