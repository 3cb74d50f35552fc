"""All that is known of some data before a model is judged on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from evaluation.cases import Case
from evaluation.judgement import CaseResult

T = TypeVar("T")

EVERYTHING = "all"
"""The split that is all of the data."""


@dataclass(frozen=True)
class Choice:
    """Which part of some data is wanted.

    Attributes
    ----------
    split
        A value of ``column``, `EVERYTHING`, or None for ``test`` where the column has it and everything where not.
    column
        The manifest's column of the splits.
    limit
        At most so many cases, evenly spread over all; None for no limit.
    groups
        Columns that are subgroups beside those that always are.
    """

    split: str | None = None
    column: str = "split"
    limit: int | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collection:
    """Labelled images, and what of the data became none.

    Attributes
    ----------
    words
        Which data, in words.
    validation
        What thresholds are chosen on.
    unusable
        What should have been a case, each with its problem.
    notes
        Sentences for the reader of the report.
    """

    words: str
    cases: tuple[Case, ...]
    validation: tuple[Case, ...] = ()
    unusable: tuple[CaseResult, ...] = ()
    notes: tuple[str, ...] = ()


def spread(things: Sequence[T], limit: int | None) -> tuple[T, ...]:
    """Give at most so many of some things, evenly spread: data is often sorted by class."""
    if limit is None or limit >= len(things):
        return tuple(things)
    return tuple(things[index] for index in np.linspace(0, len(things) - 1, limit).round().astype(int))


def age_band(age: str) -> str:
    """Give the band of an age in years, as ``62`` or as DICOM's AS (PS3.5 6.2, ``062Y``); empty where it is none."""
    number = age.strip().upper().removesuffix("Y")
    if age.strip().upper()[-1:] in ("D", "W", "M") and number[:-1].isdigit():
        return "under 18"
    try:
        years = float(number)
    except ValueError:
        return ""
    bands = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (130, "65 and more"))
    return next((words for limit, words in bands if 0 <= years < limit), "")
