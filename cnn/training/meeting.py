"""A point at which the workers of one machine wait for each other."""

import os
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from typing import Any, Self

import torch
from torch import distributed

from cnn.files.offered import Offered


@dataclass(frozen=True)
class Meeting:
    """Pipes between workers; none returns from a call before all have called.

    A message wakes the thread that waits for it, and no other. A barrier over TCP wakes three
    threads in turn, and each needs a core while all cores train: 0.6 ms of a step instead of 0.02.

    A dissemination barrier (Hensgen, Finkel and Manber 1988, "Two algorithms for barrier
    synchronization"): in round k a worker tells the one 2^k further that it has come, and so have
    all whom it has heard of.

    rounds: for each round, the pipe to write to, and the one to read from.
    """

    rounds: tuple[tuple[FileIO, FileIO], ...]

    @classmethod
    def arrange(cls) -> Self | None:
        """Pipes between all workers, who call this together; None, for all, if some find none."""
        rank, workers = distributed.get_rank(), distributed.get_world_size()
        steps = [2**k for k in range((workers - 1).bit_length())]
        own = [os.pipe() for _ in steps]
        offers: list[Any] = [None] * workers
        distributed.all_gather_object(offers, tuple(offer(write) for _, write in own))
        theirs = [opened(offers[(rank + step) % workers][k]) for k, step in enumerate(steps)]
        agreed = all_of_them(None not in theirs)
        for _, write in own:
            os.close(write)  # so that a worker that has ended is noticed
        reads = [FileIO(read) for read, _ in own]
        writes = [write for write in theirs if write]
        return cls(tuple(zip(writes, reads, strict=True))) if agreed else None

    def __call__(self) -> None:
        """Wait for the others; raises OSError if one of them has ended."""
        for write, read in self.rounds:
            write.write(b".")
            if not read.read(1):
                raise BrokenPipeError("another worker has ended")


def offer(descriptor: int) -> Offered | None:
    """An offer of an open file, or None on other systems than Linux."""
    with suppress(OSError):
        return Offered.of(descriptor)
    return None


def opened(pipe: Offered | None) -> FileIO | None:
    """Another worker's pipe, to write to; None if this worker does not find it."""
    with suppress(OSError):
        if pipe and pipe.found():
            return FileIO(pipe.place, "w")
    return None


def all_of_them(mine: bool) -> bool:
    """Whether this is true of every worker."""
    everybody = torch.tensor(int(mine))
    distributed.all_reduce(everybody, distributed.ReduceOp.MIN)
    return bool(everybody)
