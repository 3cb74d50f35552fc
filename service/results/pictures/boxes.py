"""Detections in a picture: a ring around each, or a circle where it is a point, with its name and score beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import ImageDraw

from engines.inference.orientation import Turn
from service.results.contours import Points
from service.results.detected import Detected
from service.results.pictures.legend import DETECTED, scored
from service.results.pictures.lettering import PANEL, font, printable

RADIUS, WIDTH, LETTERS, GAP = 9, 2, 13, 3
"""In a picture of 512 pixels: circle around a point, thickness of lines, height of letters, and from them to a ring."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A detection on the plane of a picture: row and column, whole numbers are the centres of pixels."""

    points: Points
    text: str


def marks_on(found: Sequence[Detected], index: int, turn: Turn, shape: tuple[int, ...]) -> list[Mark]:
    """The detections on one slice of so many rows and columns, as it is turned to be looked at."""
    return [Mark(turn.places(entry.on[index], shape), scored(entry.detection)) for entry in found if index in entry.on]


def draw_rings(picture: Pillow.Image, marks: Sequence[Mark], shape: tuple[int, ...], scale: float) -> None:
    """Draw detections into the picture of a plane of so many rows and columns, over all else.

    Parameters
    ----------
    scale
        How much thicker than in a picture of 512 pixels lines are.
    """
    draw, width = ImageDraw.Draw(picture), max(round(WIDTH * scale), 1)
    across, down = picture.width / shape[1], picture.height / shape[0]
    for mark in marks:
        corners = [((column + 0.5) * across, (row + 0.5) * down) for row, column in mark.points.tolist()]
        if len(corners) == 1:
            draw.circle(corners[0], RADIUS * scale, outline=DETECTED, width=width)
        else:
            # a ring at the border of the image stays to be seen
            inner = [(min(x, picture.width - width), min(y, picture.height - width)) for x, y in corners]
            draw.line(inner, DETECTED, width, joint="curve")


def name_marks(picture: Pillow.Image, marks: Sequence[Mark], shape: tuple[int, ...], scale: float) -> None:
    """Write the words of detections beside where their rings come; what is drawn later may cover them."""
    draw = ImageDraw.Draw(picture)
    for mark in marks:
        _write(picture, draw, mark, shape, scale)


def _write(picture: Pillow.Image, draw: ImageDraw.ImageDraw, mark: Mark, shape: tuple[int, ...], scale: float) -> None:
    """The words above a ring, or below it where there is no room; all of them within the picture."""
    face, text = font(round(LETTERS * scale)), printable(mark.text)
    around = RADIUS * scale if len(mark.points) == 1 else 0.0
    (top, left), (bottom, _) = mark.points.min(axis=0), mark.points.max(axis=0)
    upper = (top + 0.5) * picture.height / shape[0] - around - GAP * scale
    lower = (bottom + 0.5) * picture.height / shape[0] + around + GAP * scale
    above = upper - LETTERS * 1.3 * scale >= 0
    x = max(min((left + 0.5) * picture.width / shape[1], picture.width - face.getlength(text) - GAP), GAP)
    place = (x, upper if above else lower)
    draw.text(place, text, DETECTED, face, "ld" if above else "la", stroke_width=2, stroke_fill=PANEL)
