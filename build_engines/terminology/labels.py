"""From a model's label to a coded concept: what ``anatomy.csv`` knows, or an explicit placeholder.

Each row of the table has a label (as TotalSegmentator names it, where it has one), other spellings, the SNOMED CT code
with its meaning, what kind of thing it is, a colour of our own for display, and where the code is from: a context
group of PS3.16 that lists it, TotalSegmentator's published mapping, or SNOMED CT itself. ``in_dicom`` says whether
DICOM's own dictionary has the code; a test compares each of those with pydicom's copy of it.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from engines.types import Code

PRIVATE = "99WETREAD"
"""Coding scheme of placeholders: a label that the table does not know, to be replaced by who imports the model."""

LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
SIDES = {"left": LEFT, "l": LEFT, "right": RIGHT, "r": RIGHT}

CATEGORIES = {
    "anatomy": Code("123037004", "SCT", "Anatomical Structure"),
    "morphology": Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    "tissue": Code("85756007", "SCT", "Tissue"),
    "object": Code("260787004", "SCT", "Physical object"),
}
"""PS3.16 CID 7150, Segmentation Property Category; the first by its older meaning, which viewers know."""

FILLERS = frozenset({"of", "the", "and", "structure"})
"""Words that tell no label from another."""

GOLDEN_ANGLE = 137.508
"""Hues that are this far apart differ for as many labels as one likes."""


@dataclass(frozen=True)
class Concept:
    """What is known about a label.

    Attributes
    ----------
    label
        As it is shown to a reader.
    category, type, laterality
        Of a segment (PS3.3 C.8.20.4); ``type`` is also the code of a class.
    colour
        sRGB, 0–255.
    known
        False for a placeholder in the private scheme.
    """

    label: str
    category: Code
    type: Code
    laterality: Code | None
    colour: tuple[int, int, int]
    known: bool = True


@dataclass(frozen=True)
class Row:
    """A row of the table; ``colour`` is written as ``#rrggbb``."""

    label: str
    aliases: tuple[str, ...]
    code: str
    meaning: str
    category: str
    colour: str
    source: str
    in_dicom: bool


@cache
def table() -> tuple[Row, ...]:
    """All rows of ``anatomy.csv``."""
    text = files("build_engines.terminology").joinpath("anatomy.csv").read_text(encoding="utf-8")
    return tuple(
        Row(
            entry["label"],
            tuple(alias for alias in entry["aliases"].split("|") if alias),
            entry["code"],
            entry["meaning"],
            entry["category"],
            entry["colour"],
            entry["source"],
            entry["in_dicom"] == "yes",
        )
        for entry in csv.DictReader(text.splitlines())
    )


def find(label: str) -> Concept | None:
    """Look a label up; letter case, order, plural and what stands between the words do not matter.

    ``kidney_left``, ``Left kidney`` and ``kidneys (L)`` are the kidney with laterality Left; where a row is of one side
    itself (the left atrium), no laterality is added.
    """
    words = _words(label)
    rows = _by_words()
    if (row := rows.get(frozenset(words))) is not None:
        return _concept(row, label, None)
    sides = [word for word in words if word in SIDES]
    row = rows.get(frozenset(word for word in words if word not in SIDES))
    if row is None or len({SIDES[word] for word in sides}) != 1:
        return None
    return _concept(row, label, SIDES[sides[0]])


def code_labels(labels: Sequence[str]) -> tuple[Concept, ...]:
    """Give each label its concept, or a placeholder whose value is made of its words."""
    return tuple(find(label) or _placeholder(label, number) for number, label in enumerate(labels, start=1))


def readable(label: str) -> str:
    """Write a label as a reader wants it: ``lung_upper_lobe_left`` as ``Lung upper lobe left``."""
    spaced = " ".join(re.sub(r"[_\s]+", " ", label).split())
    return spaced[:1].upper() + spaced[1:]


def _concept(row: Row, label: str, side: Code | None) -> Concept:
    red, green, blue = (int(row.colour[start : start + 2], 16) for start in (1, 3, 5))
    if side == LEFT:
        # so that the two sides of a thing can be told apart, and still look alike
        red, green, blue = (round(channel + (255 - channel) * 0.35) for channel in (red, green, blue))
    code = Code(row.code, "SCT", row.meaning)
    return Concept(readable(label), CATEGORIES[row.category], code, side, (red, green, blue))


def _placeholder(label: str, number: int) -> Concept:
    # The value is that of the words alone: one label has one value in every model, and two labels have two.
    name = readable(label)
    hue = number * GOLDEN_ANGLE % 360
    colour = tuple(round(255 * (0.85 - 0.6 * max(0.0, min(1.0, abs((hue / 60 + n) % 6 - 3) - 1)))) for n in (0, 4, 2))
    digest = hashlib.sha256(" ".join(_words(label)).encode()).hexdigest()
    code = Code(digest[:12].upper(), PRIVATE, name[:64])
    return Concept(name, CATEGORIES["anatomy"], code, None, (colour[0], colour[1], colour[2]), known=False)


@cache
def _by_words() -> Mapping[frozenset[str], Row]:
    return {frozenset(_words(name)): row for row in table() for name in _names(row)}


def _names(row: Row) -> Iterator[str]:
    yield row.label
    yield from row.aliases


def _words(label: str) -> list[str]:
    words = re.findall(r"[a-z]+\d*|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words if word not in FILLERS]
