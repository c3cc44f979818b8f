"""Gradients that the workers of one machine average in memory that they share."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

POSSIBLE = hasattr(os, "memfd_create")  # on Linux


@dataclass
class SharedGradients:
    """Memory in which workers leave their gradients for each other.

    Over TCP, as between machines, two workers exchange 15 MB in 11 ms of a step of 200; through
    memory in 5.

    slots: float32 `(2, workers, elements)`. Each worker writes its row, waits until all have
    written theirs, and reads them all. Buckets of gradients take the two halves by turns: whoever
    writes to a half again knows that everybody has written to the other since, and so has read
    this one.
    """

    slots: Tensor
    turn: int = 0

    @classmethod
    def allocate(cls, elements: int) -> "SharedGradients":
        """Memory for buckets of up to `elements` gradients; all workers call this together.

        It belongs to no file: a worker that is killed leaves nothing behind.
        """
        rank, workers = distributed.get_rank(), distributed.get_world_size()
        memory = os.memfd_create("gradients") if rank == 0 else None
        place = [f"/proc/{os.getpid()}/fd/{memory}"]
        distributed.broadcast_object_list(place)
        slots = torch.from_file(place[0], shared=True, size=2 * workers * elements)
        distributed.barrier()  # until all have opened it
        if memory is not None:
            os.close(memory)
        return cls(slots.view(2, workers, elements))

    def average(self, gradients: Tensor) -> None:
        """Replace float32 `(n,)` by the mean over all workers, the same bits in each of them."""
        written = self.slots[self.turn, :, : len(gradients)]
        self.turn = 1 - self.turn
        workers = len(written)
        torch.div(gradients, workers, out=written[distributed.get_rank()])
        distributed.barrier()
        torch.add(written[0], written[1], out=gradients)  # half the time of a sum over rows
        for others in written[2:]:
            gradients.add_(others)


def share(parallel: DistributedDataParallel) -> None:
    """Let the workers of `parallel`, all on the CPUs of this machine, average in shared memory."""
    elements = sum(parameter.numel() for parameter in parallel.parameters())
    parallel.register_comm_hook(SharedGradients.allocate(elements), averaged)


def averaged(gradients: SharedGradients, bucket: GradBucket) -> Future[Tensor]:
    """DDP's hook for one bucket, done when it returns."""
    gradients.average(bucket.buffer())
    done: Future[Tensor] = Future()
    done.set_result(bucket.buffer())
    return done
