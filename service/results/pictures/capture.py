"""One image with what was found drawn into it, framed by words: for viewers that show nothing but pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import ImageDraw

from engines.inference.orientation import Turn
from engines.types import Findings, Radiograph, Segment, Volume
from service.results.detected import Detected
from service.results.pictures.boxes import draw_rings, marks_on, name_marks
from service.results.pictures.legend import percentage
from service.results.pictures.lettering import FAINT, PANEL, TEXT, WARNING, font, shortened
from service.results.pictures.views import Layer, fit, mark_sides, plane_picture, reading_turn
from service.results.pictures.window import Window
from service.results.stamp import RESEARCH

LEAST, MOST = 512, 1024
"""Pixels of the longer side of the image within a picture: readable, and no larger than a screen."""
HEAD, LINE, PAD = 30, 22, 8
"""Heights of the words in a picture of 512 pixels; larger pictures have larger words."""
LEGEND_LINES = 2


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in its frame.

    Attributes
    ----------
    page
        All of it, RGB.
    area
        Where the image lies within it: left, top, right, bottom.
    orientation
        Where rows and columns of the image point to in the patient, None where that is not known.
    """

    page: Pillow.Image
    area: tuple[int, int, int, int]
    orientation: tuple[str, str] | None


def slice_picture(
    findings: Findings, volume: Volume, index: int, window: Window, place: str, found: Sequence[Detected] = ()
) -> Picture:
    """One stored plane of a volume, turned as a radiologist looks at it, never resliced.

    Parameters
    ----------
    index
        Which slice of the array.
    place
        Which slice it is, in words.
    found
        The detections on their slices.
    """
    turn, letters = reading_turn(volume.affine)
    values = turn.apply(volume.array[index])
    layers = [(turn.apply(label_map.array[index]), label_map.segments) for label_map in findings.label_maps]
    side = min(max(LEAST, *values.shape), MOST)
    size = fit(values.shape, turn.pixel(volume.spacing[1:]), (side, side))
    picture = plane_picture(window.shades(values), layers, size)
    marks = marks_on(found, index, turn, volume.array.shape[1:])
    scale = max(*size, LEAST) / LEAST
    name_marks(picture, marks, values.shape, scale)
    mark_sides(picture, letters, scaled(15, size))
    draw_rings(picture, marks, values.shape, scale)
    return framed(picture, letters, findings, place, window.name, segments_in(layers))


def radiograph_picture(
    findings: Findings,
    image: Radiograph,
    window: Window,
    sides: tuple[str, str] | None,
    found: Sequence[Detected] = (),
) -> Picture:
    """An X-ray as it is stored; the classes that it shows are named, with a box around the segments if there are any.

    Parameters
    ----------
    sides
        Where rows and columns point to; None where that is not known, for then no side may be claimed.
    found
        The detections on the image.
    """
    size = picture_size(image)
    layers = [(label_map.array, label_map.segments) for label_map in findings.label_maps]
    picture = plane_picture(window.shades(image.array), layers, size)
    if findings.classification:
        _draw_box(picture, layers)
    marks = marks_on(found, 0, Turn(), image.array.shape)
    scale = max(*size, LEAST) / LEAST
    name_marks(picture, marks, image.array.shape, scale)
    if sides:
        mark_sides(picture, sides, scaled(15, size))
    draw_rings(picture, marks, image.array.shape, scale)
    what = ""
    if findings.classification:
        shown = findings.classification.present
        what = ", ".join(f"{entry.label} {percentage(entry.probability)}" for entry in shown)
    return framed(picture, sides, findings, what, window.name, segments_in(layers))


def picture_size(image: Radiograph) -> tuple[int, int]:
    """Width and height in pixels at which an X-ray is drawn."""
    side = min(max(LEAST, *image.array.shape), MOST)
    return fit(image.array.shape, image.pixel, (side, side))


