"""An ensemble: recipes that are trained apart, and become one package whose outputs are averaged.

Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS 2017.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.training import Recipe


@dataclass(frozen=True)
class Ensemble:
    """What is trained for one package.

    Attributes
    ----------
    recipe
        Of the package: its texts, its golden input, and how it is judged.
    members
        What is trained, by seed: as many as ``network.files`` in the package's ``model.toml``.
    finish
        Called with the trained networks before they are exported, to calibrate them together.
    """

    recipe: Recipe
    members: Mapping[int, Recipe]
    finish: Callable[[Sequence[Network]], None]
