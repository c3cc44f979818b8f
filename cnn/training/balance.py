"""Classes of very different sizes, balanced in the loss or in the sampling."""

import numpy as np
import torch
from torch import Tensor


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """A weight per class, float32 `(classes,)`: higher for rare ones, 1 on average over images."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return (len(labels) / (classes * counts)).float()


def balanced_draws(labels: np.ndarray) -> np.ndarray:
    """A probability for each row, float64, that makes every class equally likely."""
    weights = 1 / np.bincount(labels)[labels]
    draws: np.ndarray = weights / weights.sum()
    return draws
