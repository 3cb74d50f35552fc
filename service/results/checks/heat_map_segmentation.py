"""Does this FRACTIONAL segmentation hold the class activations, on their X-ray?"""

from collections.abc import Iterable, Sequence

import numpy as np
from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.mismatch import only, require
from service.results.checks.segmentation import FORMS, Expected, check_object
from service.results.checks.segmentation_frames import Shown
from service.results.writers.heat_map_segmentation import ABNORMAL, WHAT_IT_IS, activated_classes
from service.types import ResultObject

KIND = "HEATMAP-SEG"


def check_heat_map_segmentation(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare the decoded object with the activations of the classes (`service.results.kinds.Check`)."""
    dataset = only(datasets, KIND)
    segments = list(activated_classes(analysis))
    classification = analysis.findings.classification
    assert classification is not None
    maps = [entry for entry in classification.classes if entry.activation is not None and np.any(entry.activation)]
    told = [(entry.label, entry.code, ABNORMAL) for entry in maps]
    same = [(segment.label, segment.type, segment.category) for segment in segments] == told
    require(same, KIND, "its segments are not the classes")
    colours = {segment.colour for segment in segments}
    require(len(colours) == len(segments), KIND, "two classes have one colour")
    activations = [np.asarray(entry.activation) for entry in maps]
    total = sum(int(np.count_nonzero(activation)) for activation in activations)
    shown = Shown(lambda segment, _: activations[segment - 1], total, len(maps))
    check_object(dataset, Expected(KIND, FORMS["fractional"], segments, shown), analysis)
    says = WHAT_IT_IS in dataset.ImageComments
    require(says, KIND, "it does not say what class activations are and are not")
