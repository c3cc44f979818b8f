"""Laws of the processes that Ray starts: they follow the environment's settings."""

import sys

import pytest
import ray


@ray.remote
def pages_cleared() -> int:
    """How many pages the system clears for 64 MiB of activations, once a worker is warm."""
    import resource

    import torch

    for _ in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux reads these variables")
def test_a_worker_reuses_the_memory_of_a_batch_for_the_next() -> None:
    assert ray.get(pages_cleared.remote()) < 1_000  # of 16,384
