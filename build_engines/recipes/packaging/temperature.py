"""Probabilities that mean something: for classes that are equally frequent, and as sure as they are right.

Both are folded into the weights of the last layer. Saerens et al., Adjusting the Outputs of a Classifier to New a
Priori Probabilities, Neural Computation 14, 2002; Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes.networks.classifier import Classifier

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5), 161))


def temperature(logits: Tensor, targets: NDArray[np.int64]) -> float:
    """Choose the temperature at which the mean probabilities of some networks tell most of the classes.

    Every class counts the same, however many cases it has.

    Parameters
    ----------
    logits
        ``[network, case, class]``, of cases that the networks were not trained on.
    targets
        ``[case]``.
    """
    right = torch.from_numpy(targets)[:, None]
    weights = torch.from_numpy(1 / np.bincount(targets)[targets])

    def surprise(divisor: float) -> float:
        mean = (logits / divisor).softmax(dim=2).mean(dim=0)
        return -float((weights * mean.gather(1, right)[:, 0].clamp(min=1e-9).log()).sum())

    return float(min(TEMPERATURES, key=surprise))


def even(networks: Sequence[Classifier], shares: Sequence[float]) -> None:
    """Make networks answer as if classes were equally frequent, that had these shares of the training."""
    with torch.no_grad():
        for network in networks:
            network.linear.bias.sub_(torch.tensor(shares).log())


def cool(networks: Sequence[Classifier], divisor: float) -> None:
    """Divide the logits by a temperature, in the last layer: what is exported needs no further step."""
    with torch.no_grad():
        for network in networks:
            network.linear.weight.div_(divisor)
            network.linear.bias.div_(divisor)
