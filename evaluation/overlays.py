"""Pictures of cases: the image as a reader sees it, with what is known and what the model says drawn over it."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.inference.orientation import Turn, to_upright
from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage
from engines.types import Findings, Image, Radiograph, Volume
from evaluation.cases import Case
from evaluation.plots import style

KNOWN, FOUND = "#39d98a", "#ff9f1c"
"""Colours of the reference and of the model's answer."""
FINEST = 700
"""Pixels of a picture's longer side; finer images are thinned out."""
INCHES = 3.2
MOST_BOXES = 10
"""Detections that are drawn, the highest scores first."""

Box = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Low and high corner as array indices."""


@dataclass(frozen=True, eq=False)
class View:
    """One slice, or an X-ray, upright: all its layers ``[row, column]`` and boxes ``(top, left, bottom, right)``."""

    pixels: NDArray[Any]
    aspect: float
    known: NDArray[np.bool_] | None
    found: NDArray[np.bool_] | None
    known_boxes: tuple[tuple[float, ...], ...]
    found_boxes: tuple[tuple[float, ...], ...]
    heat: NDArray[Any] | None = None


def picture(case: Case, findings: Findings, package: ModelPackage) -> bytes:
    """Draw one case as a PNG: reference green, the model's answer orange, its activation map beside it if it has one.

    Of a volume the slice where they differ most, or that of the first lesion, or the middle one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = view_of(case, findings)
    rows, columns = view.pixels.shape
    panels = 1 if view.heat is None else 2
    height = min(INCHES * rows * view.aspect / columns, 1.6 * INCHES)
    with style():
        figure = Figure(figsize=(INCHES * panels, height), facecolor="black")
        FigureCanvasAgg(figure)
        for panel in range(panels):
            axes = figure.add_axes((panel / panels, 0, 1 / panels, 1))
            _draw(axes, view, _window(view.pixels, package))
            if panel and view.heat is not None:
                _warm(axes, view.heat, view.aspect)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=110, metadata={"Software": None})
    return written.getvalue()


def view_of(case: Case, findings: Findings) -> View:
    """Give what is drawn of a case."""
    image = case.image()
    known = _together(dict(case.masks()) if case.masks else {}, image)
    found = _found(findings) if case.masks else None
    lesions = tuple(_box(each.low, each.high, image) for each in case.lesions or ())
    detections = findings.detections.found[:MOST_BOXES] if findings.detections else ()
    boxes = tuple(_box(each.low, each.high, image) for each in detections)
    if isinstance(image, Volume):
        index = _slice(image, known, found, (*lesions, *boxes))
        turn, aspect = _upright(image), image.spacing[1] / image.spacing[2]
    else:
        index, turn = None, to_upright(image.orientation)
        height, width = turn.pixel(image.pixel)
        aspect = height / width

    def layer(array: NDArray[Any]) -> NDArray[Any]:
        flat = turn.apply(array if index is None else array[index])
        return flat[:: _thinned(flat), :: _thinned(flat)]

    def maybe(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else layer(array)

    shape = image.array.shape[-2:]
    thinned = _thinned(turn.apply(np.broadcast_to(np.uint8(0), shape)))
    drawn = [tuple(_turned(each, turn, shape, index, thinned)) for each in (lesions, boxes)]
    heat = maybe(_activation(findings))
    return View(layer(image.array), aspect, maybe(known), maybe(found), drawn[0], drawn[1], heat)


def _draw(axes: Any, view: View, window: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    axes.set_axis_off()
    axes.imshow(view.pixels, cmap="gray", vmin=window[0], vmax=window[1], aspect=view.aspect, interpolation="bilinear")
    for mask, colour, dashes in ((view.known, KNOWN, "solid"), (view.found, FOUND, "dashed")):
        if mask is not None and mask.any() and not mask.all():
            axes.contour(mask, [0.5], colors=[colour], linewidths=1.3, linestyles=dashes)
    for boxes, colour, dashes in ((view.known_boxes, KNOWN, "solid"), (view.found_boxes, FOUND, "dashed")):
        for top, left, bottom, right in boxes:
            outline = Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=colour, linestyle=dashes, linewidth=1.4
            )
            axes.add_patch(outline)


def _warm(axes: Any, heat: NDArray[Any], aspect: float) -> None:
    """Lay an activation map over the image: the more it says, the less can be seen through it."""
    axes.imshow(heat, cmap="inferno", alpha=heat / 255 * 0.7, vmin=0, vmax=255, aspect=aspect)


def _window(pixels: NDArray[Any], package: ModelPackage) -> tuple[float, float]:
    if isinstance(package.input, VolumeInput):
        return package.input.window
    least, largest = np.nanpercentile(pixels, package.input.percentiles)
    return float(least), float(max(largest, least + 1e-6))


def _together(masks: Mapping[str, NDArray[np.bool_]], image: Image) -> NDArray[np.bool_] | None:
    if not masks:
        return None
    whole = np.zeros(image.array.shape, np.bool_)
    for mask in masks.values():
        whole |= mask
    return whole


def _found(findings: Findings) -> NDArray[np.bool_] | None:
    maps = [label_map.array > 0 for label_map in findings.label_maps]
    return np.any(maps, axis=0) if maps else None


def _activation(findings: Findings) -> NDArray[np.uint8] | None:
    return findings.classification.best.activation if findings.classification else None


def _slice(
    volume: Volume, known: NDArray[np.bool_] | None, found: NDArray[np.bool_] | None, boxes: Sequence[Box]
) -> int:
    last = len(volume.array) - 1
    if known is not None:
        differs = known ^ found if found is not None else known
        return int((differs if differs.any() else known).sum(axis=(1, 2)).argmax())
    if boxes:
        low, high = boxes[0]
        return int(np.clip(round((low[0] + high[0]) / 2), 0, last))
    return last // 2


def _box(low: Sequence[float], high: Sequence[float], image: Image) -> Box:
    """A box as array indices: of a volume's, the outermost of its corners."""
    if isinstance(image, Radiograph):
        return np.array(low, float), np.array(high, float)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1).reshape(-1, 3)
    to_index = np.linalg.inv(image.affine)
    indices = corners @ to_index[:3, :3].T + to_index[:3, 3]
    if image.at is not None:
        indices[:, 0] = np.interp(indices[:, 0], image.at, range(len(image.at)))
    return indices.min(axis=0), indices.max(axis=0)


def _turned(
    boxes: Sequence[Box], turn: Turn, shape: tuple[int, ...], index: int | None, thinned: int
) -> Iterator[tuple[float, ...]]:
    for low, high in boxes:
        if index is not None and not low[0] - 0.5 <= index <= high[0] + 0.5:
            continue
        ends = turn.places(np.array([low[-2:], high[-2:]], float), shape)
        half = 0.0 if (low[-2:] < high[-2:]).any() else 6.0 * thinned  # a point is drawn as a small square
        around = np.concatenate([ends.min(axis=0) - half, ends.max(axis=0) + half]) / thinned
        yield tuple(around.tolist())


def _upright(volume: Volume) -> Turn:
    """How slices are flipped so that columns run to the left or posterior, rows to the posterior or the feet."""
    flips = []
    for axis, towards in ((1, (1, 1, -1)), (2, (1, 1, -1))):
        direction = volume.affine[:3, axis]
        main = int(np.abs(direction).argmax())
        flips.append(bool(direction[main] * towards[main] < 0))
    return Turn(False, (flips[0], flips[1]))


def _thinned(flat: NDArray[Any]) -> int:
    return max(1, -(-int(max(flat.shape)) // FINEST))
