"""``wetread-train``: train one of the shipped models and write its package."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress as Bar

from build_engines.recipes import ct_lung, cxr_lung, cxr_pneumonia, training
from build_engines.recipes.export import export, write_card
from build_engines.recipes.networks import Network
from engines.packages.package import load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines

ROOT = Path(__file__).resolve().parents[2]
RECIPES: Mapping[str, Callable[[Path], training.Recipe]] = {
    ct_lung.NAME: ct_lung.load,
    cxr_lung.NAME: cxr_lung.load,
    cxr_pneumonia.NAME: cxr_pneumonia.load,
    cxr_pneumonia.HELD_OUT_NAME: cxr_pneumonia.load_held_out,
}


def run(
    name: Annotated[str, typer.Argument(help=f"The model: {', '.join(RECIPES)}.")],
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
    every: Annotated[int, typer.Option(help="Validate and write the package every so many steps.")] = 100,
    measure: Annotated[bool, typer.Option(help="Train nothing: measure the package and write its card.")] = False,
) -> None:
    """Train one of the shipped models and write its package; the weights for --start go to .train/NAME.pt."""
    if name not in RECIPES:
        raise typer.BadParameter(f"{name} is none of {', '.join(RECIPES)}")
    torch.set_num_threads(threads)
    recipe = RECIPES[name](data)
    console = Console()
    if not measure:
        train(recipe, steps or recipe.steps, seed, start, every, out, console)
    if recipe.card:
        with open_engines(load_packages(out), RuntimeSettings(threads=threads)) as engines:
            figures = recipe.measure(engines)
        tell(console, figures)
        write_card(recipe, out / name, figures)


def train(
    recipe: training.Recipe, steps: int, seed: int, start: Path | None, every: int, out: Path, console: Console
) -> None:
    """Train with a progress bar, and keep the weights and the package at each checkpoint."""
    saved = ROOT / ".train" / f"{recipe.name}.pt"
    saved.parent.mkdir(exist_ok=True)
    with Bar(console=console) as bar:
        task = bar.add_task(recipe.name, total=steps)

        def report(progress: training.Progress) -> None:
            bar.update(task, completed=progress.step, description=f"{recipe.name}, loss {progress.loss:.3f}")
            if progress.step % 20 == 0:
                console.print(f"step {progress.step}: loss {progress.loss:.3f}")

        def checkpoint(network: Network) -> None:
            figures = recipe.validate(network)
            tell(console, figures)
            torch.save(network.state_dict(), saved)
            if recipe.card:
                export(recipe, network, out / recipe.name, figures)

        training.train(recipe, steps, seed, start, report, checkpoint, every)


def tell(console: Console, figures: Mapping[str, float]) -> None:
    """Print figures, one a line."""
    for words, value in figures.items():
        console.print(f"{words}: {value:.3f}")


def main() -> None:
    """Run the command."""
    typer.run(run)


if __name__ == "__main__":
    main()
