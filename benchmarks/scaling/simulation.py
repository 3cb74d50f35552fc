"""One day of studies through the stages, event by event, with machines and archives that are away at times.

Studies come as a Poisson process whose rate follows the hours of the day. Each stage waits for a slot of its pool,
urgent images first, the others as they came. A machine that fails takes what runs on it with it: the ledger gives that
to another one when the lease has ended. An archive that is away holds no slot: its deliveries are tried again with
growing waits. Stages that wait (a study that is being sent, a series that is being found complete) hold none either.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.scaling.inputs import HOURS, POOL, Event, Inputs, Scenario, Stage

HOUR = 3600.0
LOOK_SECONDS = 120.0
"""How often it is noted how much waits."""
OF_EACH_MODEL: tuple[Stage, ...] = ("infer", "encode", "deliver")


@dataclass(slots=True)
class Image:
    """One volume or X-ray on its way."""

    kind: str
    slices: int
    archive: int
    urgent: bool
    ended: float = 0.0
    """When its last slice came: turnaround counts from here."""
    left: int = 0
    """Models of which nothing was delivered yet."""
    attempts: int = 0
    kept: bool = False
    """Whether it has waited for an archive."""


@dataclass
class Pool:
    """Slots, and who waits for one."""

    slots: int = 0
    waiting: list[tuple[bool, int, Image, float, Callable[[Image], None]]] = field(default_factory=list)
    running: dict[int, tuple[Image, float, Callable[[Image], None]]] = field(default_factory=dict)
    worked: float = 0.0
    most: int = 0


@dataclass
class Day:
    """What came of it: seconds from last image to delivered by kind, how many waited at which time, and the pools."""

    turnaround: dict[str, list[float]] = field(default_factory=dict)
    urgent: list[float] = field(default_factory=list)
    looks: list[tuple[float, int, int]] = field(default_factory=list)
    """Hour, images that wait for or are at work, images that wait for an archive."""
    pools: dict[str, Pool] = field(default_factory=dict)
    images: int = 0
    lost: int = 0
    """Runs that were lost with a machine and done again."""
    caught_up: float = 0.0
    """Hour at which the last one was delivered that had waited for an archive."""


class Simulation:
    """Plays one scenario; ``load`` scales the studies of the day."""

    def __init__(self, inputs: Inputs, scenario: Scenario, seed: int, load: float = 1.0) -> None:
        self._inputs = inputs
        self._scenario = scenario
        self._load = load
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._now = 0.0
        self._here = 0  # images that were sent and not delivered
        self._held = 0  # those of them that wait for an archive
        self._away = [False] * scenario.archives
        self._pools = {name: Pool() for name in ("receive", "prepare", "infer")}
        for group, count in scenario.machines.items():
            for pool, slots in inputs.machines[group].slots.items():
                self._pools[pool].slots += slots * count
        for archive in range(scenario.archives):
            self._pools[f"deliver {archive}"] = Pool(inputs.associations_per_archive)
        self._day = Day({kind: [] for kind in inputs.kinds}, pools=self._pools)

    def run(self) -> Day:
        """Play it until everything is delivered."""
        inputs, scenario = self._inputs, self._scenario
        most = max(inputs.hours)
        self._rate = scenario.studies_per_day * self._load * most / sum(inputs.hours) / HOUR  # in the busiest hour
        self._at(self._chance.expovariate(self._rate), self._study, most)
        self._at(0.0, self._look)
        for event in (*scenario.events, *self._failures()):
            self._at(event.at_hour * HOUR, self._leave, event)
        while self._events:
            self._now, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)
        return self._day

    def _at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, act, arguments))

    def _look(self) -> None:
        self._day.looks.append((self._now / HOUR, self._here - self._held, self._held))
        if self._now < HOURS * HOUR or self._here:
            self._at(self._now + LOOK_SECONDS, self._look)

    # ---- what comes ------------------------------------------------------------------------------------------------

    def _study(self, most: float) -> None:
        """A study may come, as likely as the hour has it; and the next one."""
        inputs, chance = self._inputs, self._chance
        hour = int(self._now / HOUR)
        if hour >= HOURS:
            return
        self._at(self._now + chance.expovariate(self._rate), self._study, most)
        if chance.random() * most >= inputs.hours[hour]:
            return
        [name] = chance.choices(list(inputs.kinds), [kind.share for kind in inputs.kinds.values()])
        kind = inputs.kinds[name]
        archive, urgent = chance.randrange(self._scenario.archives), chance.random() < inputs.urgent_share
        for _ in range(int(kind.items) + (chance.random() < kind.items % 1)):
            slices = max(1, round(kind.slices.draw(chance)))
            self._here += 1
            self._day.images += 1
            self._ask("receive", Image(name, slices, archive, urgent), self._received)

    def _received(self, image: Image) -> None:
        """What receives is not busy with one sender alone: the rest of the time it takes, the sender takes."""
        kind = self._inputs.kinds[image.kind]
        rest = max(0.0, image.slices / kind.slices_per_second - kind.costs["receive"].median(image.slices))
        image.ended = self._now + rest
        self._at(image.ended + self._inputs.completeness.draw(self._chance), self._work, image)

    def _work(self, image: Image) -> None:
        self._ask("assemble", image, self._assembled)

    def _assembled(self, image: Image) -> None:
        """Each model goes its own way."""
        image.left = self._inputs.kinds[image.kind].models
        for _ in range(image.left):
            self._ask("infer", image, lambda image: self._ask("encode", image, self._deliver))

    def _deliver(self, image: Image) -> None:
        if not self._away[image.archive]:
            self._ask("deliver", image, self._delivered)
            return
        retry = self._inputs.retry
        wait = min(retry.first_seconds * 2**image.attempts, retry.longest_seconds) * self._chance.uniform(0.8, 1.2)
        self._held += not image.kept
        image.kept = True
        image.attempts += 1
        self._at(self._now + wait, self._deliver, image)

    def _delivered(self, image: Image) -> None:
        if self._away[image.archive]:  # it went away meanwhile
            self._deliver(image)
            return
        image.left -= 1
        if image.left:
            return
        self._here -= 1
        if image.kept:
            self._held -= 1
            self._day.caught_up = self._now / HOUR
        seconds = self._now - image.ended
        self._day.turnaround[image.kind].append(seconds)
        if image.urgent:
            self._day.urgent.append(seconds)

    # ---- slots -----------------------------------------------------------------------------------------------------

    def _ask(self, stage: Stage, image: Image, then: Callable[[Image], None]) -> None:
        pool = self._pools[f"deliver {image.archive}" if stage == "deliver" else POOL[stage]]
        kind = self._inputs.kinds[image.kind]
        seconds = kind.costs[stage].draw(image.slices, self._chance)
        if stage in OF_EACH_MODEL:
            seconds /= kind.models
        self._number += 1
        heapq.heappush(pool.waiting, (not image.urgent, self._number, image, seconds, then))
        pool.most = max(pool.most, len(pool.waiting))
        self._fill(pool)

    def _fill(self, pool: Pool) -> None:
        while pool.waiting and len(pool.running) < pool.slots:
            _, number, image, seconds, then = heapq.heappop(pool.waiting)
            pool.running[number] = image, seconds, then
            self._at(self._now + seconds, self._finish, pool, number)

    def _finish(self, pool: Pool, number: int) -> None:
        done = pool.running.pop(number, None)
        if done is None:  # its machine has failed
            return
        image, seconds, then = done
        pool.worked += seconds
        self._fill(pool)
        then(image)

    # ---- what goes wrong -------------------------------------------------------------------------------------------

    def _failures(self) -> list[Event]:
        """Those that come by themselves."""
        found = []
        for name, count in self._scenario.machines.items():
            group = self._inputs.machines[name]
            for _ in range(count if group.fails_every_days else 0):
                day = self._chance.expovariate(1 / group.fails_every_days)
                if day < 1:
                    found.append(Event(what=name, at_hour=day * HOURS, hours=group.repair_minutes / 60))
        return found

    def _leave(self, event: Event) -> None:
        back = self._now + event.hours * HOUR
        if event.what == "archive":
            for archive in range(event.count):
                self._away[archive] = True
                self._at(back, self._is_there, archive)
            return
        for name, slots in self._inputs.machines[event.what].slots.items():
            pool = self._pools[name]
            before, gone = pool.slots, min(pool.slots, slots * event.count)
            pool.slots -= gone
            self._at(back, self._come_back, pool, gone)
            if not event.planned and before:
                self._lose(pool, round(len(pool.running) * gone / before))

    def _is_there(self, archive: int) -> None:
        self._away[archive] = False

    def _lose(self, pool: Pool, count: int) -> None:
        """What ran on it is taken over when its lease ends."""
        for number in self._chance.sample(list(pool.running), count):
            image, seconds, then = pool.running.pop(number)
            self._day.lost += 1
            self._at(self._now + self._inputs.retry.lease_seconds, self._take_over, pool, image, seconds, then)

    def _take_over(self, pool: Pool, image: Image, seconds: float, then: Callable[[Image], None]) -> None:
        self._number += 1
        heapq.heappush(pool.waiting, (not image.urgent, self._number, image, seconds, then))
        self._fill(pool)

    def _come_back(self, pool: Pool, slots: int) -> None:
        pool.slots += slots
        self._fill(pool)
