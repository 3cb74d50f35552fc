"""What a model is judged by: an image with what is known about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.types import Image


@dataclass(frozen=True)
class Lesion:
    """One thing that a detector should find: its box, as in `engines.types.Detection`, and its diameter if known."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    diameter_mm: float | None = None

    @property
    def centre(self) -> tuple[float, ...]:
        """Middle of the box."""
        return tuple((low + high) / 2 for low, high in zip(self.low, self.high, strict=True))


@dataclass(frozen=True, eq=False)
class Case:
    """One image and its reference. At least one of ``label``, ``masks``, ``lesions`` is known.

    Attributes
    ----------
    name
        Tells it from the others in a report: a file's name or a number, nothing of a patient.
    patient
        Whose it is, for the bootstrap; unknown patients are one each.
    image
        Reads it; images are read one at a time.
    label
        Of the class that it belongs to.
    masks
        Reads the reference, by the label of a segment: ``[(slice,) row, column]`` on the image's grid. A segment that
        the reference does not tell from another is under both labels joined by ``+``: ``Left lung+Right lung``.
    lesions
        All that should be found; empty where there is nothing.
    split
        ``train``, ``val``, ``test``, … as the manifest says; empty where it says nothing.
    groups
        Subgroups by name, such as ``{"source": "nih", "sex": "F"}``.
    """

    name: str
    patient: str
    image: Callable[[], Image]
    label: str | None = None
    masks: Callable[[], Mapping[str, NDArray[np.bool_]]] | None = None
    lesions: tuple[Lesion, ...] | None = None
    split: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
