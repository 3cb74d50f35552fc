"""``wetread-train``: train a shipped model and write its package, or train and measure a row of the ladder."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.markup import escape
from rich.table import Table

from build_engines.recipes import ct_lung, ct_nodule, cxr_lung, cxr_pneumonia, training
from build_engines.recipes.folders import DATA, LADDER
from build_engines.recipes.ladder import rows
from build_engines.recipes.ladder.every_row import ROWS
from build_engines.recipes.ladder.measure import measure_package
from build_engines.recipes.packaging.ensemble import Ensemble
from build_engines.recipes.packaging.texts import with_figures
from build_engines.recipes.trainer import Trainer
from engines.packages.package import SHIPPED_MODELS, load_package, load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines

RECIPES: Mapping[str, Callable[[Path], training.Recipe | Ensemble]] = {
    ct_lung.NAME: ct_lung.load,
    ct_nodule.NAME: ct_nodule.load,
    cxr_lung.NAME: cxr_lung.load,
    cxr_pneumonia.NAME: cxr_pneumonia.load_ensemble,
}


def run(
    name: Annotated[str | None, typer.Argument(help="A model or a row of the ladder; none: list them.")] = None,
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
    out: Annotated[Path, typer.Option(help="Folder that the package folder is written to.")] = SHIPPED_MODELS,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; the recipe's own number if not given.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights on the same machine.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    start: Annotated[
        Path | None, typer.Option(help="Saved weights to begin with, such as another model's encoder.")
    ] = None,
    every: Annotated[
        int, typer.Option(help="Validate, write the package and save the training every so many steps.")
    ] = 100,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, even where an interrupted training is there.")
    ] = False,
    measure: Annotated[bool, typer.Option(help="Train nothing: measure the package and write its card.")] = False,
) -> None:
    """Train a model and write its package; an interrupted training is gone on with.

    The weights for --start go to .train/NAME.pt.
    """
    trainer = Trainer(steps, seed, start, every, fresh)
    if name is None:
        trainer.console.print(listing())
        return
    torch.set_num_threads(threads)
    if name in ROWS:
        train_row(name, data, trainer, measure)
    elif name in RECIPES:
        train_model(name, data, out, trainer, measure, threads)
    else:
        close = get_close_matches(name, (*RECIPES, *ROWS), n=1)
        hint = f"did you mean {close[0]}?" if close else "`wetread-train` alone lists them"
        raise typer.BadParameter(f"{name} is no model and no row of the ladder; {hint}")


def listing() -> Table:
    """All that can be trained: the models, and the rows of the ladder with whether they were measured."""
    table = Table("name", "what it is", "table", "measured", box=None, pad_edge=False)
    for name in RECIPES:
        table.add_row(name, "a package in engines/models, or its figures", "", "")
    for name, row in ROWS.items():
        table.add_row(name, escape(row.title), row.table, "✓" if rows.saved(name) else "")
    return table


def train_model(name: str, data: Path, out: Path, trainer: Trainer, measure: bool, threads: int) -> None:
    """Train a model unless it is only to be measured, and write its figures into its card."""
    loaded = RECIPES[name](data)
    if isinstance(loaded, Ensemble):
        recipe = loaded.recipe
        if not measure:
            trainer.ensemble(loaded, out)
    else:
        recipe = loaded
        if not measure:
            trainer.package(loaded, out)
    with open_engines(load_packages(out), RuntimeSettings(threads=threads)) as engines:
        figures = recipe.measure(engines)
    trainer.tell({name: figure.value for name, figure in figures.items()})
    (out / recipe.name / "CARD.md").write_text(with_figures(recipe.card, figures), encoding="utf-8")


def train_row(name: str, data: Path, trainer: Trainer, measure: bool) -> None:
    """Train a row of the ladder unless it is only to be measured, and keep what is measured in docs/ladder."""
    row = ROWS[name]
    if row.run is not None:
        result = row.run(data, trainer.seed)
    else:
        assert row.load is not None
        recipe, begun = row.load(data), perf_counter()
        before = rows.saved(name) if measure else None
        if not measure:
            trainer.package(recipe, LADDER)
        seconds = perf_counter() - begun
        result = replace(
            measure_package(load_package(LADDER / recipe.name), recipe.measure),
            steps=before.steps if before else trainer.steps or recipe.steps,
            seconds=before.seconds if before else seconds,
            seed=before.seed if before else trainer.seed,
        )
    rows.save(name, replace(result, trained_on=row.trained_on, judged_on=row.judged_on))
    trainer.tell({metric: figure.value for metric, figure in result.metrics.items()})


def main() -> None:
    """Run the command."""
    typer.run(run)


if __name__ == "__main__":
    main()
