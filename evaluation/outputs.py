"""What an evaluation leaves for programs: JSON, and a table of all cases."""

import csv
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from evaluation.estimate import Estimate
from evaluation.judgement import CaseResult, Judgement

REPORT_JSON, PREDICTIONS = "report.json", "predictions.csv"

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula."""


def as_line(judgement: Judgement) -> str:
    """Give model, data, number of cases and metrics as one line of JSON; what has no value is null."""
    return json.dumps(
        {
            "model": judgement.model,
            "data": judgement.data,
            "n": judgement.n,
            "metrics": _estimates(judgement.metrics),
        },
        allow_nan=False,
    )


def write_json(file: Path, judgement: Judgement) -> None:
    """Write all that was judged, but for the curves."""
    document = {
        **json.loads(as_line(judgement)),
        "subgroups": {
            words: {"n": n, "metrics": _estimates(metrics)} for words, (n, metrics) in judgement.subgroups.items()
        },
        "thresholds": {name: _finite(value) for name, value in judgement.thresholds.items()},
        "notes": list(judgement.notes),
        "problems": {case.name: case.problem for case in judgement.cases if case.problem},
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_predictions(file: Path, judgement: Judgement) -> None:
    """Write a row for each case: what was expected, the answer, its figures, or its problem.

    Cells that a spreadsheet would calculate are written with an apostrophe before them.
    """
    groups = _names(case.groups for case in judgement.cases)
    figures = _names(case.figures for case in judgement.cases)
    with file.open("w", newline="", encoding="utf-8") as text:
        table = csv.writer(text)
        table.writerow(map(_cell, ["case", *groups, "expected", "answer", *figures, "problem"]))
        for case in judgement.cases:
            table.writerow([*map(_cell, _row(case, groups)), *_figures(case, figures), _cell(case.problem)])


def _row(case: CaseResult, groups: list[str]) -> list[str]:
    return [case.name, *(case.groups.get(name, "") for name in groups), case.expected, case.answer]


def _figures(case: CaseResult, figures: list[str]) -> list[str]:
    values = [case.figures.get(name) for name in figures]
    return ["" if value is None or not isfinite(value) else f"{value:.6g}" for value in values]


def _names(of_cases: Any) -> list[str]:
    return list(dict.fromkeys(name for each in of_cases for name in each))


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _estimates(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        name: {"value": _finite(each.value), "low": _finite(each.low), "high": _finite(each.high)}
        for name, each in metrics.items()
    }


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None
