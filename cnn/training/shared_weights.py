"""Weights that the workers of one machine keep, and update, in memory that they share."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from cnn.files.offered import Offered
from cnn.training.descent import Descent
from cnn.training.meeting import Meeting, all_of_them

# Keeps a norm of 0 from dividing by 0; torch's own clipping adds the same.
TINY = 1e-6


@dataclass(frozen=True)
class SharedWeights(Descent):
    """The descent of workers that share memory: each updates some of the weights, for all.

    Two workers take 6 ms for 15 MB of weights; if each updated all of them, with gradients sent
    over TCP, they would take 24. Sixteen use a sixth of the CPU time. Rajbhandari et al. 2020,
    "ZeRO", divide the optimizer's work and its state in the same way.

    weights: the trained parameters; they lie in the shared memory.
    owners: the rank of the worker that updates each of `weights`.
    rank: of this worker.
    places: where this worker leaves the gradient of each of `weights` for the others.
    gradients: float32 `(workers, n)`, of the n elements that this worker updates, from each worker.
    norms: float32 `(workers,)`: of the mean gradients that each worker has.
    meet: waits for all workers.
    """

    weights: Sequence[nn.Parameter]
    owners: Sequence[int]
    rank: int
    places: Sequence[Tensor]
    gradients: Tensor
    norms: Tensor
    meet: Meeting

    @classmethod
    def of(cls, network: nn.Module) -> Self | None:
        """Move the weights of `network` into shared memory; all workers call this together.

        Rank 0's are those of all then. None, for all of them, if there is no such memory, or one
        of them does not find it: in containers, workers at one address may not see each other.
        """
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        rank, workers = distributed.get_rank(), distributed.get_world_size()
        elements = sum(weight.numel() for weight in weights)
        memory = shared((workers + 1) * elements + workers)
        meet = None if memory is None else Meeting.arrange()
        if memory is None or meet is None:
            return None
        norms, rows = memory[:workers], memory[workers:].view(workers + 1, elements)
        for weight, value in zip(weights, views(rows[-1], weights), strict=True):
            if rank == 0:
                value.copy_(weight.data)
            weight.data = value
        meet()
        owners = owned(weights, workers)
        start = sum(w.numel() for w, owner in zip(weights, owners, strict=True) if owner < rank)
        count = sum(w.numel() for w, owner in zip(weights, owners, strict=True) if owner == rank)
        gradients = rows[:workers, start : start + count]
        return cls(weights, owners, rank, views(rows[rank], weights), gradients, norms, meet)

    def step(self, network: nn.Module, optimizer: Optimizer, clip: float) -> None:
        """Update this worker's weights, and wait until all are updated."""
        for weight, place in zip(self.weights, self.places, strict=True):
            assert weight.grad is not None
            torch.div(weight.grad, len(self.gradients), out=place)
        self.meet()
        mean = self.mean()
        self.norms[self.rank] = torch.linalg.vector_norm(mean)
        self.meet()
        norm = torch.linalg.vector_norm(self.norms)
        mean.mul_(torch.clamp(clip / (norm + TINY), max=1.0))
        for weight, place, owner in zip(self.weights, self.places, self.owners, strict=True):
            weight.grad = place if owner == self.rank else None  # without one, it stays as it is
        optimizer.step()
        self.meet()

    def mean(self) -> Tensor:
        """The mean gradients of this worker's weights: the sum of what was divided before."""
        mean = self.gradients[self.rank]
        for rank, others in enumerate(self.gradients):
            if rank != self.rank:
                mean.add_(others)
        return mean

    def gather(self, optimizer: Optimizer) -> None:
        """Each worker has the optimizer's state of its own weights only: send them to rank 0."""
        own = [
            optimizer.state[weight] if owner == self.rank else None
            for weight, owner in zip(self.weights, self.owners, strict=True)
        ]
        found: list[Any] | None = [None] * len(self.norms) if self.rank == 0 else None
        distributed.gather_object(own, found)
        for states in (found or ())[1:]:
            for weight, state in zip(self.weights, states, strict=True):
                if state is not None:
                    optimizer.state[weight] = state


def views(row: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor]:
    """The part of `(elements,)` that belongs to each of the weights, in its shape.

    And in its layout: fused optimizers pair elements as they lie in memory.
    """
    parts = torch.split(row, [weight.numel() for weight in weights])
    pairs = zip(parts, weights, strict=True)
    return [part.as_strided(weight.shape, weight.stride()) for part, weight in pairs]


def owned(weights: Sequence[nn.Parameter], workers: int) -> list[int]:
    """For each of the weights, in order, the rank that updates it: about as much for each rank."""
    ends = list(accumulate(weight.numel() for weight in weights))
    middles = [end - weight.numel() / 2 for end, weight in zip(ends, weights, strict=True)]
    return [int(middle / ends[-1] * workers) for middle in middles]


def shared(elements: int) -> Tensor | None:
    """New memory of all workers, float32 `(elements,)`; None, for all, if one does not find it."""
    with memory() if distributed.get_rank() == 0 else nullcontext() as own:
        offers = [own]
        distributed.broadcast_object_list(offers)
        found = mapped(offers[0], elements)
        return found if all_of_them(found is not None) else None


@contextmanager
def memory() -> Iterator[Offered | None]:
    """New memory, open until the `with` block ends; None if the system has none of this kind.

    It belongs to no file: a worker that is killed leaves nothing behind.
    """
    try:
        descriptor = os.memfd_create(f"weights-{secrets.token_hex(8)}")
    except (AttributeError, OSError):  # not on Linux, or not allowed
        yield None
        return
    try:
        yield Offered.of(descriptor)
    finally:
        os.close(descriptor)


def mapped(offered: Offered | None, elements: int) -> Tensor | None:
    """The memory as float32 `(elements,)`; None if it is not found."""
    if offered is None or not offered.found():
        return None
    try:
        return torch.from_file(offered.place, shared=True, size=elements)
    except RuntimeError:
        return None
