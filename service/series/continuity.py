"""Do the slices that have come follow one another without a gap?

It is told while they arrive, in any order, from headers alone; what slices are worth is decided later, from all of them
(`service.series.stacks`).
"""

import math
from dataclasses import dataclass, field
from operator import mul, sub

import numpy as np
from numpy.typing import NDArray

from service.header import HeaderFacts
from service.series.geometry import SAME_DIRECTION, SAME_POSITION_MM

BLOCK = 4
"""So many equal spacings in a row are meant to be; fewer wide ones among narrow ones are a gap."""
WIDE = 1.5
"""A spacing is wide from so many times the one beside it."""
ORIENTATIONS = 16
"""Orientations that are told apart in one series; slices of further ones are not looked at."""


@dataclass(frozen=True)
class Verdict:
    """What the slices say.

    Attributes
    ----------
    whole
        At least three slices of one orientation; positions and InstanceNumber without a gap.
    gap
        What is missing, for an operator; empty where nothing is.
    """

    whole: bool = False
    gap: str = ""


@dataclass
class Continuity:
    """Positions and numbers of the slices of one series so far.

    Positions outrank numbers: where every stack is evenly filled, a jump in InstanceNumber is a way of numbering.
    """

    _stacks: list[tuple[tuple[float, ...], tuple[float, ...], list[float]]] = field(default_factory=list)
    """Per orientation: its six values, its normal, and where its slices lie along that, in mm."""
    _numbers: set[int] = field(default_factory=set)
    _verdict: Verdict | None = None

    def add(self, facts: HeaderFacts) -> None:
        """Take one more slice into account."""
        self._verdict = None
        if facts.instance_number is not None:
            self._numbers.add(facts.instance_number)
        if facts.position is None or facts.orientation is None:
            return
        if not all(map(math.isfinite, facts.position + facts.orientation)):
            return
        position, orientation = facts.position, facts.orientation
        for known, normal, places in self._stacks:  # without arrays, which cost more than six numbers do
            if known == orientation or max(map(abs, map(sub, known, orientation))) < SAME_DIRECTION:
                places.append(sum(map(mul, normal, position)))
                return
        if len(self._stacks) < ORIENTATIONS:
            normal = tuple(np.cross(orientation[:3], orientation[3:]).tolist())
            self._stacks.append((orientation, normal, [sum(map(mul, normal, position))]))

    @property
    def verdict(self) -> Verdict:
        """What is known now; looked into once after each change."""
        if self._verdict is None:
            self._verdict = self._look()
        return self._verdict

    def _look(self) -> Verdict:
        stacks = [_Stack.of(places) for *_, places in self._stacks]
        stacks = [stack for stack in stacks if stack.positions >= 3]
        jump = _jumps(self._numbers)
        even = bool(stacks) and all(stack.even for stack in stacks)
        if gaps := sum(stack.gaps for stack in stacks):
            return Verdict(gap=f"{gaps} {'gap' if gaps == 1 else 'gaps'} in the slice positions")
        if jump and not even:
            return Verdict(gap=f"InstanceNumber jumps after {jump}")
        return Verdict(whole=even and not jump)


@dataclass(frozen=True)
class _Stack:
    """Parallel slices: how many positions they take, how many gaps there are, whether each position has as many."""

    positions: int
    gaps: int
    even: bool

    @classmethod
    def of(cls, places: list[float]) -> "_Stack":
        ordered = np.sort(places)
        first = np.flatnonzero(np.diff(ordered, prepend=-np.inf) > SAME_POSITION_MM)
        slices = np.diff(first, append=ordered.size)
        dips = slices[1:-1] < np.minimum(slices[:-2], slices[2:])  # one slice of a phase is missing at this position
        gaps = int(dips.sum()) + _wide(np.diff(ordered[first]))
        return cls(first.size, gaps, bool((slices == slices[0]).all()))


def _wide(spacings: NDArray[np.float64]) -> int:
    """How many spacings are wide without belonging to a block of equal ones, or lying between two blocks."""
    if spacings.size < 2:
        return 0
    typical = _lower_median(spacings)
    tolerance = max(0.05 * typical, min(0.11, 0.3 * typical))  # scanners round positions to a tenth of a millimetre
    runs = np.split(spacings, np.flatnonzero(np.abs(np.diff(spacings)) > tolerance) + 1)
    widths = [float(run.mean()) for run in runs]
    blocks = [index for index, run in enumerate(runs) if run.size >= BLOCK]
    gaps = 0
    for index, run in enumerate(runs):
        if run.size >= BLOCK:
            continue
        before = [widths[block] for block in blocks if block < index][-1:]
        after = [widths[block] for block in blocks if block > index][:1]
        if widths[index] > WIDE * max(before + after or [typical]):
            gaps += run.size
    return gaps


def _jumps(numbers: set[int]) -> int | None:
    """The number before the first jump of InstanceNumber, or None."""
    if len(numbers) < 3:
        return None
    ordered = np.sort(np.fromiter(numbers, float))
    steps = np.diff(ordered)
    wide = np.flatnonzero(steps > _lower_median(steps))
    return int(ordered[wide[0]]) if wide.size else None


def _lower_median(values: NDArray[np.float64]) -> float:
    return float(np.sort(values)[(values.size - 1) // 2])
