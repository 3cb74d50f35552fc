"""What belongs together: the stacks that the slices of one series make, and what is left over.

A series is one stack for most scanners, but it may hold localisers, two orientations, phases or energies at the same
positions, or an image that was sent again under a new UID.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from service.errors import Quarantined
from service.series.geometry import SAME_POSITION_MM, Grid, along_normal, grid_of
from service.series.slices import Slice

DISTINGUISHING = (
    "stack", "acquisition", "temporal_position", "cardiac_phase", "trigger_time", "energy", "image_type", "kernel",
    "thickness",
)  # fmt: skip
"""Marks that may tell slices at one position apart, in the order in which they are looked at."""
WORDS = {
    "acquisition": "acquisition number", "temporal_position": "temporal position", "cardiac_phase": "cardiac phase",
    "trigger_time": "trigger time", "image_type": "image type", "thickness": "slice thickness", "stack": "stack ID",
}  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """Slices of one stack in order along their normal, their grid, and what a reader should know of the choice."""

    slices: tuple[Slice, ...]
    grid: Grid
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Remainder:
    """Slices that are part of no stack, and why; ``faulty`` where they should have been."""

    slices: tuple[Slice, ...]
    reason: str
    faulty: bool


def stacks_of(slices: Sequence[Slice]) -> tuple[list[Stack], list[Remainder]]:
    """Split the slices of a series into stacks, in the order of their lowest instance numbers."""
    stacks: list[Stack] = []
    remainders: list[Remainder] = []
    for cluster in _same_grid(slices):
        for part, notes in _one_at_a_position(cluster, remainders):
            _stack(part, notes, stacks, remainders)
    stacks.sort(key=lambda stack: min((one.number, str(one.file)) for one in stack.slices))
    return stacks, remainders


def _same_grid(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one size, orientation, pixel spacing and frame of reference, largest set first."""
    clusters: list[list[Slice]] = []
    for one in sorted(slices, key=lambda each: (each.number, each.marks.created, str(each.file))):
        for cluster in clusters:
            other = cluster[0]
            if _home(one) == _home(other) and one.plane.parallel(other.plane):
                cluster.append(one)
                break
        else:
            clusters.append([one])
    return sorted(clusters, key=len, reverse=True)


def _home(one: Slice) -> tuple[object, ...]:
    """Size and frame of reference; the frames of one multi-frame image never mix with those of another one."""
    return one.shape, one.frame_of_reference, None if one.frame is None else one.file


def _one_at_a_position(cluster: list[Slice], remainders: list[Remainder]) -> list[tuple[list[Slice], tuple[str, ...]]]:
    """Split what lies at the same positions by what tells it apart; where nothing does, by order or age."""
    places = _places(cluster)
    most = max(Counter(places).values())
    if len(cluster) > 1 and len(set(places)) == 1:
        reason = f"{len(cluster)} images at one position: no volume (a monitoring series or time points, most likely)"
        remainders.append(Remainder(tuple(cluster), reason, faulty=False))
        return []
    if most == 1 and not _interleaved(cluster):
        return [(cluster, ())]
    for name in DISTINGUISHING:
        parts = _by(cluster, lambda one, name=name: getattr(one.marks, name))  # type: ignore[misc]
        if 1 < len(parts) <= 2 * max(most, 2) and _told_apart(cluster, places, name):
            note = f"The series holds {len(parts)} stacks that differ in {WORDS.get(name, name)}; this is the one with "
            return [
                (part, (*notes, f"{note}{_in_words(getattr(one[0].marks, name))}."))
                for one in parts
                for part, notes in _one_at_a_position(one, remainders)
            ]
    if most == 1:
        return [(cluster, ())]
    if set(Counter(places).values()) == {most}:
        parts = _by_order(cluster, places)
        note = f"The series holds {most} stacks at the same positions that nothing but their order tells apart."
        return [(part, (note,)) for part in parts]
    return [_newest(cluster, places, remainders)]


