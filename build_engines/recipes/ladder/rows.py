"""What the ladder is made of: systems of the literature, built here, trained on the same data and judged alike.

A row is either a network, which becomes a package and is judged through its compiled engine as a node would run it, or
a method that is no network. What was measured is kept in ``docs/ladder/ROW.json``; the tables are made of these files.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from build_engines.recipes.folders import RESULTS
from build_engines.recipes.training import Recipe
from evaluation.estimate import Estimate

CARD = "# {}\n\nA row of the ladder. Research use only.\n\n<!-- figures -->\n<!-- /figures -->\n"
"""The card of a row's package, but for its name."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured of one row.

    Attributes
    ----------
    trained_on, judged_on
        As of its `Row`.
    metrics
        By the metric's name, as in ``wetread evaluate --json``.
    parameters, operations
        Weights, and multiply-adds of one inference; None where it is no network.
    latency_ms
        Median time of one inference of the compiled engine (OpenVINO, FP32, two threads); of a method that has no
        engine, of its own code, and ``engine`` says which.
    steps, seconds, seed
        Of the training.
    """

    trained_on: str = ""
    judged_on: str = ""
    metrics: Mapping[str, Estimate]
    parameters: int | None = None
    operations: int | None = None
    latency_ms: float | None = None
    engine: str = "OpenVINO FP32"
    steps: int | None = None
    seconds: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Row:
    """One system of the ladder.

    Attributes
    ----------
    table
        It belongs to.
    title
        What it is, for the table.
    load
        Reads the data and gives the recipe; None for what becomes no package of its own.
    run
        For what is no recipe: reads the data, trains with this seed and measures.
    trained_on, judged_on
        Data, split and number of images, for the table.
    published
        The figure of the literature beside it, with its source; empty where there is none.
    differs
        What the published system or its data have otherwise.
    """

    table: str
    title: str
    load: Callable[[Path], Recipe] | None = None
    run: Callable[[Path, int], Result] | None = None
    trained_on: str = ""
    judged_on: str = ""
    published: str = ""
    differs: str = ""


def save(name: str, result: Result) -> None:
    """Keep what was measured of a row; NaN is written as null."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False, allow_nan=True).replace("NaN", "null")
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def saved(name: str) -> Result | None:
    """What was measured of a row, or None."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return None
    fields = json.loads(file.read_text(encoding="utf-8"))
    number = {
        metric: Estimate(*(np.nan if value is None else value for value in (each["value"], each["low"], each["high"])))
        for metric, each in fields.pop("metrics").items()
    }
    return Result(metrics=number, **fields)
