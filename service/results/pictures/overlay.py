"""What a model found, as a picture for people who have no viewer at hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from engines.types import Classification, Findings, Image, LabelMap, Measurement, Radiograph, Volume
from service.results.pictures.views import (
    Array,
    at_even_steps,
    fit,
    grey,
    in_patient_order,
    patient_axes,
    plane_picture,
)
from service.results.stamp import RESEARCH

WIDTH = 1200
MARGIN, GAP, HEADER = 24, 8, 76
SIDEBAR, SIDEBAR_HEIGHT = 330, 12000
LUNG_WINDOW = (-1350.0, 150.0)
"""Window of a chest CT in HU: level -600, width 1500."""
BODY_HU = -400
AXIAL_SLICES = 6
PERCENTILES = (0.5, 99.5)
"""Of an X-ray's values, drawn black and white."""

BACKGROUND, PANEL, TEXT, FAINT, WARNING, BAR = "#101418", "#000000", "#e8ecf0", "#8c98a4", "#ffb454", "#2b333b"
UNITS = {"[hnsf'U]": "HU", "1": "", "{ratio}": ""}


def overlay_png(path: Path, image: Image, findings: Findings) -> None:
    """Draw findings on their image and save the picture, about 1200 pixels wide.

    A CT is shown as axial planes and a coronal one in a lung window, from the front and from below as radiologists do:
    the patient's right is on the left of the picture, the head is up. An X-ray is shown as it is stored.

    Parameters
    ----------
    path
        The PNG to write. It shows nothing of the patient but the image.
    image
        In any orientation.
    findings
        Label map on the image's grid, classes, or both.
    """
    if isinstance(image, Volume):
        panels = _volume_panels(image, findings.label_map)
    else:
        panels = _radiograph_panel(image, findings.label_map)
    sidebar = _sidebar(findings, image)
    sheet = Pillow.new("RGB", (WIDTH, HEADER + max(panels.height, sidebar.height) + MARGIN), BACKGROUND)
    sheet.paste(panels, (MARGIN, HEADER))
    sheet.paste(sidebar, (MARGIN + panels.width + MARGIN, HEADER))
    _draw_header(ImageDraw.Draw(sheet), findings)
    sheet.save(path, "PNG")


