"""Does this FRACTIONAL segmentation hold the class activations, on their X-ray?"""

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.mismatch import require
from service.results.checks.segmentation import FORMS, Expected, check_object
from service.results.checks.segmentation_frames import Shown
from service.results.writers.heat_map_segmentation import ABNORMAL, WHAT_IT_IS, activated_classes
from service.types import ResultObject

KIND = "HEATMAP-SEG"


def check_heat_map_segmentation(datasets: Sequence[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare the decoded object with the activations of the classes (`service.results.kinds.Check`)."""
    require(len(datasets) == 1, KIND, "there is not one object of the activations")
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
    check_object(datasets[0], Expected(KIND, 1, FORMS["fractional"], segments, shown), analysis)
    says = WHAT_IT_IS in datasets[0].ImageComments
    require(says, KIND, "it does not say what class activations are and are not")
