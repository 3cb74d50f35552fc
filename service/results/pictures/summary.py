"""What was found on one page, or as many as it needs: to be read in a viewer of images."""

from collections.abc import Sequence

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from engines.types import Findings, Image, Radiograph
from service.results.pictures.legend import Entry, legend, percentage
from service.results.pictures.lettering import (
    BACKGROUND,
    BAR,
    BOLD,
    FAINT,
    REGULAR,
    TEXT,
    WARNING,
    font,
    shortened,
    wrapped,
)
from service.results.pictures.overlay import draw_bar, small_picture
from service.results.pictures.sections import Sections
from service.results.stamp import RESEARCH

SIDE = 1024
"""Pixels; the smallest letters are still 10 pixels high where a viewer shows the page at 512."""
MARGIN, GAP, HEADER, FOOTER = 40, 14, 96, 56
ASIDE = 380
"""Width of the picture beside the words of the first page."""
LARGE, MEDIUM, SMALL = 26, 23, 21
SEPARATOR = " · "


def summary_pages(findings: Findings, image: Image, remarks: Sequence[str]) -> list[Pillow.Image]:
    """The values of all findings, and what a reader must know besides, in pages of 1024 × 1024 pixels.

    Parameters
    ----------
    remarks
        What a reader must know besides the numbers.
    """
    flow = _Flow(findings, _aside(findings, image))
    entries = legend(findings)
    for entry in entries:
        if entry.found:
            flow.entry(entry)
    if findings.classification:
        for chance in findings.classification.classes:
            flow.bar(chance.label, chance.probability, chance in findings.classification.present)
    missing = [entry.label for entry in entries if not entry.found]
    if (not entries and not findings.classification) or (entries and len(missing) == len(entries)):
        flow.paragraph("Nothing was found.", TEXT, LARGE)
    if missing:
        flow.paragraph(f"Not found: {', '.join(missing)}.", TEXT, MEDIUM)
    flow.space(GAP)
    for remark in remarks:
        flow.paragraph(remark, FAINT, SMALL)
    return flow.finished()


def _aside(findings: Findings, image: Image) -> Pillow.Image | None:
    """The X-ray, or the coronal plane with most of what was found."""
    box = (ASIDE, SIDE - HEADER - FOOTER - MARGIN)
    if isinstance(image, Radiograph):
        return small_picture(findings, image, box)
    found = findings.detections.found if findings.detections else ()
    if not found and not any(label_map.present for label_map in findings.label_maps):
        return None
    return Sections.of(image, findings.label_maps, found).coronal(box)


def _lines_of(values: Sequence[str], face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Values in lines, none of them broken."""
    lines: list[str] = []
    for value in values:
        longer = SEPARATOR.join([*lines[-1:], value])
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(value, face, width))
    return lines


class _Flow:
    """Pages that are filled from top to bottom; the first one around a picture on its right."""

    def __init__(self, findings: Findings, aside: Pillow.Image | None) -> None:
        self._findings = findings
        self._pages: list[Pillow.Image] = []
        self._begin_page()
        self._width_of_first = SIDE - 2 * MARGIN
        if aside:
            self._pages[0].paste(aside, (SIDE - MARGIN - aside.width, HEADER + GAP))
            self._width_of_first -= aside.width + MARGIN

    @property
    def _width(self) -> int:
        return self._width_of_first if len(self._pages) == 1 else SIDE - 2 * MARGIN

    def entry(self, entry: Entry) -> None:
        """A swatch, a name, and the values on the same line where there is room, otherwise below."""
        indent, label_font, value_font = 42, font(LARGE), font(MEDIUM)
        label = shortened(entry.label, label_font, self._width - indent)
        values = SEPARATOR.join(entry.values)
        room = self._width - indent - label_font.getlength(label) - 2 * GAP
        beside = value_font.getlength(values) <= room
        below = [] if beside else _lines_of(entry.values, value_font, self._width - indent)
        self._need(40 + 32 * len(below))
        self._draw.rounded_rectangle((MARGIN, self._top + 5, MARGIN + 26, self._top + 31), 4, entry.colour)
        middle = self._top + 18
        self._draw.text((MARGIN + indent, middle), label, TEXT, label_font, anchor="lm")
        if beside:
            self._draw.text((MARGIN + self._width, middle), values, FAINT, value_font, anchor="rm")
        self._top += 40
        for line in below:
            self._draw.text((MARGIN + indent, self._top + 14), line, FAINT, value_font, anchor="lm")
            self._top += 32
        self._top += 4

    def bar(self, label: str, share: float, present: bool) -> None:
        """A class with its probability in words and as a bar."""
        self._need(66)
        face = font(LARGE)
        self._draw.text((MARGIN, self._top + 18), shortened(label, face, self._width - 140), TEXT, face, anchor="lm")
        place = (MARGIN + self._width, self._top + 18)
        self._draw.text(place, percentage(share), TEXT, face, anchor="rm")
        draw_bar(self._draw, (MARGIN, self._top + 40), self._width, share, WARNING if present else FAINT, 14)
        self._top += 72

    def paragraph(self, text: str, colour: str, size: int) -> None:
        """Some sentences, wrapped."""
        for line in wrapped(text, font(size), self._width):
            self._need(size + 9)
            self._draw.text((MARGIN, self._top), line, colour, font(size))
            self._top += size + 9
        self._top += GAP // 2

    def space(self, height: int) -> None:
        """Leave some room."""
        self._top += height

    def finished(self) -> list[Pillow.Image]:
        """All pages, numbered."""
        engine = self._findings.engine
        made_with = f"{engine.runtime}, {engine.precision}, {engine.device}"
        for number, page in enumerate(self._pages, start=1):
            draw, middle = ImageDraw.Draw(page), SIDE - FOOTER / 2
            which = f"page {number} of {len(self._pages)}"
            draw.text((MARGIN, middle), shortened(made_with, font(18), 700), FAINT, font(18), anchor="lm")
            draw.text((SIDE - MARGIN, middle), which, FAINT, font(18), anchor="rm")
        return self._pages

    def _need(self, height: int) -> None:
        if self._top + height > SIDE - FOOTER:
            self._begin_page()

    def _begin_page(self) -> None:
        page = Pillow.new("RGB", (SIDE, SIDE), BACKGROUND)
        self._pages.append(page)
        self._draw, self._top = ImageDraw.Draw(page), HEADER + GAP
        model, purpose = self._findings.model, RESEARCH.upper()
        bold = font(25, BOLD)
        room = SIDE - 3 * MARGIN - bold.getlength(purpose)
        title = shortened(f"{model.name} {model.version}", font(30, REGULAR), room)
        self._draw.text((MARGIN, HEADER / 2), title, TEXT, font(30, REGULAR), anchor="lm")
        self._draw.text((SIDE - MARGIN, HEADER / 2), purpose, WARNING, bold, anchor="rm")
        self._draw.line((MARGIN, HEADER - 10, SIDE - MARGIN, HEADER - 10), BAR, 2)
