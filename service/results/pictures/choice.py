"""Which slices of a volume are worth a picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.types import LabelMap, Volume
from service.results.detected import Detected
from service.results.pictures.views import patient_axes


def chosen_slices(
    volume: Volume, label_maps: Sequence[LabelMap], most: int, found: Sequence[Detected] = ()
) -> list[int]:
    """The slices that show what was found.

    Of each detection its middle slice, the highest score first; of each segment the slice where it is largest, those of
    few slices first, because others hit them by chance only; then slices spread over all in which anything was found.
    Where nothing was, the middle one.

    Parameters
    ----------
    label_maps
        On the volume's grid.
    most
        How many at most.
    found
        Detections on their slices.

    Returns
    -------
    list[int]
        Indices of slices, as a reader leafs through them: axial ones from the head down, coronal ones from the front,
        sagittal ones from the patient's right.
    """
    areas = np.zeros((len(volume.array), 256), np.int64)
    for label_map in label_maps:
        areas += label_map.counts
    areas[:, 0] = 0  # the background
    on = [index for entry in found for index in entry.on]
    shows = np.union1d(np.flatnonzero(areas.any(axis=1)), np.array(on, int))
    if not shows.size:
        return [volume.array.shape[0] // 2][:most]
    slices_of = np.count_nonzero(areas, axis=0)
    by_extent = sorted(np.flatnonzero(slices_of).tolist(), key=lambda number: (int(slices_of[number]), number))
    best = [*(entry.middle for entry in found), *(int(areas[:, number].argmax()) for number in by_extent)]
    chosen = list(dict.fromkeys(best))[:most]
    others = np.setdiff1d(shows, chosen)
    chosen += others[_evenly(others.size, most - len(chosen))].tolist()
    return sorted(chosen, reverse=_stored_against_reading(volume))


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    wanted = min(count, wanted)
    return np.floor((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(np.int64)


def _stored_against_reading(volume: Volume) -> bool:
    place = patient_axes(volume.affine).index(0)
    grows = bool(volume.affine[2 - place, 0] > 0)
    is_axial = place == 0
    return grows if is_axial else not grows
