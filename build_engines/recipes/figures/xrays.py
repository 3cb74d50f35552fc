"""What is said of a classifier of chest X-rays: the figures that always go together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from build_engines.recipes.data.chest_xrays import ChestXray
from build_engines.recipes.data.sources import CLASSES
from evaluation.estimate import Estimate
from evaluation.metrics.classification import Answers, classification_figures


def answered(cases: Sequence[ChestXray], probabilities: NDArray[np.float64]) -> Answers:
    """Put what was answered beside what is true."""
    return Answers(CLASSES, np.array([case.target for case in cases]), probabilities)


def figures(cases: Sequence[ChestXray], probabilities: NDArray[np.float64]) -> dict[str, Estimate]:
    """Give the figures that always go together; see docs/models.md.

    (a) ``nih.auc_pneumonia_vs_normal``, NIH only; (b) ``held_out.…``, where whole sources are held out; and all figures
    of all rows, which say as much of the source as of the class; ``SOURCE.accuracy`` of each source.
    """
    held_out = all(case.split_by_source == "external_test" for case in cases)
    found = {
        f"held_out.{name}" if held_out else name: each
        for name, each in classification_figures(answered(cases, probabilities), [c.patient for c in cases]).items()
    }
    for source in sorted({case.source for case in cases}):
        chosen = [index for index, case in enumerate(cases) if case.source == source]
        of_source = tuple(cases[index] for index in chosen)
        patients = [case.patient for case in of_source]
        alone = classification_figures(answered(of_source, probabilities[chosen]), patients)
        names = ("accuracy", "auc_pneumonia_vs_normal") if source == "nih" else ("accuracy",)
        found |= {f"{source}.{name}": alone[name] for name in names}
    return found
