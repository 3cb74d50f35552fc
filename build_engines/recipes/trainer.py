"""A training as it is run: with a progress bar, kept in ``.train``, and gone on with where it was interrupted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress as Bar

from build_engines.recipes import training
from build_engines.recipes.folders import KEPT
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.packaging.ensemble import Ensemble
from build_engines.recipes.packaging.export import export, export_all

TOLD_EVERY = 20
"""Steps between two lines with the loss."""


def weights_of(name: str) -> Path:
    """Name the file that a network's weights are kept in."""
    return KEPT / f"{name}.pt"


def state_of(name: str) -> Path:
    """Name the file that an interrupted training is kept in."""
    return KEPT / f"{name}.state"


@dataclass(frozen=True)
class Trainer:
    """Trains recipes.

    Attributes
    ----------
    steps
        Optimiser steps; the recipe's own number if None.
    seed
        The same seed gives the same weights.
    start
        Saved weights to begin with.
    every
        Steps between two checkpoints.
    fresh
        Begin anew, even where an interrupted training is there.
    """

    steps: int | None = None
    seed: int = 1
    start: Path | None = None
    every: int = 100
    fresh: bool = False
    console: Console = field(default_factory=Console)

    def package(self, recipe: training.Recipe, out: Path) -> None:
        """Train a recipe; at each checkpoint, validate it and write its package into ``out``."""

        def checkpoint(network: Network) -> None:
            self.tell(recipe.validate(network))
            export(recipe, network, out / recipe.name)

        self.train(recipe, self.steps or recipe.steps, self.seed, checkpoint)

    def ensemble(self, ensemble: Ensemble, out: Path) -> None:
        """Train each member whose finished weights are not kept, and write the package of all."""
        networks = []
        for seed, member in ensemble.members.items():
            weights = weights_of(member.name)
            if self.fresh or state_of(member.name).exists() or not weights.exists():
                self.train(member, self.steps or member.steps, seed, self._validation_of(member))
            else:
                self.console.print(f"{weights.name} is trained; --fresh begins anew")
            network = member.network()
            network.load_state_dict(torch.load(weights, weights_only=True))
            networks.append(network.eval())
        ensemble.finish(networks)
        export_all(ensemble.recipe, networks, out / ensemble.recipe.name)

    def train(
        self,
        recipe: training.Trainable,
        steps: int,
        seed: int,
        checkpoint: Callable[[Network], None] = lambda _: None,
    ) -> Network:
        """Train with a progress bar; keep the weights and the training at each checkpoint. See `training.train`."""
        weights, state = weights_of(recipe.name), state_of(recipe.name)
        KEPT.mkdir(exist_ok=True)
        if self.fresh:
            state.unlink(missing_ok=True)
        elif state.exists():
            self.console.print(f"going on with {state.name}; --fresh begins anew")
        with Bar(console=self.console) as bar:
            task = bar.add_task(recipe.name, total=steps)

            def report(progress: training.Progress) -> None:
                bar.update(task, completed=progress.step, description=f"{recipe.name}, loss {progress.loss:.3f}")
                if progress.step % TOLD_EVERY == 0:
                    self.console.print(f"step {progress.step}: loss {progress.loss:.3f}")

            def keep(network: Network) -> None:
                checkpoint(network)
                torch.save(network.state_dict(), weights)

            return training.train(recipe, steps, seed, self.start, report, keep, self.every, state)

    def _validation_of(self, recipe: training.Recipe) -> Callable[[Network], None]:
        return lambda network: self.tell(recipe.validate(network))

    def tell(self, figures: Mapping[str, float]) -> None:
        """Print figures, one a line."""
        for name, value in figures.items():
            self.console.print(f"{name}: {value:.3f}")