def _volume_panels(volume: Volume, label_map: LabelMap | None) -> Pillow.Image:
    z, y, x = (volume.spacing[axis] for axis in patient_axes(volume.affine))
    values = in_patient_order(at_even_steps(volume.array, volume.at), volume.affine)
    labels = np.zeros(values.shape, np.uint8)
    if label_map:
        labels = in_patient_order(at_even_steps(label_map.array, volume.at), volume.affine)
    segments = label_map.segments if label_map else ()
    rows, columns = _body(values)
    values, labels = values[:, rows, columns], labels[:, rows, columns]

    width = WIDTH - 3 * MARGIN - SIDEBAR
    cell = (width - 2 * GAP) // 3
    axial_size = fit(values.shape[1:], (y, x), (cell, cell))
    coronal_size = fit((values.shape[0], values.shape[2]), (z, x), (width, 2 * cell))
    panels = Pillow.new("RGB", (width, 2 * (axial_size[1] + GAP) + coronal_size[1]), PANEL)
    for place, index in enumerate(_axial_indices(labels)):
        picture = plane_picture(grey(values[index], *LUNG_WINDOW), labels[index], segments, axial_size)
        _mark_sides(picture)
        row, column = divmod(place, 3)
        left = column * (cell + GAP) + (cell - axial_size[0]) // 2
        panels.paste(picture, (left, row * (axial_size[1] + GAP)))
    index = _fullest(labels, axis=1)
    head_up = slice(None, None, -1)
    shades = grey(values[head_up, index], *LUNG_WINDOW)
    picture = plane_picture(shades, labels[head_up, index], segments, coronal_size)
    _mark_sides(picture)
    panels.paste(picture, ((width - coronal_size[0]) // 2, panels.height - coronal_size[1]))
    return panels


def _body(values: Array) -> tuple[slice, slice]:
    """Rows and columns that the body lies in, so that the panels do not show the air around it."""
    middle = values[values.shape[0] // 4 : 3 * values.shape[0] // 4 + 1] > BODY_HU
    ranges = []
    for axis in ((0, 2), (0, 1)):
        filled = np.flatnonzero(middle.mean(axis=axis) > 0.05)
        ranges.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size > 1 else slice(None))
    return ranges[0], ranges[1]


def _axial_indices(labels: Array) -> list[int]:
    """Slices spread over what was found, the highest first; over the whole volume where nothing was."""
    found = np.flatnonzero(labels.any(axis=(1, 2)))
    first, last = (int(found[0]), int(found[-1])) if found.size else (0, labels.shape[0] - 1)
    fractions = (np.arange(AXIAL_SLICES) + 0.5) / AXIAL_SLICES
    return [round(last - fraction * (last - first)) for fraction in fractions.tolist()]


def _fullest(labels: Array, axis: int) -> int:
    others = tuple(other for other in range(labels.ndim) if other != axis)
    counts = np.count_nonzero(labels, axis=others)
    return int(counts.argmax()) if counts.any() else labels.shape[axis] // 2


def _mark_sides(picture: Pillow.Image) -> None:
    draw = ImageDraw.Draw(picture)
    middle = picture.height // 2
    for place, side, anchor in ((6, "R", "lm"), (picture.width - 6, "L", "rm")):
        draw.text((place, middle), side, TEXT, _font(15), anchor=anchor, stroke_width=2, stroke_fill=PANEL)


def _radiograph_panel(image: Radiograph, label_map: LabelMap | None) -> Pillow.Image:
    low, high = np.percentile(image.array, PERCENTILES)
    width = WIDTH - 3 * MARGIN - SIDEBAR
    size = fit(image.array.shape, image.pixel, (width, width))
    labels = label_map.array if label_map else None
    segments = label_map.segments if label_map else ()
    picture = plane_picture(grey(image.array, low, high), labels, segments, size)
    panel = Pillow.new("RGB", (width, max(picture.height, SIDEBAR)), PANEL)
    panel.paste(picture, ((width - picture.width) // 2, (panel.height - picture.height) // 2))
    return panel


def _draw_header(draw: ImageDraw.ImageDraw, findings: Findings) -> None:
    draw.text((MARGIN, HEADER // 2), f"{findings.model.name} {findings.model.version}", TEXT, _font(30), anchor="lm")
    draw.text((WIDTH - MARGIN, HEADER // 2), RESEARCH, WARNING, _font(24), anchor="rm")


def _sidebar(findings: Findings, image: Image) -> Pillow.Image:
    """Legend, measurements, probabilities and notes, as high as they need."""
    sidebar = Pillow.new("RGB", (SIDEBAR, SIDEBAR_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(sidebar)
    top = 0
    if findings.label_map:
        top = _draw_legend(draw, findings.label_map, findings.measurements, top)
    if findings.classification:
        top = _draw_classes(draw, findings.classification, top)
    engine = findings.engine
    lines = [f"{engine.runtime}, {engine.precision}, {engine.device}"]
    if isinstance(image, Volume):
        lines.append("Lung window, level -600 HU, width 1500 HU")
    for paragraph in (*lines, *findings.notes):
        for line in _wrapped(paragraph, _font(15), SIDEBAR):
            draw.text((0, top), line, FAINT, _font(15))
            top += 21
    return sidebar.crop((0, 0, SIDEBAR, top))


def _draw_legend(draw: ImageDraw.ImageDraw, label_map: LabelMap, measurements: Sequence[Measurement], top: int) -> int:
    present = label_map.present
    for segment in label_map.segments:
        draw.rounded_rectangle((0, top + 4, 22, top + 26), 4, segment.colour)
        draw.text((34, top), segment.label, TEXT, _font(22))
        top += 32
        values = [_stated(entry) for entry in measurements if entry.segment == segment.number]
        for line in values if segment in present else ["not found"]:
            draw.text((34, top), line, FAINT, _font(19))
            top += 26
        top += 12
    return top + 8


def _stated(entry: Measurement) -> str:
    """A measurement in a few words: ``mean -843 HU``."""
    how = f"{entry.derivation.meaning.lower()} " if entry.derivation else ""
    digits = 0 if abs(entry.value) >= 100 else 1
    return f"{how}{entry.value:,.{digits}f} {UNITS.get(entry.unit.value, entry.unit.value)}".rstrip()


def _draw_classes(draw: ImageDraw.ImageDraw, classification: Classification, top: int) -> int:
    for entry in classification.classes:
        colour = WARNING if entry is classification.best else FAINT
        draw.text((0, top), entry.label, TEXT, _font(20))
        draw.text((SIDEBAR, top), f"{entry.probability:.1%}", TEXT, _font(20), anchor="ra")
        bar = (0, top + 28, SIDEBAR, top + 40)
        draw.rounded_rectangle(bar, 6, BAR)
        length = round(SIDEBAR * min(max(entry.probability, 0.0), 1.0))
        if length >= 12:
            draw.rounded_rectangle((0, top + 28, length, top + 40), 6, colour)
        top += 58
    return top + 8


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    # without FreeType, Pillow has one tiny bitmap font only
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
