"""A report of a few pages, with pictures and values, for people who read documents."""

from collections.abc import Sequence
from io import BytesIO
from xml.sax.saxutils import escape

from PIL import Image as Pillow
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle
from reportlab.platypus import Image as Figure

from engines.types import Classification, Findings
from service.results.pictures.legend import Entry, legend, percentage
from service.results.pictures.lettering import BOLD, REGULAR, font_file, printable
from service.results.stamp import RESEARCH
from service.results.uids import MANUFACTURER

MARGIN = 18 * mm
WIDTH, HEIGHT = A4[0] - 2 * MARGIN, A4[1] - 2 * MARGIN
HEAD = 10 * mm
"""Room for what stands on every page."""
TALLEST = 150 * mm
"""A picture stays on the first page where the values above it leave room."""
INK, FAINT, RULE, WARNING = colors.HexColor("#1b2127"), colors.HexColor("#5b6670"), "#d5dade", "#b45309"
JPEG_QUALITY = 85
LIMITS = "Made by a machine and seen by nobody. Do not base a diagnosis, a treatment or any other decision on it."


def report_pdf(
    findings: Findings,
    remarks: Sequence[str],
    pictures: Sequence[tuple[Pillow.Image, str]],
    details: Sequence[Pillow.Image],
) -> bytes:
    """Lay out the findings as A4 pages; the same findings give the same bytes.

    It says nothing of the patient: what it belongs to stands in the header of the DICOM object around it.

    Parameters
    ----------
    remarks
        What a reader must know besides the numbers.
    pictures
        Large ones, with a caption each.
    details
        Small ones, two in a row.

    Returns
    -------
    bytes
        A PDF with embedded fonts, its text selectable.
    """
    _register_fonts()
    model = findings.model
    story: list[Flowable] = [
        Paragraph(_text(f"{model.name} {model.version}"), _style(18, bold=True)),
        Spacer(0, 3 * mm),
        Paragraph(_text(LIMITS), _style(9, WARNING)),
        Spacer(0, 4 * mm),
        *_values(legend(findings)),
        *(_classes(findings.classification) if findings.classification else ()),
        *_remarks(findings, remarks),
    ]
    for picture, caption in pictures:
        story.append(
            KeepTogether([_figure(picture, WIDTH, TALLEST), Spacer(0, 1 * mm), Paragraph(_text(caption), _style(8))])
        )
        story.append(Spacer(0, 4 * mm))
    story += _in_pairs(details)
    target = BytesIO()
    document = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN + HEAD,
        bottomMargin=MARGIN,
        title=printable(f"{RESEARCH}: {model.name} {model.version}"),
        author=MANUFACTURER,
        invariant=1,  # no date of making, no random identifier
    )
    on_every_page = _frame_of(findings)
    document.build(story, onFirstPage=on_every_page, onLaterPages=on_every_page)
    return target.getvalue()


def _register_fonts() -> None:
    for name in (REGULAR, BOLD):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, str(font_file(name))))


def _style(size: float, colour: object = INK, bold: bool = False) -> ParagraphStyle:
    name = BOLD if bold else REGULAR
    return ParagraphStyle("", fontName=name, fontSize=size, leading=size * 1.4, textColor=colour)


def _text(text: str) -> str:
    """Text for a paragraph, whose own mark-up is XML."""
    return escape(printable(text))


def _unbroken(value: str) -> str:
    """A value that stays on one line with its unit."""
    return _text(value).replace(" ", "\N{NO-BREAK SPACE}")


def _values(entries: Sequence[Entry]) -> list[Flowable]:
    """A table of what was found, and the names of what was not."""
    found = [entry for entry in entries if entry.found]
    missing = [entry.label for entry in entries if not entry.found]
    flowables: list[Flowable] = []
    if found:
        head = ["", Paragraph("Found", _style(9, FAINT)), Paragraph("Measured", _style(9, FAINT))]
        rows = [
            [
                "",
                Paragraph(_text(entry.label), _style(10)),
                Paragraph(" · ".join(map(_unbroken, entry.values)), _style(10)),
            ]
            for entry in found
        ]
        swatches = [
            ("BACKGROUND", (0, row), (0, row), colors.Color(*(part / 255 for part in entry.colour)))
            for row, entry in enumerate(found, start=1)
        ]
        ruled = TableStyle(
            [("LINEBELOW", (0, 0), (-1, -1), 0.5, RULE), ("VALIGN", (0, 0), (-1, -1), "MIDDLE"), *swatches]
        )
        widths = [5 * mm, 0.35 * WIDTH, 0.65 * WIDTH - 5 * mm]
        flowables += [Table([head, *rows], widths, style=ruled, repeatRows=1), Spacer(0, 4 * mm)]
    if missing:
        flowables.append(Paragraph(_text(f"Not found: {', '.join(missing)}."), _style(10)))
    if entries and not found:
        flowables.insert(0, Paragraph("Nothing was found.", _style(12, bold=True)))
    return [*flowables, Spacer(0, 3 * mm)]