def _in_words(mark: str) -> str:
    """As any character set can say it."""
    return mark.replace("\N{REPLACEMENT CHARACTER}", "?") or "none"


def _places(cluster: Sequence[Slice]) -> list[int]:
    """A number for the position of each slice; the same one for the same position."""
    along = along_normal([one.plane for one in cluster])
    order = np.argsort(along, kind="stable")
    steps = np.concatenate([[0], np.cumsum(np.diff(along[order]) >= SAME_POSITION_MM)])
    places = np.empty(len(along), int)
    places[order] = steps
    return [int(place) for place in places]


def _interleaved(cluster: Sequence[Slice]) -> bool:
    """Whether two reconstructions with other positions may be mixed: uneven as one, and marked as two that overlap."""
    if len(cluster) < 6:
        return False
    along = np.sort(along_normal([one.plane for one in cluster]))
    gaps = np.diff(along)
    return bool((np.abs(gaps - np.median(gaps)) > 0.1 * np.median(gaps)).mean() > 0.25)


def _told_apart(cluster: Sequence[Slice], places: Sequence[int], name: str) -> bool:
    """Whether a mark differs between the slices of each shared position, or between parts that overlap in extent."""
    shared = defaultdict(list)
    for one, place in zip(cluster, places, strict=True):
        shared[place].append(getattr(one.marks, name))
    if repeated := [values for values in shared.values() if len(values) > 1]:
        return sum(len(set(values)) > 1 for values in repeated) > len(repeated) / 2
    extents = []
    for part in _by(cluster, lambda one: getattr(one.marks, name)):
        along = along_normal([cluster[0].plane, *(one.plane for one in part)])[1:]
        extents.append((float(along.min()), float(along.max())))
    return any(later[0] < earlier[1] for earlier, later in pairwise(sorted(extents)))


def _by(cluster: Sequence[Slice], key: Callable[[Slice], Hashable]) -> list[list[Slice]]:
    parts: dict[Hashable, list[Slice]] = {}
    for one in cluster:
        parts.setdefault(key(one), []).append(one)
    return list(parts.values())


def _by_order(cluster: Sequence[Slice], places: Sequence[int]) -> list[list[Slice]]:
    """The first slice at each position by instance number, the second one, and so on."""
    parts: dict[int, list[Slice]] = {}
    seen: Counter[int] = Counter()
    for one, place in zip(cluster, places, strict=True):  # a cluster is in the order of its instance numbers
        parts.setdefault(seen[place], []).append(one)
        seen[place] += 1
    return list(parts.values())


def _newest(
    cluster: Sequence[Slice], places: Sequence[int], remainders: list[Remainder]
) -> tuple[list[Slice], tuple[str, ...]]:
    """One slice for each position, the one that was made last; the others are left over."""
    chosen: dict[int, Slice] = {}
    older: list[Slice] = []
    for one, place in zip(cluster, places, strict=True):
        held = chosen.get(place)
        if held is None or (held.marks.created, held.number) < (one.marks.created, one.number):
            chosen[place] = one
            if held is not None:
                older.append(held)
        else:
            older.append(one)
    reason = "another image lies at the same position and was made later (or has a higher instance number)"
    remainders.append(Remainder(tuple(older), reason, faulty=False))
    several = len({place for place, count in Counter(places).items() if count > 1})
    return list(chosen.values()), (f"At {several} positions the series holds several images; the last was taken.",)


def _stack(part: list[Slice], notes: tuple[str, ...], stacks: list[Stack], remainders: list[Remainder]) -> None:
    if len(part) == 1:
        reason = "a single image of its size and orientation: no volume (a localiser, most likely)"
        remainders.append(Remainder(tuple(part), reason, faulty=False))
    if len(part) < 2:
        return
    order = np.argsort(along_normal([one.plane for one in part]), kind="stable")
    ordered = tuple(part[index] for index in order)
    try:
        stacks.append(Stack(ordered, grid_of([one.plane for one in ordered]), notes))
    except Quarantined as error:
        remainders.append(Remainder(ordered, str(error), faulty=True))
