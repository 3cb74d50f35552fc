"""Scanners and archives that send studies in all the ways that are met in practice, on a virtual clock, seeded.

`HABITS` are the ways, `traffic` is what comes of one; `tests.simulated_node` lets a node receive it.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.header import HeaderFacts
from service.series.evidence import Decision
from service.spool import key_of

CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Habit:
    """How a sender sends. Times are in seconds; a pair is a range."""

    name: str
    series: tuple[int, int] = (1, 3)
    slices: tuple[int, int] = (20, 200)
    pause: float = 0.05
    """Median pause between two images in an association; they vary as widely as on a real network (log-normal)."""
    association: str = "series"
    """What an association carries: a ``series``, a ``study``, or ``images``."""
    images: tuple[int, int] = (1, 1)
    """How many, where it carries images."""
    between: tuple[float, float] = (0.1, 2.0)
    """Pause between two associations."""
    linger: float = 0.02
    """How long an association stays open after its last image."""
    interleaved: int = 0
    """So many images of one series at a time, then as many of the next."""
    shuffled: bool = False
    duplicated: float = 0.0
    aborted: float = 0.0
    """How often an association breaks."""
    returns: float = 0.8
    """How often the sender comes again after that."""
    stalls: float = 0.0
    """How often an image waits for 1 to 8 s."""
    holes: float = 0.0
    """How often slices of a series were never made."""
    weight: float = 1.0
    """How many of the studies are sent like this, relative to the others."""


HABITS = (
    Habit("one association per series", weight=4),
    Habit("one association per study", association="study", series=(2, 5), weight=2),
    Habit("several associations per series", association="images", images=(20, 60), between=(0.2, 4.0)),
    Habit("one association per image", association="images", between=(0.05, 0.6), slices=(20, 120), weight=2),
    Habit("interleaved series", association="study", series=(2, 4), interleaved=1),
    Habit("interleaved in blocks", association="study", series=(2, 4), interleaved=20),
    Habit("aborted and resumed", aborted=0.3),
    Habit("out of order, duplicated", association="study", series=(2, 4), shuffled=True, duplicated=0.1),
    Habit("stalls", stalls=0.02),
    Habit("associations linger", linger=20.0),
    Habit("slow sender", pause=2.0, slices=(10, 60), between=(2.0, 8.0)),
    Habit("1000 slices in 40 minutes", slices=(1000, 1000), series=(1, 1), pause=2.2, weight=0.2),
    Habit("slices that were never made", holes=1.0),
)


@dataclass(frozen=True)
class Event:
    """Something that the node notices: an image (its facts), or the end of an association."""

    at: float
    association: int
    facts: HeaderFacts | None = None
    aborted: bool = False


@dataclass
class Sent:
    """One series as it was sent, and what became of it.

    Attributes
    ----------
    planned
        How many images the sender has.
    arrivals, last_new
        When images came; when the last one came that had not come before.
    came
        How many different images came.
    evidence
        Whether there was evidence beside silence: it came in one association that was released after its last image,
        another series began in the same association after it, or an archive answered.
    decisions
        When it was found complete, with how many images, and why.
    """

    planned: int
    arrivals: list[float] = field(default_factory=list)
    last_new: float = 0.0
    came: set[str] = field(default_factory=set)
    evidence: bool = False
    decisions: list[tuple[float, int, Decision]] = field(default_factory=list)

    @property
    def early(self) -> int:
        """How often it was started before its last image had come."""
        return sum(at < self.last_new for at, _, _ in self.decisions)

    @property
    def delay(self) -> float:
        """Seconds from the last image to the decision with all of them."""
        return next(at for at, _, _ in self.decisions if at >= self.last_new) - self.last_new

    def by_timer(self, seconds: float) -> tuple[bool, float]:
        """Whether a timer from the last arrival would have started it early, and its delay."""
        before = [at for at in self.arrivals if at <= self.last_new]
        early = any(later - earlier >= seconds for earlier, later in itertools.pairwise(before))
        after = [at for at in self.arrivals if at >= self.last_new]
        fires = next(
            earlier + seconds
            for earlier, later in itertools.pairwise([*after, float("inf")])
            if later - earlier >= seconds
        )
        return early, fires - self.last_new


# ---- what is sent --------------------------------------------------------------------------------------------------


def traffic(habit: Habit, studies: int, seed: int) -> Iterator[tuple[list[Event], dict[str, Sent]]]:
    """The events of each study in order of time, and its series by key."""
    rng = random.Random(f"{habit.name} {seed}")
    number = itertools.count(1)
    now = 0.0
    for study in range(studies):
        sent: dict[str, Sent] = {}
        images = _images(habit, f"{seed}.{study}", rng, sent)
        events: list[Event] = []
        for batch in _batches(habit, images, rng):
            now = _send(habit, batch, now + rng.uniform(*habit.between), number, rng, events)
        _tell(events, sent)
        yield events, {key: series for key, series in sent.items() if series.came}
        now += rng.uniform(200, 400)


def _images(habit: Habit, study: str, rng: random.Random, sent: dict[str, Sent]) -> list[list[HeaderFacts]]:
    """The images of a study, series by series."""
    series = []
    for number in range(rng.randint(*habit.series)):
        uid = f"1.2.{study}.{number}"
        count = rng.randint(*habit.slices)
        places = list(range(1, count + 1))
        if rng.random() < habit.holes:
            where = rng.randint(2, count - 6)
            del places[where : where + rng.randint(1, 3)]
        if rng.random() < 0.5:
            places.reverse()
        images = [
            HeaderFacts(
                CT, f"{uid}.{place}", f"1.2.{study}", uid, "CT", place,
                position=(0.0, 0.0, place * 1.5), orientation=AXIAL,
            )
            for place in places
        ]  # fmt: skip
        if habit.shuffled:
            rng.shuffle(images)
        for index in range(len(images)):
            if rng.random() < habit.duplicated:
                images.append(images[index])
        series.append(images)
        sent[key_of(f"1.2.{study}", uid)] = Sent(len(places))
    return series


def _batches(habit: Habit, series: list[list[HeaderFacts]], rng: random.Random) -> Iterator[list[HeaderFacts]]:
    """What each association carries."""
    if habit.interleaved:
        size = habit.interleaved
        blocks = [[images[at : at + size] for at in range(0, len(images), size)] for images in series]
        series = [[image for row in itertools.zip_longest(*blocks, fillvalue=[]) for block in row for image in block]]
    elif habit.association == "study":
        series = [list(itertools.chain(*series))]
    for images in series:
        while images:
            count = rng.randint(*habit.images) if habit.association == "images" else len(images)
            yield images[:count]
            images = images[count:]


def _send(
    habit: Habit, batch: Sequence[HeaderFacts], now: float, number: Iterator[int], rng: random.Random,
    events: list[Event],
) -> float:  # fmt: skip
    """One association, and those that follow where it breaks; return when the last one has ended."""
    association = next(number)
    breaks = rng.randrange(1, len(batch) + 1) if rng.random() < habit.aborted else 0
    for index, facts in enumerate(batch, 1):
        now += habit.pause * rng.lognormvariate(0.0, 0.7)
        if rng.random() < habit.stalls:
            now += rng.uniform(1, 8)
        events.append(Event(now, association, facts))
        if index == breaks:
            now += rng.uniform(0, 0.1)
            events.append(Event(now, association, aborted=True))
            if rng.random() > habit.returns:
                return now
            rest = batch if rng.random() < 0.5 else batch[breaks:]  # all of it again, or what is missing
            return _send(habit, rest, now + rng.uniform(3, 30), number, rng, events) if rest else now
    now += habit.linger
    events.append(Event(now, association))
    return now


def _tell(events: Sequence[Event], sent: dict[str, Sent]) -> None:
    """Write down of each series when it came, and whether anything but silence would tell that it is whole."""
    last: dict[str, Event] = {}
    ends = {event.association: event for event in events if event.facts is None}
    begins: dict[int, dict[str, float]] = {}
    for event in events:
        if event.facts is not None:
            key = key_of(event.facts.study_uid, event.facts.series_uid)
            series, last[key] = sent[key], event
            series.arrivals.append(event.at)
            if event.facts.sop_instance_uid not in series.came:
                series.came.add(event.facts.sop_instance_uid)
                series.last_new = event.at
            begins.setdefault(event.association, {}).setdefault(key, event.at)
    for key, event in last.items():
        end = ends[event.association]
        once = sum(key in keys for keys in begins.values()) == 1
        released = once and not end.aborted and end.at - event.at < 1.0
        moved_on = any(at > event.at for at in begins[event.association].values())
        sent[key].evidence = released or moved_on
