"""How a self-check refuses."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import TypeVar

from pydicom import Dataset

from service.errors import Quarantined

Expected = TypeVar("Expected")


def require(holds: bool, kind: str, difference: str) -> None:
    """Refuse an object unless a statement about it holds.

    Parameters
    ----------
    kind
        Which object: ``SEG``, ``SR``.
    difference
        What is wrong if it does not hold; without a patient's data.

    Raises
    ------
    Quarantined
        It does not hold.
    """
    if not holds:
        raise Quarantined(f"self-check of the {kind}: {difference}; nothing is sent, run the series again or report it")


def paired(datasets: Iterable[Dataset], expected: Iterable[Expected], kind: str) -> Iterator[tuple[Dataset, Expected]]:
    """Each object with what it must be, one after the other; refuses where there are fewer or more."""
    for dataset, entry in zip_longest(datasets, expected):
        require(dataset is not None, kind, "an object is missing")
        require(entry is not None, kind, "there is an object too many")
        yield dataset, entry


def only(datasets: Iterable[Dataset], kind: str) -> Dataset:
    """The one object of its kind."""
    [(dataset, _)] = paired(datasets, [kind], kind)
    return dataset
