"""How well masks agree with those of the reference: overlap, distance of surfaces, volume, pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.types import Image, Radiograph
from engines.verify import dice
from evaluation.estimate import ROUNDS, Estimate, bootstrap_all
from evaluation.metrics.surfaces import Mask, straightened, surface_distances
from evaluation.metrics.volumes import volume_ml

PART = 1 << 20


@dataclass(frozen=True, eq=False)
class Agreement:
    """How the answer to one case agrees with its reference.

    Attributes
    ----------
    figures
        Of this case: ``dice``, ``iou``, ``hausdorff95_mm``, ``surface_distance_mm`` (``_px`` for an X-ray without
        spacing), and of a CT ``volume_mae_ml`` and ``volume_mse_ml2``. Each with ``_SEGMENT`` for every segment, and
        without it as the mean of the segments.
    segments
        Names, in the order of ``confusion``.
    confusion
        Pixels or voxels, ``[true, answered]``, background first; None where segments overlap.
    """

    figures: Mapping[str, float]
    segments: tuple[str, ...]
    confusion: NDArray[np.int64] | None


def iou(one: Mask, other: Mask) -> float:
    """Give the intersection over union (Jaccard 1912) of two masks of the same shape; 1 if both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def compare(reference: Mapping[str, Mask], found: Mapping[str, Mask], image: Image) -> Agreement:
    """Compare masks with those of the reference, by the names of segments.

    Parameters
    ----------
    reference, found
        ``[(slice,) row, column]`` on the image's grid; what is missing in ``found`` was not found.
    image
        Gives sizes in millimetres.
    """
    nothing = np.zeros(image.array.shape, np.bool_)
    pairs = {name: (mask, found.get(name, nothing)) for name, mask in reference.items()}
    by_segment = {name: _figures(*pair, image) for name, pair in pairs.items()}
    means = {
        figure: float(np.mean([figures[figure] for figures in by_segment.values()]))
        for figure in next(iter(by_segment.values()), {})
    }
    named = {f"{figure}_{name}": value for name, figures in by_segment.items() for figure, value in figures.items()}
    return Agreement(means | named, tuple(pairs), _confusion(list(pairs.values()), nothing.shape))


def segmentation_figures(
    agreements: Sequence[Agreement], patients: Sequence[str], rounds: int = ROUNDS, seed: int = 1
) -> dict[str, Estimate]:
    """Estimate the means of the cases' figures, and `pixel_figures` of all pixels together."""
    names = list(dict.fromkeys(name for agreement in agreements for name in agreement.figures))
    table = np.array([[agreement.figures.get(name, np.nan) for name in names] for agreement in agreements])
    known = ~np.isnan(table)
    table = np.where(known, table, 0)
    confusions = _on_common_classes(agreements)

    def statistics(chosen: NDArray[np.int64]) -> Mapping[str, float]:
        counts = known[chosen].sum(axis=0)
        means = np.divide(table[chosen].sum(axis=0), counts, out=np.full(len(names), np.nan), where=counts > 0)
        return dict(zip(names, means.tolist(), strict=True)) | pixel_figures(confusions[chosen].sum(axis=0))

    return bootstrap_all(statistics, patients, rounds, seed) if names else {}


def pixel_figures(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Give the figures of Long, Shelhamer and Darrell, Fully Convolutional Networks (CVPR 2015); background is a class.

    Parameters
    ----------
    confusion
        Pixels of all images together, ``[true, answered]``. A class without a true pixel counts in no mean.
    """
    there = confusion.sum(axis=1) > 0
    if not there.any():
        return {}
    right = confusion.diagonal()[there].astype(np.float64)
    true, answered = confusion.sum(axis=1)[there], confusion.sum(axis=0)[there]
    overlaps = right / (true + answered - right)
    return {
        "pixel_accuracy": float(right.sum() / true.sum()),
        "mean_pixel_accuracy": float((right / true).mean()),
        "mean_iou": float(overlaps.mean()),
        "frequency_weighted_iou": float((true * overlaps).sum() / true.sum()),
    }


def _figures(reference: Mask, found: Mask, image: Image) -> dict[str, float]:
    if isinstance(image, Radiograph):
        unit = "px" if image.spacing is None else "mm"
        distances = surface_distances(reference, found, image.pixel)
    else:
        unit = "mm"
        (one, other), spacing = straightened(image, (reference, found))
        distances = surface_distances(one, other, spacing)
    figures = {
        "dice": dice(reference, found),
        "iou": iou(reference, found),
        f"hausdorff95_{unit}": distances.hausdorff95,
        f"surface_distance_{unit}": distances.mean,
    }
    if isinstance(image, Radiograph):
        return figures
    error = volume_ml(found, image) - volume_ml(reference, image)
    return figures | {"volume_mae_ml": abs(error), "volume_mse_ml2": error**2}


def _confusion(pairs: Sequence[tuple[Mask, Mask]], shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    true, answered = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for number, pair in enumerate(pairs, start=1):
        for labels, mask in zip((true, answered), pair, strict=True):
            if labels[mask].any():
                return None
            labels[mask] = number
    size = len(pairs) + 1
    counts = np.zeros(size**2, np.int64)
    # In parts: counting widens the labels eightfold.
    for start in range(0, true.size, PART):
        part = slice(start, start + PART)
        counts += np.bincount(true.ravel()[part].astype(np.int64) * size + answered.ravel()[part], minlength=size**2)
    return counts.reshape(size, size)


def _on_common_classes(agreements: Sequence[Agreement]) -> NDArray[np.int64]:
    """Give the confusions of all cases, ``[case, true, answered]``; zeros for a case that has none."""
    names = list(dict.fromkeys(name for agreement in agreements for name in agreement.segments))
    confusions = np.zeros((len(agreements), len(names) + 1, len(names) + 1), np.int64)
    for whole, agreement in zip(confusions, agreements, strict=True):
        if agreement.confusion is not None:
            places = [0, *(names.index(name) + 1 for name in agreement.segments)]
            whole[np.ix_(places, places)] = agreement.confusion
    return confusions
