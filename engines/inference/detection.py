"""From a detection network's boxes or points to places in the patient or on the X-ray."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.inference.sliding_window import Window
from engines.packages.description import DetectionSection
from engines.types import Affine, Detection, Detections, Volume

Places = NDArray[np.float64]
"""``[n, 2, dimension]``: of each thing its low and its high corner."""

Points = NDArray[np.float64]
"""``[n, dimension]``."""

Holds = Callable[[Points], NDArray[np.bool_]]
"""Tells of each point whether something may be there, ``[n]``."""

ROUNDING = 1e-6
"""In voxels: a point on the outermost edge of the image stays within it."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a network proposes on its grid, before anything is dropped for being there twice.

    ``places`` are in voxels of the grid, whole numbers are centres; ``scores`` and ``classes`` have shape ``[n]``.
    """

    places: Places
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    def __getitem__(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "Candidates":
        return Candidates(self.places[which], self.scores[which], self.classes[which])


def extent(shape: Sequence[int]) -> NDArray[np.float64]:
    """Give the outer edges of a grid, low and high, ``[2, dimension]``."""
    return np.stack([np.full(len(shape), -0.5), np.asarray(shape) - 0.5])


def candidates(section: DetectionSection, windows: Sequence[Window], seen: NDArray[np.float64]) -> Candidates:
    """Collect what has a score of ``least_score`` or more in any window; what has its centre in padding is dropped.

    Parameters
    ----------
    section
        Says how the network writes places.
    windows
        With ``places`` ``[n, numbers]`` and ``scores`` ``[n, class]``.
    seen
        The outer edges of the image on the grid, low and high, ``[2, dimension]``; the rest of the grid is padding.
    """
    dimensions = seen.shape[1]
    found = [Candidates(np.zeros((0, 2, dimensions)), np.zeros(0), np.zeros(0, np.int64))]
    for window in windows:
        scores = window.answers[section.scores].astype(np.float64)
        index, class_ = np.nonzero(scores >= section.least_score)
        places = _corners(section, window.answers[section.places].astype(np.float64)[index], dimensions)
        places += np.asarray(window.start)
        centre = places.mean(axis=1)
        inside = ((centre >= seen[0]) & (centre <= seen[1])).all(axis=1)
        # What reaches into the padding ends where the image ends.
        places = np.clip(places, *seen)
        found.append(Candidates(places[inside], scores[index, class_][inside], class_[inside]))
    return Candidates(
        np.concatenate([each.places for each in found]),
        np.concatenate([each.scores for each in found]),
        np.concatenate([each.classes for each in found]),
    )


def non_maximum_suppression(section: DetectionSection, proposed: Candidates) -> NDArray[np.int64]:
    """Keep of things of one class that are nearly at one place only the one with the highest score.

    The greedy way of Felzenszwalb et al. (IEEE Transactions on Pattern Analysis and Machine Intelligence 32, 2010). It
    takes memory for one row of overlaps at a time, however many candidates there are.

    Returns
    -------
    NDArray[np.int64]
        Indices of what is kept, the highest score first, at most ``most``. Equal scores keep their order.
    """
    remaining = np.argsort(-proposed.scores, kind="stable")
    kept: list[int] = []
    while remaining.size and len(kept) < section.most:
        best, others = remaining[0], remaining[1:]
        kept.append(int(best))
        same_class = proposed.classes[others] == proposed.classes[best]
        if section.format == "points":
            distance = np.linalg.norm(proposed.places[others, 0] - proposed.places[best, 0], axis=1)
            same_place = distance < section.least_distance
        else:
            same_place = _overlap(proposed.places[best], proposed.places[others]) > section.most_overlap
        remaining = others[~(same_class & same_place)]
    return np.asarray(kept, np.int64)


def detect(
    section: DetectionSection,
    windows: Sequence[Window],
    seen: NDArray[np.float64],
    to_image: Callable[[Places], Places],
    *holds: Holds,
) -> Detections:
    """Say what a network has found, and where.

    Parameters
    ----------
    section, windows, seen
        See `candidates`.
    to_image
        From corners on the grid to those that `engines.types.Detection` wants.
    holds
        Whether such a point lies within the image, where that is less than was seen, and where something is looked
        for; what has its centre elsewhere is dropped.
    """
    proposed = candidates(section, windows, seen)
    for each in holds:
        proposed = proposed[each(to_image(proposed.places).mean(axis=1))]
    kept = proposed[non_maximum_suppression(section, proposed)]
    corners = to_image(kept.places)
    low, high = corners.min(axis=1), corners.max(axis=1)
    entries = [section.classes[number] for number in kept.classes]
    found = tuple(
        Detection(
            entry.label,
            entry.code.code,
            float(score),
            tuple(float(value) for value in start),
            tuple(float(value) for value in stop),
            # not the mean: a box may end where the image does, but hardly along all of its axes
            float((stop - start).max()) if section.measurements else None,
        )
        for entry, score, start, stop in zip(entries, kept.scores, low, high, strict=True)
    )
    return Detections(found, tuple((entry.label, entry.code.code) for entry in section.classes))


def to_patient(affine: Affine) -> Callable[[Places], Places]:
    """Bring corners on a grid along the patient's axes to LPS mm; they stay corners, though low and high may change."""

    def placed(corners: Places) -> Places:
        moved: Places = corners @ affine[:3, :3].T + affine[:3, 3]
        return moved

    return placed


def within_volume(volume: Volume) -> Holds:
    """Tell which points in LPS mm lie in one of a volume's voxels; a tilted volume does not fill the grid around it."""
    slices, rows, columns = volume.array.shape
    last = np.array([slices - 1 if volume.at is None else volume.at[-1], rows - 1, columns - 1])
    to_index = np.linalg.inv(volume.affine)

    def holds(points: Points) -> NDArray[np.bool_]:
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        inside: NDArray[np.bool_] = ((index >= -0.5 - ROUNDING) & (index <= last + 0.5 + ROUNDING)).all(axis=1)
        return inside

    return holds


def _corners(section: DetectionSection, numbers: NDArray[np.float64], dimensions: int) -> Places:
    """Read the network's way of writing places as low and high corner, in voxels whose centres are whole numbers."""
    if section.format == "points":
        corners = np.stack([numbers, numbers], axis=1)
    elif section.format == "centre_size":
        centre, half = numbers[:, :dimensions], numbers[:, dimensions:] / 2
        corners = np.stack([centre - half, centre + half], axis=1) - 0.5
    else:
        corners = numbers.reshape(len(numbers), 2, dimensions) - 0.5
    if section.order == "reversed":
        corners = corners[..., ::-1]
    return np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _overlap(one: NDArray[np.float64], others: Places) -> NDArray[np.float64]:
    """Give the intersection over union of a box with others."""
    low, high = np.maximum(one[0], others[:, 0]), np.minimum(one[1], others[:, 1])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    union = (one[1] - one[0]).prod() + (others[:, 1] - others[:, 0]).prod(axis=1) - shared
    overlap: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap
