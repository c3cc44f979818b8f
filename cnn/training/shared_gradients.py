"""Gradients that the workers of one machine average in memory that they share."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, distributed, nn

Offer = tuple[str, str]
"""Where the memory is found on its machine, and its unique name there."""


@dataclass
class SharedGradients:
    """Memory in which the gradients of all workers lie, and are averaged where they lie.

    rows: float32 `(workers, elements)`. Each worker fills its own row, waits until all are full,
    and adds up an equal part of all rows. When all parts are done, every row is the mean.
    awaited: the weights whose gradients are still to come in this step.
    """

    rows: Tensor
    awaited: set[nn.Parameter] = field(default_factory=set)

    @classmethod
    def allocate(cls, elements: int) -> "SharedGradients | None":
        """Memory for `elements` gradients of each worker; all workers call this together.

        None, for all of them, if it cannot be had, or one of them does not find it: in containers,
        workers at one address may not see each other.
        """
        rank, workers = distributed.get_rank(), distributed.get_world_size()
        with memory() if rank == 0 else nullcontext() as own:
            offers = [own]
            distributed.broadcast_object_list(offers)
            rows = mapped(offers[0], workers * elements)
            everybody = torch.tensor(int(rows is not None))
            distributed.all_reduce(everybody, distributed.ReduceOp.MIN)
        return cls(rows.view(workers, elements)) if everybody and rows is not None else None

    def follow(self, weights: list[nn.Parameter]) -> None:
        """From now on, a backward pass through all `weights` ends with the means as gradients."""
        lengths = [each.numel() for each in weights]
        places = torch.split(self.rows[distributed.get_rank()], lengths)
        for each, place in zip(weights, places, strict=True):
            # In the layout of the weights: fused optimizers pair elements as they lie in memory.
            view = place.as_strided(each.shape, each.stride())
            hook = partial(self.move, weights, view)
            each.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def move(self, weights: list[nn.Parameter], view: Tensor, arrived: nn.Parameter) -> None:
        """Move the gradient of one of `weights` to its place; after the last, average all."""
        self.awaited = self.awaited or set(weights)
        self.awaited.remove(arrived)  # KeyError if another had no gradient in the last step
        assert arrived.grad is not None
        torch.div(arrived.grad, len(self.rows), out=view)
        arrived.grad = view
        if not self.awaited:
            self.add_up()

    def add_up(self) -> None:
        """Replace each row by the sum of all, the same bits in each of them."""
        mine = self.rows.tensor_split(len(self.rows), dim=1)[distributed.get_rank()]
        distributed.barrier()
        total, *others = mine
        for other in others:
            total.add_(other)
        for other in others:
            other.copy_(total)
        distributed.barrier()


def share_gradients(network: nn.Module) -> bool:
    """Average the gradients of `network` in shared memory from now on; False if there is none.

    All workers call this together. Each of the trained weights takes part in every backward pass.
    """
    weights = [each for each in network.parameters() if each.requires_grad]
    gradients = SharedGradients.allocate(sum(each.numel() for each in weights))
    if gradients:
        gradients.follow(weights)
    return gradients is not None


@contextmanager
def memory() -> Iterator[Offer | None]:
    """New memory, open until the `with` block ends; None if the system has none of this kind.

    It belongs to no file: a worker that is killed leaves nothing behind.
    """
    try:
        descriptor = os.memfd_create(f"gradients-{secrets.token_hex(8)}")
    except (AttributeError, OSError):  # not on Linux, or not allowed
        yield None
        return
    try:
        place = f"/proc/{os.getpid()}/fd/{descriptor}"
        yield place, os.readlink(place)
    finally:
        os.close(descriptor)


def mapped(offer: Offer | None, elements: int) -> Tensor | None:
    """The memory as float32 `(elements,)`; None if it is not found."""
    if offer is None:
        return None
    place, name = offer
    try:
        # In another container the same place may be another process's file: that stays untouched.
        if os.readlink(place) != name:
            return None
        return torch.from_file(place, shared=True, size=elements)
    except (OSError, RuntimeError):
        return None
