"""What the recipes share: the loop, the losses and the random numbers."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from build_engines.recipes.networks import Network
from engines.serving.engine_set import EngineSet

Batch = tuple[Tensor, Tensor]

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the number of axes: the order in memory in which convolutions on a CPU are fastest."""


class Recipe(Protocol):
    """One shipped model: its network, its data and how it is judged.

    Attributes
    ----------
    name
        Of the model, and of its folder.
    toml
        The text of its ``model.toml``; the recipe reads its own pre-processing from it, so training and serving
        cannot differ.
    card
        The text of its ``CARD.md``; ``{figures}`` is where its figures go. Empty where a recipe makes no package,
        but is only trained for its figures.
    steps
        Optimiser steps of a full training.
    learning_rate
        At the peak of the schedule.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def toml(self) -> str: ...  # noqa: D102
    @property
    def card(self) -> str: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    def network(self) -> Network:
        """Build the untrained network."""

    def batch(self, random: np.random.Generator) -> Batch:
        """Draw one augmented batch: input and target."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Judge one batch."""

    def validate(self, network: Network) -> Mapping[str, float]:
        """Judge the network on data that it was not trained on; each figure with the words that say what it is."""

    def measure(self, engines: EngineSet) -> Mapping[str, float]:
        """Judge the exported package as a node runs it: the same figures, and those that need the source's own grid."""

    def golden(self) -> NDArray[np.float32]:
        """Give a synthetic input tensor for ``golden.npz``; it holds nothing of anybody's image."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: finished steps and the mean loss since the last report."""

    step: int
    loss: float


def train(
    recipe: Recipe,
    steps: int,
    seed: int,
    start: Path | None,
    report: Callable[[Progress], None],
    checkpoint: Callable[[Network], None],
    every: int = 100,
) -> Network:
    """Train a recipe's network; the same seed gives the same weights on the same machine.

    Parameters
    ----------
    start
        Weights to begin with: every tensor of the same name and shape is taken over, the others are left as they are.
    report
        Called after every step.
    checkpoint
        Called every ``every`` steps with the averaged network in evaluation mode.

    Returns
    -------
    Network
        The exponential moving average of the weights, in evaluation mode.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = recipe.network()
    if start is not None:
        take_over(network, start)
    average = deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1, anneal_strategy="cos"
    )
    for step in range(1, steps + 1):
        network.train()
        image, target = recipe.batch(random)
        image = image.to(memory_format=CHANNELS_LAST[image.ndim])
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.logits(image)
        loss = recipe.loss(logits.float(), target)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        _follow(average, network, decay=min(0.99, step / (step + 10)))
        report(Progress(step=step, loss=float(loss.detach())))
        if step % every == 0 and step < steps:
            checkpoint(average)
    checkpoint(average)
    return average


def take_over(network: Network, start: Path) -> None:
    """Copy every tensor of the same name and shape from a saved state into a network."""
    state = network.state_dict()
    saved = torch.load(start, weights_only=True)
    state.update({name: value for name, value in saved.items() if name in state and state[name].shape == value.shape})
    network.load_state_dict(state)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of cross-entropy and soft Dice loss over the segments (background left out)."""
    probabilities = torch.softmax(logits, dim=1)
    truth = nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    space = (0, *range(2, logits.ndim))
    overlap = (probabilities * truth).sum(dim=space)[1:]
    total = (probabilities + truth).sum(dim=space)[1:]
    dice = (2 * overlap + 1) / (total + 1)
    return nn.functional.cross_entropy(logits, target) + (1 - dice).mean()


def _follow(average: Network, network: Network, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
