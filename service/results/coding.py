"""Codes of what was found, as the items of code sequences (PS3.3 8.8)."""

from highdicom.sr import CodedConcept

from engines.types import Code, Segment

ANATOMICAL_STRUCTURE = "123037004"
"""SNOMED CT: the category (CID 7150) of what belongs in a body, and is no finding by itself."""


def coded(code: Code) -> CodedConcept:
    """The same concept as a code sequence item."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def is_structure(segment: Segment) -> bool:
    """Whether a segment is an anatomical structure, and so a place as well as a finding."""
    return segment.category.value == ANATOMICAL_STRUCTURE