def _classes(classification: Classification) -> list[Flowable]:
    """A table of the classes, those that the image is said to show in bold."""
    rows = [
        [
            Paragraph(_text(entry.label), _style(10, bold=entry in classification.present)),
            Paragraph(percentage(entry.probability), _style(10, bold=entry in classification.present)),
            _Bar(0.45 * WIDTH, entry.probability),
        ]
        for entry in classification.classes
    ]
    head = [Paragraph("Class", _style(9, FAINT)), Paragraph("Probability", _style(9, FAINT)), ""]
    ruled = TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.5, RULE), ("VALIGN", (0, 0), (-1, -1), "MIDDLE")])
    widths = [0.35 * WIDTH, 0.15 * WIDTH, 0.5 * WIDTH]
    return [Table([head, *rows], widths, style=ruled, repeatRows=1), Spacer(0, 4 * mm)]


def _remarks(findings: Findings, remarks: Sequence[str]) -> list[Flowable]:
    model, engine = findings.model, findings.engine
    made = f"Model {model.name} {model.version}, SHA-256 {model.digest[:16]}…, {model.licence}. "
    made += f"Run on {engine.runtime}, {engine.precision}, {engine.device}."
    paragraphs = [Paragraph(_text(remark), _style(9, FAINT)) for remark in (*remarks, made)]
    return [each for paragraph in paragraphs for each in (paragraph, Spacer(0, 1.5 * mm))] + [Spacer(0, 3 * mm)]


def _figure(picture: Pillow.Image, width: float, height: float) -> Figure:
    encoded = BytesIO()
    picture.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    encoded.seek(0)
    scale = min(width / picture.width, height / picture.height)
    return Figure(encoded, picture.width * scale, picture.height * scale)


def _in_pairs(details: Sequence[Pillow.Image]) -> list[Flowable]:
    cell = (WIDTH - 4 * mm) / 2
    figures = [_figure(picture, cell, HEIGHT / 2 - 20 * mm) for picture in details]
    rows = [figures[place : place + 2] for place in range(0, len(figures), 2)]
    return [Table([[*row, *[""] * (2 - len(row))]], [WIDTH / 2] * 2) for row in rows]


class _Bar(Flowable):  # type: ignore[misc]  # reportlab has no types
    """A bar that is filled in part."""

    def __init__(self, width: float, share: float) -> None:
        super().__init__()
        self.width, self.height = width, 2.5 * mm
        self._share = min(max(share, 0.0), 1.0)

    def draw(self) -> None:
        """Draw it at the origin of the canvas."""
        for share, colour in ((1.0, RULE), (self._share, WARNING)):
            self.canv.setFillColor(colors.HexColor(colour))
            self.canv.rect(0, 0, self.width * share, self.height, stroke=0, fill=1)


class _Frame:
    """What stands on every page."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __call__(self, canvas: Canvas, document: SimpleDocTemplate) -> None:
        top, right = A4[1] - MARGIN + 2 * mm, A4[0] - MARGIN
        canvas.setFillColor(colors.HexColor(WARNING))
        canvas.setFont(BOLD, 11)
        canvas.drawString(MARGIN, top, RESEARCH.upper())
        canvas.setFillColor(FAINT)
        canvas.setFont(REGULAR, 9)
        canvas.drawRightString(right, top, self._model)
        canvas.drawRightString(right, MARGIN - 7 * mm, f"page {document.page}")
        canvas.setStrokeColor(colors.HexColor(RULE))
        canvas.line(MARGIN, top - 3 * mm, right, top - 3 * mm)


def _frame_of(findings: Findings) -> _Frame:
    return _Frame(printable(f"{findings.model.name} {findings.model.version}"))
