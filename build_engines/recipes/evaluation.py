"""How good the shipped models are on images that they were not trained on, through the whole path of a node.

Training and benchmarks judge by the same figures. Needs no PyTorch.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from build_engines.recipes.sources import (
    LEFT,
    NORMAL,
    PNEUMONIA,
    RIGHT,
    VIRAL,
    ClassifiedXray,
    LabelledCt,
    OutlinedXray,
    read_classified,
    read_cts,
    read_outlined,
)
from engines.types import Findings, Image, Radiograph
from engines.verify import dice
from evaluation.estimate import Estimate

Figures = dict[str, float]
"""Each with the words that say what it is."""


class Models(Protocol):
    """What is judged: an `engines.serving.engine_set.EngineSet`, or anything that runs a model like one."""

    def run(self, name: str, image: Image, /) -> Findings:
        """Run a model over an image, and before it the model that it is cropped to, if need be."""
        ...


def without_interval(figures: Figures) -> dict[str, Estimate]:
    """Give figures as estimates of unknown interval."""
    return {words: Estimate(value, np.nan, np.nan) for words, value in figures.items()}


Evaluation = Callable[[Models], Figures]
"""Judges a model by images that are already read."""


def judge_cts(cts: Mapping[str, LabelledCt], models: Models) -> Figures:
    """Give the Dice of ``ct-lung`` on each CT's own grid."""
    figures = Figures()
    for words, ct in cts.items():
        found = models.run("ct-lung", ct.volume).label_map
        labels = found.array if found else np.zeros_like(ct.labels)
        if ct.both:
            figures[f"Dice, both lungs, {words}"] = dice(ct.labels > 0, labels > 0)
            continue
        for label, name in ((LEFT, "left"), (RIGHT, "right")):
            figures[f"Dice, {name} lung, {words}"] = dice(ct.labels == label, labels == label)
    return figures


def judge_outlines(sets: Mapping[str, Sequence[OutlinedXray]], models: Models) -> Figures:
    """Give the mean and the worst Dice of ``cxr-lung`` in each set, on the pixels of the source images."""
    figures = Figures()
    for name, cases in sets.items():
        overlaps = []
        for case in cases:
            found = models.run("cxr-lung", Radiograph(case.image, None, "")).label_map
            overlaps.append(dice(case.mask, found.array > 0) if found else 0.0)
        figures[f"Dice, mean of {len(cases)}, {name}"] = float(np.mean(overlaps))
        figures[f"Dice, worst of {len(cases)}, {name}"] = min(overlaps)
    return figures


def judge_classes(cases: Sequence[ClassifiedXray], rows: str, models: Models) -> Figures:
    """Classify with ``cxr-pneumonia``, and give the figures of `accuracies`."""
    found = [models.run("cxr-pneumonia", Radiograph(case.image, None, "")).classification for case in cases]
    probabilities = [[entry.probability for entry in answer.classes] for answer in found if answer]
    return accuracies(cases, np.array(probabilities), rows)


def accuracies(cases: Sequence[ClassifiedXray], probabilities: NDArray[np.float64], rows: str) -> Figures:
    """Give accuracy and areas under the curve; each only where both of its classes are there.

    Parameters
    ----------
    cases
        What was classified.
    probabilities
        ``[case, class]``.
    rows
        Words for the rows, which every figure's name ends with.
    """
    targets = np.array([case.target for case in cases])
    nih = np.array([case.source == "nih" for case in cases])
    figures = {f"Accuracy, {rows}": float((probabilities.argmax(axis=1) == targets).mean())}
    for words, positive, where in (
        ("AUC pneumonia against normal, NIH only", PNEUMONIA, nih),
        ("AUC viral against normal, all sources", VIRAL, np.ones_like(nih)),
    ):
        score = probabilities[:, positive] / (probabilities[:, positive] + probabilities[:, NORMAL])
        yes, no = score[where & (targets == positive)], score[where & (targets == NORMAL)]
        if len(yes) and len(no):
            figures[f"{words}, {rows}"] = area_under_curve(yes, no)
    return figures


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Give the area under the ROC curve: how often a positive scores higher than a negative; ties count half."""
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))


EVALUATIONS: Mapping[str, Callable[[Path], Evaluation]] = {
    "ct-lung": lambda data: partial(judge_cts, read_cts(data)),
    "cxr-lung": lambda data: partial(judge_outlines, read_outlined(data)),
    "cxr-pneumonia": lambda data: partial(judge_classes, read_classified(data, "test"), "test"),
}
"""Of each shipped model, from the folder of the data: reads the images, which takes a while."""
