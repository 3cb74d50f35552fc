"""What a model found, as a picture for people who have no viewer at hand."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw

from engines.inference.orientation import Turn
from engines.types import Classification, Findings, Image, Radiograph, Volume
from service.results.detected import detected
from service.results.pictures.boxes import draw_rings, marks_on
from service.results.pictures.legend import Entry, legend, percentage
from service.results.pictures.lettering import (
    BACKGROUND,
    BAR,
    FAINT,
    PANEL,
    TEXT,
    WARNING,
    font,
    printable,
    shortened,
    wrapped,
)
from service.results.pictures.sections import Sections
from service.results.pictures.views import fit, plane_picture
from service.results.pictures.window import display_window
from service.results.stamp import RESEARCH

WIDTH = 1200
MARGIN, GAP, HEADER = 24, 8, 76
SIDEBAR, SIDEBAR_HEIGHT = 330, 12000
PANELS = WIDTH - 3 * MARGIN - SIDEBAR
AXIAL_SLICES = 6


def overlay_png(path: Path, image: Image, findings: Findings) -> None:
    """Draw findings on their image and save the picture, about 1200 pixels wide.

    A CT is shown as axial planes and a coronal one, in a lung window where there are lungs, from the front and from
    below as radiologists do: the patient's right is on the left of the picture, the head is up. An X-ray is shown as
    it is stored.

    Parameters
    ----------
    path
        The PNG to write. It shows nothing of the patient but the image.
    image
        In any orientation.
    findings
        Label maps on the image's grid, classes, or both.
    """
    panels = overview(image, findings)
    sidebar = _sidebar(findings, image)
    sheet = Pillow.new("RGB", (WIDTH, HEADER + max(panels.height, sidebar.height) + MARGIN), BACKGROUND)
    sheet.paste(panels, (MARGIN, HEADER))
    sheet.paste(sidebar, (MARGIN + panels.width + MARGIN, HEADER))
    _draw_header(ImageDraw.Draw(sheet), findings)
    sheet.save(path, "PNG")


def overview(image: Image, findings: Findings, width: int = PANELS) -> Pillow.Image:
    """All of an image at a glance with what was found in it: six axial planes over a coronal one, or the X-ray."""
    if isinstance(image, Volume):
        return _volume_panels(image, findings, width)
    return _radiograph_panel(image, findings, width)


def _volume_panels(volume: Volume, findings: Findings, width: int) -> Pillow.Image:
    found = findings.detections.found if findings.detections else ()
    sections = Sections.of(volume, findings.label_maps, found)
    cell = (width - 2 * GAP) // 3
    axial_width, axial_height = sections.axial_size((cell, cell))
    coronal = sections.coronal((width, 2 * cell))
    panels = Pillow.new("RGB", (width, 2 * (axial_height + GAP) + coronal.height), PANEL)
    for place, index in enumerate(sections.axial_indices(AXIAL_SLICES)):
        row, column = divmod(place, 3)
        left = column * (cell + GAP) + (cell - axial_width) // 2
        panels.paste(sections.axial(index, (cell, cell)), (left, row * (axial_height + GAP)))
    panels.paste(coronal, ((width - coronal.width) // 2, panels.height - coronal.height))
    return panels


def _radiograph_panel(image: Radiograph, findings: Findings, width: int) -> Pillow.Image:
    picture = small_picture(findings, image, (width, width))
    panel = Pillow.new("RGB", (width, max(picture.height, SIDEBAR)), PANEL)
    panel.paste(picture, ((width - picture.width) // 2, (panel.height - picture.height) // 2))
    return panel


def small_picture(findings: Findings, image: Radiograph, box: tuple[int, int]) -> Pillow.Image:
    """An X-ray as it is stored, within a box, with what was found in it."""
    size = fit(image.array.shape, image.pixel, box)
    layers = [(label_map.array, label_map.segments) for label_map in findings.label_maps]
    picture = plane_picture(display_window(image).shades(image.array), layers, size)
    marks = marks_on(detected(findings, image), 0, Turn(), image.array.shape)
    draw_rings(picture, marks, image.array.shape, max(size) / 512)
    return picture


def _draw_header(draw: ImageDraw.ImageDraw, findings: Findings) -> None:
    title = printable(f"{findings.model.name} {findings.model.version}")
    draw.text((MARGIN, HEADER // 2), title, TEXT, font(28), anchor="lm")
    draw.text((WIDTH - MARGIN, HEADER // 2), RESEARCH, WARNING, font(22), anchor="rm")


def _sidebar(findings: Findings, image: Image) -> Pillow.Image:
    """Legend, measurements, probabilities and notes, as high as they need."""
    sidebar = Pillow.new("RGB", (SIDEBAR, SIDEBAR_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(sidebar)
    top = _draw_legend(draw, legend(findings), 0)
    if findings.classification:
        top = _draw_classes(draw, findings.classification, top)
    engine = findings.engine
    lines = [f"{engine.runtime}, {engine.precision}, {engine.device}"]
    if isinstance(image, Volume):
        window = display_window(image).name
        lines.append(window[:1].upper() + window[1:])
    for paragraph in (*lines, *findings.notes):
        for line in wrapped(paragraph, font(14), SIDEBAR):
            draw.text((0, top), line, FAINT, font(14))
            top += 21
    return sidebar.crop((0, 0, SIDEBAR, min(max(top, 1), SIDEBAR_HEIGHT)))


def _draw_legend(draw: ImageDraw.ImageDraw, entries: Sequence[Entry], top: int) -> int:
    for entry in entries:
        draw.rounded_rectangle((0, top + 4, 22, top + 26), 4, entry.colour)
        draw.text((34, top), shortened(entry.label, font(20), SIDEBAR - 34), TEXT, font(20))
        top += 32
        for line in entry.values if entry.found else ["not found"]:
            draw.text((34, top), shortened(line, font(17), SIDEBAR - 34), FAINT, font(17))
            top += 26
        top += 12
    return top + 8


def _draw_classes(draw: ImageDraw.ImageDraw, classification: Classification, top: int) -> int:
    for entry in classification.classes:
        colour = WARNING if entry in classification.present else FAINT
        draw.text((0, top), shortened(entry.label, font(18), SIDEBAR - 80), TEXT, font(18))
        draw.text((SIDEBAR, top), percentage(entry.probability), TEXT, font(18), anchor="ra")
        draw_bar(draw, (0, top + 28), SIDEBAR, entry.probability, colour)
        top += 58
    return top + 8


def draw_bar(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], width: int, share: float, colour: str, thick: int = 12
) -> None:
    """A bar that is filled in part; ``place`` is its upper left corner."""
    left, top = place
    draw.rounded_rectangle((left, top, left + width, top + thick), thick // 2, BAR)
    length = round(width * min(max(share, 0.0), 1.0))
    if length >= thick:
        draw.rounded_rectangle((left, top, left + length, top + thick), thick // 2, colour)
