"""A volume as planes through the patient, seen from the front and from below as radiologists do."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image as Pillow

from engines.inference.measurements import HOUNSFIELD
from engines.types import Detection, LabelMap, Volume
from service.results.contours import Points
from service.results.pictures.boxes import Mark, draw_rings
from service.results.pictures.views import (
    READ_AS,
    Array,
    Layer,
    at_even_steps,
    fit,
    in_patient_order,
    mark_sides,
    patient_axes,
    places_in_patient_order,
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
    boxes
        What was detected, ``[n, 2, 3]``: the low and the high corner in ``values``, the highest score first.
    """

    values: Array
    layers: tuple[Layer, ...]
    spacing: tuple[float, float, float]
    window: Window
    boxes: Points

    @classmethod
    def of(cls, volume: Volume, label_maps: Sequence[LabelMap], found: Sequence[Detection] = ()) -> "Sections":
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
        boxes = _boxes(volume, found) - np.array([0, rows.start or 0, columns.start or 0])
        return cls(values[:, rows, columns], layers, (z, y, x), display_window(volume), boxes)

    def axial_size(self, box: tuple[int, int]) -> tuple[int, int]:
        """Width and height of an axial picture within a box."""
        return fit(self.values.shape[1:], self.spacing[1:], box)

    def axial(self, index: int, box: tuple[int, int]) -> Pillow.Image:
        """An axial plane within a box: the patient's right on the left of the picture."""
        layers = [(labels[index], segments) for labels, segments in self.layers]
        picture = plane_picture(self.window.shades(self.values[index]), layers, self.axial_size(box))
        self._draw_boxes(picture, index, self.boxes, self.values.shape[1:])
        mark_sides(picture, AXIAL)
        return picture

    def axial_indices(self, count: int) -> list[int]:
        """Planes spread over what was found, the highest first; over the whole volume where nothing was."""
        shows = np.zeros(len(self.values), bool)
        for labels, _ in self.layers:
            shows |= labels.any(axis=(1, 2))
        for low, high in np.clip(np.rint(self.boxes[..., 0]), 0, len(self.values) - 1).astype(int).tolist():
            shows[low : high + 1] = True
        found = np.flatnonzero(shows)
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
        from_the_front = self.boxes[..., [1, 0, 2]] * (1, -1, 1) + (0, len(self.values) - 1, 0)
        self._draw_boxes(picture, index, from_the_front, (len(self.values), self.values.shape[2]))
        mark_sides(picture, CORONAL)
        return picture

    def _fullest_coronal(self) -> int:
        for step in (4, 1):  # a quarter of the planes tells as much, unless little was found
            counts = np.zeros(self.values.shape[1], np.int64)
            for labels, _ in self.layers:
                counts += np.count_nonzero(labels[::step, :, ::step], axis=(0, 2))
            if counts.any():
                return int(counts.argmax())
        if len(self.boxes):
            return int(np.clip(np.rint(self.boxes[0, :, 1].mean()), 0, self.values.shape[1] - 1))
        return int(self.values.shape[1]) // 2

    def _draw_boxes(self, picture: Pillow.Image, index: int, boxes: Points, shape: tuple[int, ...]) -> None:
        """Draw the boxes that one plane cuts; their axes are that of the planes, and its rows and columns."""
        marks = []
        for (first, top, left), (last, bottom, right) in boxes.tolist():
            ring = np.array([[top, left], [top, right], [bottom, right], [bottom, left], [top, left]])
            if first - 0.5 <= index <= last + 0.5:
                marks.append(Mark(ring if np.ptp(ring, axis=0).any() else ring[:1], ""))
        draw_rings(picture, marks, shape, max(picture.size) / 512)


def _boxes(volume: Volume, found: Sequence[Detection]) -> Points:
    """The boxes around what was detected in the volume in patient order, at even steps."""
    corners = np.array([list(product(*zip(entry.low, entry.high, strict=True))) for entry in found]).reshape(-1, 8, 3)
    to_index = np.linalg.inv(volume.affine)
    slices = len(volume.array) if volume.at is None else round(volume.at[-1]) + 1
    index = corners @ to_index[:3, :3].T + to_index[:3, 3]
    placed = places_in_patient_order(index, (slices, *volume.array.shape[1:]), volume.affine)
    return np.stack([placed.min(axis=1), placed.max(axis=1)], axis=1)


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
