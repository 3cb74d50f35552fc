"""What is in a report, read from its file as plainly as can be."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset


def below(item: Dataset) -> Iterator[Dataset]:
    """All content items below one."""
    for child in item.get("ContentSequence") or []:
        yield child
        yield from below(child)


def about(item: Dataset) -> str:
    """What a content item is about, in words."""
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def groups(path: Path) -> list[Dataset]:
    """The measurement groups."""
    return [item for item in below(pydicom.dcmread(path)) if about(item) == "Measurement Group"]


def stated(item: Dataset, name: str) -> list[str]:
    """The words, numbers and UIDs of this name directly in an item."""
    found = []
    for child in item.ContentSequence:
        if about(child) == name:
            match child.ValueType:
                case "CODE":
                    found.append(child.ConceptCodeSequence[0].CodeMeaning)
                case "NUM":
                    found.append(str(child.MeasuredValueSequence[0].NumericValue))
                case "UIDREF":
                    found.append(child.UID)
                case _:
                    found.append(child.TextValue)
    return found


def regions(item: Dataset) -> list[NDArray[np.float64]]:
    """The lines directly in an item: column and row, 0 at the outer corner of the first pixel."""
    lines = [child for child in item.ContentSequence if child.ValueType == "SCOORD"]
    return [np.array(line.GraphicData, float).reshape(-1, 2) for line in lines]


def image_of(item: Dataset) -> Dataset:
    """What the only line directly in an item lies on."""
    [line] = [child for child in item.ContentSequence if child.ValueType == "SCOORD"]
    reference: Dataset = line.ContentSequence[0].ReferencedSOPSequence[0]
    return reference
