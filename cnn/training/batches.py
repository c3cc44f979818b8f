"""Batches of a split in memory, and the order of the rows in each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cnn.augment import draw, warp
from cnn.config import Augmentation
from cnn.machine import images_at_once
from cnn.training.balance import balanced_draws
from cnn.training.seeds import Draw, seed_of, sequence

# The network's input and its target: images uint8 (B, 3, H, W) and labels int64 (B,).
Batch = tuple[Tensor, Tensor]

EVALUATION_BATCH = 256  # up to 128 x 128 pixels; batches of larger images have fewer


class Batches(Protocol):
    """A source of batches, in memory or streamed: a streamed one may not be ready yet."""

    steps: int
    streamed: bool

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch: always exactly `steps` of them."""


@dataclass(frozen=True)
class Share:
    """The rank of this worker, and the number of workers."""

    rank: int = 0
    workers: int = 1


ALONE = Share()


def training_order(rows: int, draws: np.ndarray | None, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch in random order, int64.

    With `draws` (a probability per row), rows are drawn with replacement instead; with
    `balanced_draws`, rare classes come as often as common ones.
    """
    rng = np.random.default_rng(sequence(Draw.ORDER, seed, epoch))
    if draws is None:
        return rng.permutation(rows)
    return rng.choice(rows, size=rows, p=draws)


class TrainingBatches:
    """One worker's share of shuffled, augmented batches from images in memory.

    Every worker holds the split and takes every `workers`-th row of each global batch, so the
    global batches are the same for any number of workers. Rows that fill no batch are left out of
    the epoch: batch norm fails on a batch of one, and all ranks must take equally many steps.
    """

    streamed = False

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        share: Share = Share(),
        balanced: bool = False,
    ) -> None:
        self.images, self.labels = images, labels
        self.augmentation, self.seed, self.share = augmentation, seed, share
        self.batch_size = min(batch_size, len(labels) // share.workers * share.workers)
        self.steps = len(labels) // self.batch_size
        self.draws = balanced_draws(labels.numpy(force=True)) if balanced else None

    def epoch(self, number: int) -> Iterator[Batch]:
        # All draws of the epoch at once: a GPU would have to wait for a draw per batch.
        device, rows = self.images.device, self.rows(number)
        seed = seed_of(Draw.WARP, self.seed, number, self.share.rank)
        generator = torch.Generator().manual_seed(seed)
        warps = draw(rows.numel(), self.augmentation, generator).view(*rows.shape, 2, 3)
        for chosen, matrices in zip(rows.to(device), warps.to(device), strict=True):
            yield warp(self.images[chosen], matrices), self.labels[chosen]

    def rows(self, epoch: int) -> Tensor:
        """The rows of each of this worker's batches, int64 `(steps, B)`."""
        order = training_order(len(self.labels), self.draws, self.seed, epoch)
        whole = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)
        return torch.from_numpy(whole[:, self.share.rank :: self.share.workers].copy())


class EvaluationBatches:
    """One worker's share of a split in memory, each image once over all workers, unchanged."""

    streamed = False

    def __init__(self, images: Tensor, labels: Tensor, share: Share = Share()) -> None:
        self.images = images[share.rank :: share.workers]
        self.labels = labels[share.rank :: share.workers]
        self.batch_size = images_at_once(images.shape[-1], EVALUATION_BATCH)
        self.steps = -(-len(self.labels) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        for start in range(0, len(self.labels), self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield self.images[batch], self.labels[batch]
