"""The report of an evaluation: one HTML file that holds all of its pictures, for a screen or a printer."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from evaluation.estimate import Estimate
from evaluation.judgement import CaseResult, Judgement
from evaluation.words import in_words, interval, is_share, number, told

REPORT, TEMPLATE = "report.html", "report.html"

HEADLINES = (
    "accuracy", "dice", "froc_mean", "lesion_sensitivity", "sensitivity", "specificity", "hausdorff95_mm",
    "hausdorff95_px", "false_positives_per_scan", "auc", "mean_iou",
)  # fmt: skip
"""What is said first, where it is there."""
MOST_HEADLINES = 4
MOST_PROBLEMS = 50
MOST_CLASSES = 12
"""Of a confusion matrix that is shown."""


@dataclass(frozen=True)
class Pictured:
    """A case with its picture (PNG)."""

    case: CaseResult
    png: bytes


@dataclass(frozen=True)
class Circumstances:
    """How it was judged: the engine in words, rounds and seed of the bootstrap, version of Wetread."""

    engine: str
    rounds: int
    seed: int
    version: str
    intended_use: str


def write_report(
    folder: Path,
    judgement: Judgement,
    circumstances: Circumstances,
    worst: Sequence[Pictured] = (),
    best: Sequence[Pictured] = (),
) -> Path:
    """Write ``report.html`` into a folder that is there. Needs Jinja2 and matplotlib."""
    page = rendered(judgement, circumstances, worst, best)
    file = folder / REPORT
    file.write_text(page, encoding="utf-8")
    return file


def rendered(
    judgement: Judgement, circumstances: Circumstances, worst: Sequence[Pictured], best: Sequence[Pictured]
) -> str:
    """Give the report as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from evaluation.plots import curves, forest, kinds

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    problems = [case for case in judgement.cases if case.problem]
    shares = {
        name: each
        for name, each in judgement.metrics.items()
        if is_share(name, each) and not name.endswith("_at_threshold")
    }
    headlines = headlines_of(judgement.metrics)
    return environment.get_template(TEMPLATE).render(
        judgement=judgement,
        circumstances=circumstances,
        headlines=[(in_words(name), number(each.value), interval(each)) for name, each in headlines.items()],
        metrics=[(in_words(name), number(each.value), interval(each)) for name, each in judgement.metrics.items()],
        forest=_uri("image/svg+xml", forest(shares)) if shares else "",
        curves=[_uri("image/svg+xml", curves(group)) for group in kinds(judgement.curves)],
        confusion=confusion(judgement.cases),
        subgroup_columns=[in_words(name) for name in headlines],
        subgroups=[
            (words, n, [told(metrics[name]) if name in metrics else "–" for name in headlines])
            for words, (n, metrics) in judgement.subgroups.items()
        ],
        thresholds=[(in_words(name), number(value)) for name, value in judgement.thresholds.items()],
        pictured=[
            (words, [(each.case, _uri("image/png", each.png), _figures(each.case)) for each in group])
            for words, group in (("Worst", worst), ("Best", best))
            if group
        ],
        problems=problems[:MOST_PROBLEMS],
        further_problems=max(len(problems) - MOST_PROBLEMS, 0),
    )


def headlines_of(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Give the figures that are said first: of a classifier how well it tells classes apart, and so on."""
    pairs = [name for name in metrics if name.startswith("auc_") and "_vs_" in name]
    chosen = [*pairs, *(name for name in HEADLINES if name in metrics)] or list(metrics)
    return {name: metrics[name] for name in chosen[:MOST_HEADLINES]}


def confusion(cases: Sequence[CaseResult]) -> tuple[list[str], list[tuple[str, list[int], int]]] | None:
    """Count answers by what was expected: the answers, and each expected class with its counts and their sum.

    None where there are no classes.
    """
    judged = [case for case in cases if not case.problem and any("probability" in name for name in case.figures)]
    counts = Counter((case.expected, case.answer) for case in judged)
    names = list(dict.fromkeys(sorted(each for pair in counts for each in pair)))
    if not judged or len(names) > MOST_CLASSES:
        return None
    rows = [(name, [counts[name, answer] for answer in names]) for name in names]
    return names, [(name, row, sum(row)) for name, row in rows if sum(row)]


def ranked(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Give the cases that were judged, the worst first."""
    found = [(quality, case) for case in cases if not case.problem and not isnan(quality := _quality(case))]
    return [case for _, case in sorted(found, key=lambda each: each[0])]


def _quality(case: CaseResult) -> float:
    """The larger the better: probability of the true class, Dice, or lesions found less false positives."""
    figures = case.figures
    for expected in case.expected.split("; "):
        if f"probability_{expected}" in figures:
            return figures[f"probability_{expected}"]
    if "dice" in figures:
        return figures["dice"]
    if "lesions" in figures:
        return figures["lesions_found"] - figures["lesions"] - figures["false_positives"] / 10
    return float("nan")


def _figures(case: CaseResult) -> str:
    return ", ".join(f"{in_words(name)} {number(value)}" for name, value in list(case.figures.items())[:6])


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
