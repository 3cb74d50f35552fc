"""What an evaluation says: figures with intervals, curves, subgroups, and each case on its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluation.estimate import Estimate


@dataclass(frozen=True)
class Curve:
    """A line in a picture of the report: ROC, precision–recall, calibration or FROC.

    ``marks`` are points on it that matter, by their words, such as the threshold that was chosen.
    """

    title: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseResult:
    """What became of one case: its figures, or why there are none; ``answer`` and ``expected`` in words."""

    name: str
    groups: Mapping[str, str]
    figures: Mapping[str, float] = field(default_factory=dict)
    expected: str = ""
    answer: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Judgement:
    """How good a model is on some data.

    Attributes
    ----------
    model
        Its name and version.
    data
        Which data, in words: the manifest's or folder's name, and the split.
    n
        Cases that were judged; those of ``cases`` with a problem are not among them.
    metrics
        By name, such as ``auc_viral_vs_normal`` (docs/evaluation.md has the list).
    subgroups
        By the subgroup's words, such as ``source = nih``: number of cases and metrics.
    thresholds
        By class; chosen on the validation rows, or those that are usual, as ``notes`` says.
    notes
        Sentences that a reader has to know: how thresholds were chosen, what was left out and why.
    """

    model: str
    data: str
    n: int
    metrics: Mapping[str, Estimate]
    subgroups: Mapping[str, tuple[int, Mapping[str, Estimate]]] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    cases: tuple[CaseResult, ...] = ()
    notes: tuple[str, ...] = ()
