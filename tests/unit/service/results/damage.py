"""Ways to damage a result object, to see that its check catches each."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom import Dataset

from service.types import ResultObject

Damage = Callable[[Dataset], None]


def set_(path: str, value: object) -> Damage:
    """Set an attribute in the items of sequences: ``Sequence.Sequence.Attribute``; ``Sequence:2`` is its third item."""

    def damage(dataset: Dataset) -> None:
        *sequences, keyword = path.split(".")
        setattr(item_at(dataset, sequences), keyword, value)

    return damage


def without(path: str) -> Damage:
    """Take an item out of a sequence, or an attribute out of an item."""

    def damage(dataset: Dataset) -> None:
        *sequences, last = path.split(".")
        keyword, _, number = last.partition(":")
        holder = item_at(dataset, sequences)
        if number:
            del holder[keyword].value[int(number)]
        else:
            del holder[keyword]

    return damage


def item_at(dataset: Dataset, sequences: list[str]) -> Dataset:
    for sequence in sequences:
        keyword, _, number = sequence.partition(":")
        dataset = dataset[keyword].value[int(number or 0)]
    return dataset


def copies(objects: Sequence[ResultObject], folder: Path) -> list[ResultObject]:
    """The same objects in another folder, so that they are written once and damaged often."""
    return [replace(entry, path=Path(shutil.copy(entry.path, folder))) for entry in objects]


def damaged(path: Path, damage: Damage) -> None:
    """Damage a file in place; the damage must change it."""
    dataset = pydicom.dcmread(path)
    before = path.read_bytes()
    damage(dataset)
    dataset.save_as(path)
    assert path.read_bytes() != before
