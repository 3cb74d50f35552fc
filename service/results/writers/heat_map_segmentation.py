"""Class activations become a FRACTIONAL Segmentation object: what a viewer can lay over the X-ray and threshold."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.types import ClassProbability, Code, Segment
from service.results.analysis import Analysis
from service.results.writers.segmentation import write_frames
from service.results.writers.segmentation_frames import Fractions
from service.types import ResultObject

ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
"""The property category (CID 7150) of what speaks for a class."""
WHAT_IT_IS = (
    "Class activation maps: how much each place of the image spoke for a class to the network, 255 where most; "
    "not the outline of a finding and no probability of one at that place"
)


def activated_classes(analysis: Analysis) -> dict[Segment, NDArray[np.uint8]]:
    """The classes that have something to show as segments, numbered from 1, and their maps ``[row, column]``."""
    classification = analysis.findings.classification
    classes = [
        (entry, entry.activation)
        for entry in (classification.classes if classification else ())
        if entry.activation is not None and entry.activation.any()
    ]
    return {_segment(number, entry, len(classes)): map_ for number, (entry, map_) in enumerate(classes, start=1)}


def write_heat_map_segmentation(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One object with a segment for each class (`service.results.kinds.Writer`)."""
    classes = activated_classes(analysis)
    frames = Fractions(tuple(activation[np.newaxis] for activation in classes.values()))
    return [write_frames(analysis, "HEATMAP-SEG", 1, frames, tuple(classes), [WHAT_IT_IS], folder)]


def _segment(number: int, entry: ClassProbability, count: int) -> Segment:
    # hues as far from each other as so many can be
    red, green, blue = colorsys.hsv_to_rgb((number - 1) / count, 0.75, 0.95)
    return Segment(number, entry.label, ABNORMAL, entry.code, (round(255 * red), round(255 * green), round(255 * blue)))
