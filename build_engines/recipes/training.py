"""What the recipes share: what can be trained, what a recipe is, and the loop that trains."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes.networks.blocks import Network
from engines.serving.engine_set import EngineSet
from evaluation.estimate import Estimate

Batch = tuple[Tensor, Any]
"""Input, and the target: whatever the recipe's loss wants."""

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the number of axes: the order in memory in which convolutions on a CPU are fastest."""


class Trainable(Protocol):
    """What can be trained: a network, its data and its loss.

    Attributes
    ----------
    name
        Of the model.
    learning_rate
        At the peak of the schedule.
    weight_decay
        Of AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019).
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102

    def network(self) -> Network:
        """Build the untrained network."""

    def batch(self, random: np.random.Generator) -> Batch:
        """Draw one augmented batch: input and target."""

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """Judge one batch: what ``Network.logits`` gave, in float32, against the target."""


class Recipe(Trainable, Protocol):
    """One model that becomes a package: how it is trained, described and judged.

    Attributes
    ----------
    toml
        The text of its ``model.toml``; the recipe reads its own pre-processing from it, so training and serving
        cannot differ.
    card
        The text of its ``CARD.md``, with two marks where its figures go.
    steps
        Optimiser steps of a full training.
    """

    @property
    def toml(self) -> str: ...  # noqa: D102
    @property
    def card(self) -> str: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102

    def validate(self, network: Network) -> Mapping[str, float]:
        """Judge the network on data that it was not trained on; each figure by its name."""

    def measure(self, engines: EngineSet) -> Mapping[str, Estimate]:
        """Judge the exported package as a node runs it, with intervals; each figure by its name."""

    def golden(self) -> NDArray[np.float32]:
        """Give a synthetic input tensor for ``golden.npz``; it holds nothing of anybody's image."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: finished steps and the loss of the last."""

    step: int
    loss: float


def train(
    recipe: Trainable,
    steps: int,
    seed: int,
    start: Path | None,
    report: Callable[[Progress], None],
    checkpoint: Callable[[Network], None],
    every: int = 100,
    state: Path | None = None,
) -> Network:
    """Train a recipe's network; the same seed gives the same weights on the same machine and number of threads.

    Parameters
    ----------
    start
        Weights to begin with: every tensor of the same name and shape is taken over, the others are left as they are.
    report
        Called after every step.
    checkpoint
        Called every ``every`` steps with the averaged network in evaluation mode.
    state
        Where the training is kept at each checkpoint, to go on from after an interruption as if there had been none. A
        file that is there is gone on from; it is removed at the end.

    Returns
    -------
    Network
        The exponential moving average of the weights, in evaluation mode.

    Raises
    ------
    ValueError
        ``state`` is that of another training: of other steps, another seed or another network.
    FloatingPointError
        The training has diverged.
    """
    torch.manual_seed(seed)
    run = _Run(recipe, steps, seed, start)
    if state is not None and state.exists():
        run.load(state)
    while run.step < steps:
        report(Progress(step=run.step + 1, loss=run.advance()))
        if run.step % every == 0 and run.step < steps:
            checkpoint(run.average)
            if state is not None:
                run.save(state)
    checkpoint(run.average)
    if state is not None:
        state.unlink(missing_ok=True)
    return run.average


class _Run:
    """A training between two of its steps."""

    def __init__(self, recipe: Trainable, steps: int, seed: int, start: Path | None) -> None:
        self.recipe, self.key, self.step = recipe, {"name": recipe.name, "steps": steps, "seed": seed}, 0
        self.random = np.random.default_rng(seed)
        self.network = recipe.network()
        if start is not None:
            take_over(self.network, start)
        self.average = deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1, anneal_strategy="cos"
        )

    def advance(self) -> float:
        """Take one step and give its loss."""
        self.step += 1
        self.network.train()
        image, target = self.recipe.batch(self.random)
        image = image.to(memory_format=CHANNELS_LAST[image.ndim])
        with torch.autocast("cpu", torch.bfloat16):
            outputs = self.network.logits(image)
        precise = tuple(each.float() for each in outputs) if isinstance(outputs, tuple) else outputs.float()
        loss = self.recipe.loss(precise, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{self.recipe.name}: the loss is {value} at step {self.step}; lower the recipe's learning_rate"
            )
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        if torch.isfinite(norm):  # bfloat16 overflows at times; such a step is left out (Micikevicius et al., 2018)
            self.optimiser.step()
        self.schedule.step()
        _follow(self.average, self.network, decay=min(0.99, self.step / (self.step + 10)))
        return value

    @property
    def _parts(self) -> Mapping[str, Any]:
        return {
            "network": self.network,
            "average": self.average,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }

    def save(self, file: Path) -> None:
        """Keep everything that the next step depends on; a crash leaves the old file or the new one."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        random = {"numpy": self.random.bit_generator.state, "torch": torch.get_rng_state()}
        partial = file.with_suffix(".part")
        torch.save({"key": self.key, "step": self.step, "parts": parts, "random": random}, partial)
        partial.replace(file)

    def load(self, file: Path) -> None:
        kept = torch.load(file, weights_only=True)
        if kept["key"] != self.key:
            raise ValueError(f"{file} is of another training, {kept['key']}; start afresh with --fresh")
        for name, part in self._parts.items():
            part.load_state_dict(kept["parts"][name])
        self.step = kept["step"]
        self.random.bit_generator.state = kept["random"]["numpy"]
        torch.set_rng_state(kept["random"]["torch"])


def take_over(network: Network, start: Path) -> None:
    """Copy every tensor of the same name and shape from a saved state into a network."""
    state = network.state_dict()
    saved = torch.load(start, weights_only=True)
    state.update({name: value for name, value in saved.items() if name in state and state[name].shape == value.shape})
    network.load_state_dict(state)


def _follow(average: Network, network: Network, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
