"""What was found, as readers are told of it beside a picture: segments and detections with their values, in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.inference.measurements import HOUNSFIELD, MILLILITRE
from engines.types import Detection, Findings, Measurement
from service.results.detected import is_point
from service.results.pictures.lettering import printable

UNITS = {HOUNSFIELD.value: "HU", "1": "", "{ratio}": "", "mm2": "mm²", "mm3": "mm³", "cm3": "cm³"}
DETECTED = (255, 180, 84)
"""What detections are drawn in: model packages give them no colour."""
NAMED_BY_UNIT = (MILLILITRE.value, HOUNSFIELD.value)
"""Units that say by themselves what was measured."""


@dataclass(frozen=True)
class Entry:
    """A segment or a detection: its colour, whether it was found, and its values, each in a few words."""

    label: str
    colour: tuple[int, int, int]
    found: bool
    values: tuple[str, ...]


def legend(findings: Findings) -> list[Entry]:
    """All segments that the model knows, in the order of their numbers, then all detections, and what none is of."""
    segments = {segment.number: segment for label_map in findings.label_maps for segment in label_map.segments}
    found = {segment.number for label_map in findings.label_maps for segment in label_map.present}
    entries = [
        Entry(segment.label, segment.colour, number in found, _values(findings.measurements, number))
        for number, segment in sorted(segments.items())
    ]
    if detections := findings.detections:
        entries += [Entry(entry.label, DETECTED, True, _place(entry)) for entry in detections.found]
        entries += [Entry(label, DETECTED, False, ()) for label, _ in detections.absent]
    return entries


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


def scored(entry: Detection) -> str:
    """A detection with its score, as beside its box: ``Nodule (2) 0.87``."""
    return f"{entry.label} {entry.score:.2f}"


def _place(entry: Detection) -> tuple[str, ...]:
    """The score of a detection; of a box in a volume also its diameter, or its size along x, y and z."""
    stated_score = f"score {entry.score:.2f}"
    if entry.diameter_mm is not None:
        return (stated_score, f"diameter {entry.diameter_mm:.0f} mm")
    if len(entry.low) == 2 or is_point(entry):
        return (stated_score,)
    size = " × ".join(f"{high - low:.0f}" for low, high in zip(entry.low, entry.high, strict=True))
    return (stated_score, f"{size} mm")


def _values(measurements: Sequence[Measurement], number: int) -> tuple[str, ...]:
    return tuple(stated(entry) for entry in measurements if entry.segment == number and math.isfinite(entry.value))
