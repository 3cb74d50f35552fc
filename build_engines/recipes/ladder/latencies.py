"""``python -m build_engines.recipes.ladder.latencies``: the time of one inference of every row that is a package, anew.

Rows are measured on different days beside different work. Here all take turns, so that their times can be compared.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.progress import track

from build_engines.recipes.folders import LADDER
from build_engines.recipes.ladder import rows
from build_engines.recipes.ladder.every_row import ROWS
from build_engines.recipes.ladder.measure import time_of
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings, create_engine

SHIPPED: Mapping[str, str] = {
    "xray-lungs-shipped": "cxr-lung",
    "ct-lungs-shipped": "ct-lung",
    "classes-shipped": "cxr-pneumonia",
    "nodule-cad-shipped": "ct-nodule",
}
"""Rows that are a shipped model."""


def package_of(row: str) -> Path:
    """Name the folder of a row's package."""
    return SHIPPED_MODELS / SHIPPED[row] if row in SHIPPED else LADDER / row


def run(rounds: Annotated[int, typer.Option(help="Times that every network has its turn.")] = 5) -> None:
    """Time all rows and write the medians into docs/ladder."""
    there = [name for name in ROWS if rows.saved(name) and package_of(name).is_dir()]
    with ExitStack() as stack:
        engines, golden = {}, {}
        for name in track(there, "opening"):
            package = load_package(package_of(name))
            engines[name] = stack.enter_context(create_engine(package, RuntimeSettings(threads=2, precision="fp32")))
            golden[name] = package.golden().input
        times: dict[str, list[float]] = {name: [] for name in there}
        for _ in track(range(rounds), "timing"):
            for name, engine in engines.items():
                times[name].append(time_of(partial(engine.infer, golden[name]), rounds=3))
    for name, milliseconds in times.items():
        result = rows.saved(name)
        assert result is not None
        rows.save(name, replace(result, latency_ms=median(milliseconds)))
        typer.echo(f"{name}: {median(milliseconds):.3g} ms ({min(milliseconds):.3g}–{max(milliseconds):.3g})")


if __name__ == "__main__":
    typer.run(run)
