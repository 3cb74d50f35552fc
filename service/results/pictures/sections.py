"""A volume as planes through the patient, seen from the front and from below as radiologists do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from engines.measurements import HOUNSFIELD
from engines.types import LabelMap, Volume
from service.results.pictures.views import (
    READ_AS,
    Array,
    Layer,
    at_even_steps,
    fit,
    in_patient_order,
    mark_sides,
    patient_axes,
    plane_picture,
)
from service.results.pictures.window import Window, display_window

BODY_HU = -400
SAMPLES = 16
"""Planes that are looked at to find the body."""

AXIAL, CORONAL = READ_AS[0], READ_AS[1]


@dataclass(frozen=True, eq=False)
class Sections:
    """A volume in patient order, cropped to the body.

    Attributes
    ----------
    values
        ``[z, y, x]``, to the head, to the posterior, to the patient's left.
    layers
        Segment numbers of the same shape.
    spacing
        Of z, y and x in mm.
    window
        What is drawn black and white.
    """

    values: Array
    layers: tuple[Layer, ...]
    spacing: tuple[float, float, float]
    window: Window

    @classmethod
    def of(cls, volume: Volume, label_maps: Sequence[LabelMap]) -> "Sections":
        """The sections of a volume in any orientation, with what was found in it."""
        z, y, x = (volume.spacing[axis] for axis in patient_axes(volume.affine))
        values = in_patient_order(at_even_steps(volume.array, volume.at), volume.affine)
        rows, columns = _body(values) if volume.unit == HOUNSFIELD.value else (slice(None), slice(None))
        layers = tuple(
            (
                in_patient_order(at_even_steps(label_map.array, volume.at), volume.affine)[:, rows, columns],
                label_map.segments,
            )
            for label_map in label_maps
        )
        return cls(values[:, rows, columns], layers, (z, y, x), display_window(volume))

    def axial_size(self, box: tuple[int, int]) -> tuple[int, int]:
        """Width and height of an axial picture within a box."""
        return fit(self.values.shape[1:], self.spacing[1:], box)

    def axial(self, index: int, box: tuple[int, int]) -> Pillow.Image:
        """An axial plane within a box: the patient's right on the left of the picture."""
        layers = [(labels[index], segments) for labels, segments in self.layers]
        picture = plane_picture(self.window.shades(self.values[index]), layers, self.axial_size(box))
        mark_sides(picture, AXIAL)
        return picture

    def axial_indices(self, count: int) -> list[int]:
        """Planes spread over what was found, the highest first; over the whole volume where nothing was."""
        found = np.flatnonzero(sum((labels.any(axis=(1, 2)) for labels, _ in self.layers), np.zeros(len(self.values))))
        first, last = (int(found[0]), int(found[-1])) if found.size else (0, len(self.values) - 1)
        fractions = (np.arange(count) + 0.5) / count
        return [round(last - fraction * (last - first)) for fraction in fractions.tolist()]

    def coronal(self, box: tuple[int, int]) -> Pillow.Image:
        """The coronal plane with most of what was found, within a box: the head is up."""
        index = self._fullest_coronal()
        head_up = slice(None, None, -1)
        layers = [(labels[head_up, index], segments) for labels, segments in self.layers]
        size = fit((self.values.shape[0], self.values.shape[2]), (self.spacing[0], self.spacing[2]), box)
        picture = plane_picture(self.window.shades(self.values[head_up, index]), layers, size)
        mark_sides(picture, CORONAL)
        return picture

    def _fullest_coronal(self) -> int:
        for step in (4, 1):  # a quarter of the planes tells as much, unless little was found
            counts = np.zeros(self.values.shape[1], np.int64)
            for labels, _ in self.layers:
                counts += np.count_nonzero(labels[::step, :, ::step], axis=(0, 2))
            if counts.any():
                return int(counts.argmax())
        return int(self.values.shape[1]) // 2


def _body(values: Array) -> tuple[slice, slice]:
    """Rows and columns that the body lies in, so that the pictures do not show the air around it."""
    height = values.shape[0]
    planes = slice(height // 4, 3 * height // 4 + 1, max(height // SAMPLES, 1))
    middle = values[planes] > BODY_HU
    ranges = []
    for axis in ((0, 2), (0, 1)):
        filled = np.flatnonzero(middle.mean(axis=axis) > 0.05)
        ranges.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size > 1 else slice(None))
    return ranges[0], ranges[1]
