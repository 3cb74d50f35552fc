"""Words in pictures and documents: colours, fonts, what can be printed in them."""

import unicodedata
from functools import cache
from pathlib import Path

import reportlab
from PIL import ImageFont
from reportlab.pdfbase.ttfonts import TTFont

BACKGROUND, PANEL, TEXT, FAINT, WARNING, BAR = "#101418", "#000000", "#e8ecf0", "#9aa6b2", "#ffb454", "#2b333b"
REGULAR, BOLD = "Vera", "VeraBd"
"""Bitstream Vera, as reportlab brings it: one pair of fonts for pictures and PDF, the same on every machine."""


@cache
def font(size: int, name: str = REGULAR) -> ImageFont.FreeTypeFont:
    """A font for pictures; simple layout, so that its metrics do not depend on what else is installed."""
    return ImageFont.truetype(str(font_file(name)), size, layout_engine=ImageFont.Layout.BASIC)


def font_file(name: str) -> Path:
    """Where a font lies."""
    return Path(reportlab.__file__).parent / "fonts" / f"{name}.ttf"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(TTFont(REGULAR, str(font_file(REGULAR))).face.charToGlyph)


def printable(text: str) -> str:
    """Text in letters that the fonts have: others lose their accent, or become a question mark.

    Labels of models and notes can be in any script; a picture in old viewers cannot.
    """
    known = _glyphs()
    letters = []
    for letter in " ".join(text.split()):
        plain = [letter] if ord(letter) in known else unicodedata.normalize("NFKD", letter)
        kept = "".join(part for part in plain if ord(part) in known and not unicodedata.combining(part))
        letters.append(kept or "?")
    return "".join(letters)


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines of a text that are no wider than so many pixels."""
    lines = [""]
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, face, width))
    return [line for line in lines if line]


def shortened(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """A text on one line, cut with an ellipsis where it is wider than so many pixels."""
    text = printable(text)
    if face.getlength(text) <= width:
        return text
    # by halves: letter by letter, a text without end would take as long
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if face.getlength(f"{text[:middle]}…") > width:
            too_long = middle
        else:
            fits = middle
    return f"{text[:fits]}…"
