"""Which class or segment of a model the words of a reference mean."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engines.packages.description import ClassificationSection
from engines.types import Segment

NORMAL_WORDS = ("normal", "none", "negative", "no finding")
"""What a reference calls an image that shows nothing."""
JOINED = "+"


def words_of(label: str) -> tuple[str, ...]:
    """Give the words of a label in lower case; an underscore parts words."""
    return tuple(re.findall(r"[^\W_]+", label.casefold()))


def name_of(label: str) -> str:
    """Give the part of a metric's name that a label becomes: ``Left lung`` is ``left_lung``."""
    return "_and_".join("_".join(words_of(part)) for part in label.split(JOINED))


def class_of(label: str, section: ClassificationSection) -> int | None:
    """Give the index of the class that a reference means: that of the same words, or the only one that has them all.

    The same words may also be those of the class's code: ``Viral pneumonia``, ``viral`` and ``75570004`` are one.
    """
    words = words_of(label)
    texts = [(entry.label, entry.code.meaning, entry.code.value) for entry in section.classes]
    same = [index for index, names in enumerate(texts) if words in {words_of(name) for name in names}]
    among = [index for index, names in enumerate(texts) if set(words) <= set(words_of(names[0]))]
    found = same or among
    return found[0] if words and len(found) == 1 else None


def class_names(labels: Iterable[str], section: ClassificationSection) -> tuple[str, ...]:
    """Name the classes for the metrics: as the reference does, where it always uses the same word for one."""
    used: dict[int, set[str]] = {}
    for label in labels:
        index = class_of(label, section)
        if index is not None:
            used.setdefault(index, set()).add(name_of(label))
    return tuple(
        next(iter(used[index])) if len(used.get(index, ())) == 1 else name_of(entry.label)
        for index, entry in enumerate(section.classes)
    )


@dataclass(frozen=True)
class Match:
    """What is compared under one name: masks of the reference together, with segments of the model together."""

    references: tuple[str, ...]
    segments: tuple[int, ...]


def segments_of(references: Sequence[str], segments: Sequence[Segment]) -> Mapping[str, Match]:
    """Say which segments of a model each mask of a reference means, by the name for the metrics.

    A mask means the segment of the same words; joined by ``+``, each of its segments; otherwise all segments that have
    its words: ``Lung`` is ``Left lung`` and ``Right lung`` together. And where a segment has fewer words than the
    masks, they are taken together: ``Left lung`` and ``Right lung`` for a model's ``Lung``. What means nothing is left
    out.
    """
    found: dict[str, Match] = {}
    for reference in references:
        numbers = [number for part in reference.split(JOINED) for number in _numbers(part, segments)]
        if numbers:
            found[name_of(reference)] = Match((reference,), tuple(dict.fromkeys(numbers)))
    left = [reference for reference in references if name_of(reference) not in found]
    for segment in segments:
        parts = tuple(each for each in left if set(words_of(segment.label)) < set(words_of(each)))
        if parts:
            found.setdefault(name_of(segment.label), Match(parts, (segment.number,)))
    return found


def _numbers(label: str, segments: Sequence[Segment]) -> list[int]:
    words = words_of(label)
    same = [segment.number for segment in segments if words_of(segment.label) == words]
    among = [segment.number for segment in segments if words and set(words) <= set(words_of(segment.label))]
    return same or among
