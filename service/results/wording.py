"""Findings in words that a result can hold: in the letters of its character set, no longer than their places.

Labels, notes and codes come from model packages and from headers: in any script, of any length, with line breaks and
backslashes, which would part a value in two (PS3.5 6.2). What a reader needs is kept; what cannot be a code is refused.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from pydicom import Dataset
from pydicom.charset import STAND_ALONE_ENCODINGS, python_encoding

from engines.types import (
    Classification,
    Code,
    Detections,
    Findings,
    InputStatistic,
    LabelMap,
    Measurement,
    Segment,
)
from service.errors import Quarantined

LONGEST = 64
"""Characters of an LO (PS3.5 6.2): labels, meanings, names."""
CODE = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")
"""An SH of ASCII, at most 16 characters, without a backslash or blanks around it."""

Word = Callable[[str], str]


def worded(findings: Findings, header: Dataset) -> Findings:
    """The same findings in words that their results can hold; the very same ones where they are so already.

    Letters that the source's character set has not lose their accent or become a question mark; a label of which
    nothing is left is that of its code. No two segments, classes and detections have one label: findings are followed
    by it.

    Parameters
    ----------
    header
        Of the source: results are in its character set.

    Raises
    ------
    Quarantined
        A code is none.
    """
    encodings = _encodings(header)

    def word(text: str) -> str:
        return _sayable(text, encodings)

    model, engine = findings.model, findings.engine
    segments = {segment.number: segment for label_map in findings.label_maps for segment in label_map.segments}
    labels = dict(zip(segments, _labels(((entry.label, entry.type) for entry in segments.values()), word), strict=True))
    classification = _classification(findings.classification, word, labels.values())
    classes = [entry.label for entry in classification.classes] if classification else []
    return replace(
        findings,
        model=replace(
            model,
            name=word(model.name)[:LONGEST],
            version=word(model.version)[:LONGEST],
            licence=word(model.licence),
            intended_use=word(model.intended_use),
        ),
        engine=replace(
            engine, runtime=word(engine.runtime), precision=word(engine.precision), device=word(engine.device)
        ),
        label_map=_label_map(findings.label_map, labels, word) if findings.label_map else None,
        overlapping=tuple(_label_map(label_map, labels, word) for label_map in findings.overlapping),
        classification=classification,
        detections=_detections(findings.detections, word, [*labels.values(), *classes]),
        input_statistics=tuple(_statistic(entry, word) for entry in findings.input_statistics),
        measurements=tuple(_measurement(entry, word) for entry in findings.measurements),
        notes=tuple(note for note in map(word, findings.notes) if note),
    )


def _encodings(header: Dataset) -> tuple[str, ...]:
    """What letters beyond ASCII can be encoded in: nothing where the source names no character set that is one."""
    named = header.get("SpecificCharacterSet") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    unknown = any(name not in python_encoding for name in names)
    contradicting = len(names) > 1 and any(name in STAND_ALONE_ENCODINGS for name in names)
    return () if unknown or contradicting else tuple(python_encoding[name] for name in names if name)


def _sayable(text: str, encodings: tuple[str, ...]) -> str:
    """One line of letters that the encodings have, without what controls a display, and no backslash."""
    visible = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text.replace("\\", "/"))
    line = " ".join(visible.split())
    if line.isascii():
        return line
    letters = []
    for letter in line:
        if unicodedata.category(letter) in ("Cf", "Cs"):  # turns the direction of writing, joins, is half of a letter
            continue
        if letter.isascii() or any(_encodes(encoding, letter) for encoding in encodings):
            letters.append(letter)
        else:
            plain = unicodedata.normalize("NFKD", letter)
            letters.append("".join(part for part in plain if part.isascii() and part != "\\") or "?")
    return " ".join("".join(letters).split())


def _encodes(encoding: str, letter: str) -> bool:
    try:
        encoded = letter.encode(encoding)
    except UnicodeError:
        return False
    # ISO_IR 13 has single bytes only, where Python's encoding has kanji with backslashes in them
    return encoded != b"\\" and (encoding != "shift_jis" or len(encoded) == 1)


def _labels(given: Iterable[tuple[str, Code]], word: Word, taken: Iterable[str] = ()) -> list[str]:
    """Labels that are not empty, not too long, and all different; none of them is taken."""
    labels: list[str] = []
    known = set(taken)
    last: dict[str, int] = {}
    for label, code in given:
        said = word(label)
        if not any(letter.isalnum() for letter in said):
            said = word(code.meaning) or code.value
        distinct, number = said[:LONGEST].strip(), last.get(said, 1)
        while distinct in known:
            number += 1
            suffix = f" ({number})"
            distinct = said[: LONGEST - len(suffix)].strip() + suffix
        last[said] = number
        known.add(distinct)
        labels.append(distinct)
    return labels


def _label_map(label_map: LabelMap, labels: Mapping[int, str], word: Word) -> LabelMap:
    segments = tuple(_segment(segment, labels[segment.number], word) for segment in label_map.segments)
    # a new one would have to be counted again
    return label_map if segments == label_map.segments else replace(label_map, segments=segments)


def _segment(segment: Segment, label: str, word: Word) -> Segment:
    return replace(
        segment,
        label=label,
        category=_code(segment.category, word),
        type=_code(segment.type, word),
        laterality=_code(segment.laterality, word) if segment.laterality else None,
    )


def _classification(classification: Classification | None, word: Word, taken: Iterable[str]) -> Classification | None:
    if classification is None:
        return None
    classes = classification.classes
    labels = _labels(((entry.label, entry.code) for entry in classes), word, taken)
    worded_classes = (
        replace(entry, label=label, code=_code(entry.code, word)) for entry, label in zip(classes, labels, strict=True)
    )
    return replace(classification, classes=tuple(worded_classes))


def _detections(detections: Detections | None, word: Word, taken: Sequence[str]) -> Detections | None:
    """What was looked for keeps its name where it was found once; of more, all but the first are numbered."""
    if detections is None:
        return None
    looked_for = zip(_labels(detections.looked_for, word, taken), detections.looked_for, strict=True)
    labels = _labels(((entry.label, entry.code) for entry in detections.found), word, taken)
    return Detections(
        tuple(
            replace(entry, label=label, code=_code(entry.code, word))
            for entry, label in zip(detections.found, labels, strict=True)
        ),
        tuple((label, _code(code, word)) for label, (_, code) in looked_for),
    )


def _statistic(entry: InputStatistic, word: Word) -> InputStatistic:
    return replace(entry, name=word(entry.name), unit=word(entry.unit))


def _measurement(entry: Measurement, word: Word) -> Measurement:
    return replace(
        entry,
        concept=_code(entry.concept, word),
        unit=_code(entry.unit, word),
        derivation=_code(entry.derivation, word) if entry.derivation else None,
    )


def _code(code: Code, word: Word) -> Code:
    if not CODE.fullmatch(code.value) or not CODE.fullmatch(code.scheme):
        raise Quarantined(
            f"{word(code.value)[:LONGEST]!r} of the scheme {word(code.scheme)[:LONGEST]!r} is no code: both have 1 to "
            "16 letters of ASCII, without a backslash or blanks around them; correct the model package"
        )
    meaning = word(code.meaning)[:LONGEST].strip()
    return replace(code, meaning=meaning or code.value)