def framed(
    picture: Pillow.Image,
    orientation: tuple[str, str] | None,
    findings: Findings,
    title: str,
    subtitle: str,
    segments: Sequence[Segment],
) -> Picture:
    """A picture with a line above that names the model and the purpose, and below what it shows.

    The frame is the same for all pictures of one size, so that nothing jumps when a reader leafs through them.
    """
    size = max(LEAST, picture.width), max(LEAST, picture.height)
    head, line, pad = (scaled(height, size) for height in (HEAD, LINE, PAD))
    width, height = size[0] + size[0] % 2, head + size[1] + (1 + LEGEND_LINES) * line + 2 * pad
    page = Pillow.new("RGB", (width, height), PANEL)
    corner = (width - picture.width) // 2, head + (size[1] - picture.height) // 2
    page.paste(picture, corner)
    draw, face, small = ImageDraw.Draw(page), font(scaled(14, size)), font(scaled(12, size))
    purpose = RESEARCH.upper()
    draw.text((width - pad, head / 2), purpose, WARNING, face, anchor="rm")
    room = width - 3 * pad - face.getlength(purpose)
    model = shortened(f"{findings.model.name} {findings.model.version}", face, room)
    draw.text((pad, head / 2), model, TEXT, face, anchor="lm")
    middle = head + size[1] + pad + line / 2
    title = shortened(title, face, width - 2 * pad)
    draw.text((pad, middle), title, TEXT, face, anchor="lm")
    room = width - 4 * pad - face.getlength(title)
    draw.text((width - pad, middle), shortened(subtitle, small, room), FAINT, small, anchor="rm")
    _draw_legend(draw, segments, (pad, round(middle + line)), width - pad, line)
    return Picture(page, (*corner, corner[0] + picture.width, corner[1] + picture.height), orientation)


def scaled(length: int, size: tuple[int, int]) -> int:
    """A length in a picture of 512 pixels, in one of this size."""
    return round(length * max(*size, LEAST) / LEAST)


def segments_in(layers: Sequence[Layer]) -> list[Segment]:
    """The segments that have a pixel in a plane."""
    shown = []
    for labels, segments in layers:
        counts = Pillow.fromarray(labels.copy()).histogram()
        shown += [segment for segment in segments if counts[segment.number]]
    return shown


def _draw_legend(
    draw: ImageDraw.ImageDraw, segments: Sequence[Segment], place: tuple[int, int], right: int, line: int
) -> None:
    """Names beside their colours in lines from left to right; what has no room is counted."""
    face, swatch = font(line * 13 // LINE), line * 12 // LINE
    room_for_more = face.getlength("+ 88 more")
    left, middle = place
    lines = 1
    for number, segment in enumerate(segments):
        label = shortened(segment.label, face, right - place[0] - 2 * swatch)
        width = 1.5 * swatch + face.getlength(label)
        last = number == len(segments) - 1
        if left + width + (0 if last else room_for_more) > right and left > place[0]:
            if lines == LEGEND_LINES:
                draw.text((left, middle), f"+ {len(segments) - number} more", FAINT, face, anchor="lm")
                return
            lines, left, middle = lines + 1, place[0], middle + line
        draw.rectangle((left, middle - swatch // 2, left + swatch, middle + swatch // 2), segment.colour)
        draw.text((left + 1.5 * swatch, middle), label, TEXT, face, anchor="lm")
        left += round(width + swatch)


def _draw_box(picture: Pillow.Image, layers: Sequence[Layer]) -> None:
    boxes = [Pillow.fromarray(labels).getbbox() for labels, _ in layers]
    found = [box for box in boxes if box]
    if not found:
        return
    rows, columns = layers[0][0].shape
    across, down = picture.width / columns, picture.height / rows
    box = (
        min(box[0] for box in found) * across,
        min(box[1] for box in found) * down,
        max(box[2] for box in found) * across - 1,
        max(box[3] for box in found) * down - 1,
    )
    ImageDraw.Draw(picture).rectangle(box, outline=WARNING, width=scaled(2, picture.size))
