"""What one task of a model comes to for one case."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[T]):
    """What one task of a model comes to for one case.

    Attributes
    ----------
    patient
        Whose case it is.
    detail
        What the figures of many cases are made of.
    figures, expected, answer
        As of `evaluation.judgement.CaseResult`.
    ignored
        What the reference knows and the model does not answer.
    """

    patient: str
    detail: T
    figures: Mapping[str, float]
    expected: str
    answer: str
    ignored: tuple[str, ...] = ()
