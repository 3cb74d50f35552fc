"""``wetread-train``: train one of the shipped models and write its package."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.table import Table

from build_engines.recipes import ct_lung, ct_nodule, cxr_lung, cxr_pneumonia, training
from build_engines.recipes.ladder import rows
from build_engines.recipes.ladder.every_row import ROWS
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.packaging.ensemble import Ensemble
from build_engines.recipes.packaging.export import export, export_all
from build_engines.recipes.packaging.texts import with_figures
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package, load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines

ROOT = Path(__file__).resolve().parents[2]
LADDER = ROOT / ".train" / "ladder"
"""Packages of the ladder's rows; they are measured and not shipped."""

RECIPES: Mapping[str, Callable[[Path], training.Recipe | Ensemble]] = {
    ct_lung.NAME: ct_lung.load,
    ct_nodule.NAME: ct_nodule.load,
    ct_nodule.CHESTS_NAME: ct_nodule.load_chests,
    cxr_lung.NAME: cxr_lung.load,
    cxr_pneumonia.NAME: cxr_pneumonia.load_ensemble,
}


def run(
    name: Annotated[str | None, typer.Argument(help="A model or a row of the ladder; none: list them.")] = None,
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = ROOT.parent / "shared" / "data",
    out: Annotated[Path, typer.Option(help="Folder that the package folder is written to.")] = ROOT
    / "engines"
    / "models",
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
    console = Console()
    if name is None:
        console.print(listing())
        return
    torch.set_num_threads(threads)
    if name in ROWS:
        train_row(name, data, steps, seed, start, every, threads, fresh, measure, console)
        return
    if name not in RECIPES:
        close = get_close_matches(name, (*RECIPES, *ROWS), n=1)
        hint = f"did you mean {close[0]}?" if close else "`wetread-train` alone lists them"
        raise typer.BadParameter(f"{name} is no model and no row of the ladder; {hint}")
    loaded = RECIPES[name](data)
    recipe = loaded.recipe if isinstance(loaded, Ensemble) else loaded
    if isinstance(loaded, Ensemble) and not measure:
        train_ensemble(loaded, steps, start, every, out, console, fresh)
    elif not measure:
        train(recipe, steps or recipe.steps, seed, start, every, out, console, fresh)
    if recipe.card:
        with open_engines(load_packages(out), RuntimeSettings(threads=threads)) as engines:
            figures = recipe.measure(engines)
        tell(console, {words: figure.value for words, figure in figures.items()})
        (out / recipe.name / "CARD.md").write_text(with_figures(recipe.card, figures), encoding="utf-8")


def listing() -> Table:
    """All that can be trained: the models, and the rows of the ladder with whether they were measured."""
    table = Table("name", "what it is", "table", "measured", box=None, pad_edge=False)
    for name in RECIPES:
        table.add_row(name, "a package in engines/models, or its figures", "", "")
    for name, row in ROWS.items():
        table.add_row(name, escape(row.words), row.table, "✓" if rows.saved(name) else "")
    return table


def train(
    recipe: training.Recipe,
    steps: int,
    seed: int,
    start: Path | None,
    every: int,
    out: Path,
    console: Console,
    fresh: bool = False,
) -> None:
    """Train with a progress bar, and keep the weights, the training and the package at each checkpoint."""
    saved, state = (ROOT / ".train" / f"{recipe.name}{suffix}" for suffix in (".pt", ".state"))
    saved.parent.mkdir(exist_ok=True)
    if fresh:
        state.unlink(missing_ok=True)
    elif state.exists():
        console.print(f"going on with {state.name}; --fresh begins anew")
    with Bar(console=console) as bar:
        task = bar.add_task(recipe.name, total=steps)

        def report(progress: training.Progress) -> None:
            bar.update(task, completed=progress.step, description=f"{recipe.name}, loss {progress.loss:.3f}")
            if progress.step % 20 == 0:
                console.print(f"step {progress.step}: loss {progress.loss:.3f}")

        def checkpoint(network: Network) -> None:
            tell(console, recipe.validate(network))
            torch.save(network.state_dict(), saved)
            if recipe.card:
                export(recipe, network, out / recipe.name)

        training.train(recipe, steps, seed, start, report, checkpoint, every, state)


def train_ensemble(
    ensemble: Ensemble, steps: int | None, start: Path | None, every: int, out: Path, console: Console, fresh: bool
) -> None:
    """Train each member whose finished weights are not in .train, and write the package of all."""
    networks = []
    for seed, member in ensemble.members.items():
        saved, state = (ROOT / ".train" / f"{member.name}{suffix}" for suffix in (".pt", ".state"))
        if fresh or state.exists() or not saved.exists():
            train(member, steps or member.steps, seed, start, every, out, console, fresh)
        else:
            console.print(f"{saved.name} is trained; --fresh begins anew")
        network = member.network()
        network.load_state_dict(torch.load(saved, weights_only=True))
        networks.append(network.eval())
    ensemble.finish(networks)
    export_all(ensemble.recipe, networks, out / ensemble.recipe.name)


def train_row(
    name: str,
    data: Path,
    steps: int | None,
    seed: int,
    start: Path | None,
    every: int,
    threads: int,
    fresh: bool,
    measure: bool,
    console: Console,
) -> None:
    """Train and measure a row of the ladder, and keep what was measured in docs/ladder."""
    row, begun = ROWS[name], perf_counter()
    if row.run is not None:
        result = row.run(data, seed)
    else:
        assert row.load is not None
        recipe = row.load(data)
        before = rows.saved(name) if measure else None
        if not measure:
            train(recipe, steps or recipe.steps, seed, start, every, LADDER, console, fresh)
        seconds = perf_counter() - begun
        package = load_package(LADDER / recipe.name)
        with open_engines({name: package, **needed(package)}, RuntimeSettings(threads=2, precision="fp32")) as engines:
            golden = package.golden().input
            model = engines.models[recipe.name]
            parameters, operations = rows.size_of(package.networks[0])
            result = rows.Result(
                trained_on=row.trained_on,
                judged_on=row.judged_on,
                metrics=recipe.measure(engines),
                parameters=parameters,
                operations=operations,
                latency_ms=rows.time_of(lambda: model.engine.infer(golden)),
                steps=before.steps if before else steps or recipe.steps,
                seconds=before.seconds if before else seconds,
                seed=before.seed if before else seed,
            )
    rows.save(name, result)
    tell(console, {words: figure.value for words, figure in result.metrics.items()})


def needed(package: ModelPackage) -> Mapping[str, ModelPackage]:
    """Give the shipped models that a package is cropped to."""
    crop_to = getattr(package.input, "crop_to", None)
    return {crop_to: load_package(SHIPPED_MODELS / crop_to)} if crop_to else {}


def tell(console: Console, figures: Mapping[str, float]) -> None:
    """Print figures, one a line."""
    for words, value in figures.items():
        console.print(f"{words}: {value:.3f}")


def main() -> None:
    """Run the command."""
    typer.run(run)


if __name__ == "__main__":
    main()
