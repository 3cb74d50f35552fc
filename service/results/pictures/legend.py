"""What was found, as readers are told of it beside a picture: segments with their values, in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.measurements import HOUNSFIELD, MILLILITRE
from engines.types import Findings, Measurement, Segment
from service.results.pictures.lettering import printable

UNITS = {HOUNSFIELD.value: "HU", "1": "", "{ratio}": "", "mm2": "mm²", "mm3": "mm³", "cm3": "cm³"}
NAMED_BY_UNIT = (MILLILITRE.value, HOUNSFIELD.value)
"""Units that say by themselves what was measured."""


@dataclass(frozen=True)
class Entry:
    """One segment: whether it has a voxel, and what was measured of it, each in a few words."""

    segment: Segment
    found: bool
    values: tuple[str, ...]


def legend(findings: Findings) -> list[Entry]:
    """All segments that the model knows, in the order of their numbers."""
    segments = {segment.number: segment for label_map in findings.label_maps for segment in label_map.segments}
    found = {segment.number for label_map in findings.label_maps for segment in label_map.present}
    return [
        Entry(segment, number in found, _values(findings.measurements, number))
        for number, segment in sorted(segments.items())
    ]


def stated(entry: Measurement) -> str:
    """A measurement in a few words: ``3,428 mL``, ``mean -843 HU``, ``long axis 12.3 mm``."""
    words = [entry.derivation.meaning.lower()] if entry.derivation else []
    if entry.unit.value not in NAMED_BY_UNIT:
        words.append(entry.concept.meaning.lower())
    digits = 0 if abs(entry.value) >= 100 else 1
    # of what is small the digits count, not the decimals
    number = f"{entry.value:,.{digits}f}" if abs(entry.value) >= 1 else f"{entry.value:.2g}"
    return printable(" ".join([*words, number, UNITS.get(entry.unit.value, entry.unit.value)]))


def percentage(probability: float) -> str:
    """A probability as readers see it everywhere: ``81.2%``."""
    return f"{probability:.1%}"


def _values(measurements: Sequence[Measurement], number: int) -> tuple[str, ...]:
    return tuple(stated(entry) for entry in measurements if entry.segment == number and math.isfinite(entry.value))
