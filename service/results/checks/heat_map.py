"""Do these heat maps glow where the network looked?"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.capture import as_drawn, decoded
from service.results.checks.mismatch import require
from service.results.pictures.heat import mapped_classes
from service.results.writers.heat_map import heat_maps
from service.types import ResultObject

NONE, MUCH = 5, 128
"""Of 255: an activation that shows no colour, and one that must show it."""
LEAST_CONTRAST = 30
"""How much more colourful, of 255, a heat map is where there is much than where there is nothing."""


def check_heat_maps(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare decoded heat maps with the activations (`service.results.kinds.Check`).

    They are drawn again, and, from the decoded pixels alone, have colour where the activation is and grey where not.
    """
    assert analysis.findings.classification is not None
    entries = mapped_classes(analysis.findings.classification)
    pictures = as_drawn(datasets, heat_maps(analysis), analysis, "HEATMAP")
    for (dataset, capture), entry in zip(pictures, entries, strict=True):
        assert capture.area is not None
        assert entry.activation is not None
        check_glow(dataset, capture.area, entry.activation)


def check_glow(dataset: Dataset, area: tuple[int, int, int, int], activation: NDArray[np.uint8]) -> None:
    """Refuse a heat map whose colours are not where the activation is."""
    left, top, right, bottom = area
    picture = decoded(dataset)[top:bottom, left:right]
    rows = np.arange(picture.shape[0]) * activation.shape[0] // picture.shape[0]
    columns = np.arange(picture.shape[1]) * activation.shape[1] // picture.shape[1]
    there = activation[np.ix_(rows, columns)]
    colourful = np.ptp(picture, axis=-1)
    much, none = there >= MUCH, there <= NONE
    if much.any() and none.any():
        contrast = float(colourful[much].mean()) - float(colourful[none].mean())
        require(contrast > LEAST_CONTRAST, "HEATMAP", "the colours are not where the activation is")
