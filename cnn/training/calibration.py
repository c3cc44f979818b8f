"""Calibration: the temperature at which a network's confidence says how often it is right.

Guo et al., "On Calibration of Modern Neural Networks" (ICML, 2017): logits are divided by one
number before the softmax, chosen on validation images. No answer changes, only its confidence.
Label smoothing and CutMix alone leave tiny20's confidence 11 points below its accuracy. Found
without mirror images, it suits the mean with them as well: there it is the same.
"""

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURES = tuple(2 ** (step / 8) for step in range(-16, 17))  # 1/4 to 4


def zero(device: torch.device) -> Tensor:
    """The sums of `losses` over no images."""
    return torch.zeros(2, len(TEMPERATURES), dtype=torch.float64, device=device)


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropies at each of TEMPERATURES, summed over images: float64 `(2, 33)`.

    `logits` are float32 `(B, classes)`. The first row is that of the labels, the second that of
    all classes alike. Sums of batches and of workers add up.
    """
    found = [surprise(logits / temperature, labels) for temperature in TEMPERATURES]
    return torch.stack(found, dim=1).double()


def surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """The two sums of `losses` at one temperature, `(2,)`."""
    logarithms = logits.log_softmax(dim=1)
    of_labels = functional.nll_loss(logarithms, labels, reduction="sum")
    return torch.stack([of_labels, -logarithms.mean(dim=1).sum()])


def best_temperature(sums: Tensor, images: int) -> float:
    """The one of TEMPERATURES with the smallest cross-entropy, given the sums of `losses`.

    As if every label were wrong with a probability of 1 / (images + 2), so that a few images, all
    recognised, do not make the network certain (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, smooths his targets so).
    """
    wrong = 1 / (images + 2)
    own, alike = sums
    return TEMPERATURES[int(((1 - wrong) * own + wrong * alike).argmin())]
