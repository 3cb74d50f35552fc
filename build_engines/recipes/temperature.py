"""Temperature scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017), folded into the weights."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from build_engines.recipes.networks.classifier import Classifier

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5), 161))


def temperature(logits: Tensor, targets: NDArray[np.int64]) -> float:
    """Choose the temperature at which the mean probabilities of some networks tell most of the classes.

    Parameters
    ----------
    logits
        ``[network, case, class]``, of cases that the networks were not trained on.
    targets
        ``[case]``.
    """
    right = torch.from_numpy(targets)[:, None]

    def surprise(divisor: float) -> float:
        mean = (logits / divisor).softmax(dim=2).mean(dim=0)
        return -float(mean.gather(1, right).clamp(min=1e-9).log().mean())

    return float(min(TEMPERATURES, key=surprise))


def cool(networks: Sequence[Classifier], divisor: float) -> None:
    """Divide the logits by a temperature, in the last layer: what is exported needs no further step."""
    with torch.no_grad():
        for network in networks:
            network.linear.weight.div_(divisor)
            network.linear.bias.div_(divisor)
