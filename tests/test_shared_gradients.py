"""Laws of gradients averaged in shared memory, by real processes."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from cnn.training import shared_gradients
from cnn.training.shared_gradients import Offer, SharedGradients, averaged

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only on Linux")

WORKERS, BUCKETS = 3, 60


def bucket(rank: int, number: int) -> Tensor:
    """A worker's gradients: buckets of many sizes, the largest of 5,000."""
    generator = torch.Generator().manual_seed(BUCKETS * rank + number)
    return torch.randn((number * 997) % 5000 + 1, generator=generator)


def trained(rank: int, shared: bool) -> dict[str, Tensor]:
    """The weights after three steps of DDP, with the hook or without."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    parallel = DistributedDataParallel(network)
    if shared:
        parallel.register_comm_hook(allocated(1000), averaged)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        parallel(torch.randn(4, 8) + rank).square().sum().backward()
        optimizer.step()
    return network.state_dict()


def allocated(elements: int) -> SharedGradients:
    gradients = SharedGradients.allocate(elements)
    assert gradients
    return gradients


def apart(rank: int, folder: Path) -> bool:
    """Whether memory is shared if the last worker sees another file in its place.

    So it is in containers that share an address but not their processes.
    """
    other = folder / f"{rank}.log"
    other.write_text("belongs to somebody else")
    find = shared_gradients.mapped

    def elsewhere(offer: Offer | None, elements: int) -> Tensor | None:
        assert offer
        return find((str(other), offer[1]), elements)

    with pytest.MonkeyPatch.context() as patch:
        if rank == WORKERS - 1:
            patch.setattr(shared_gradients, "mapped", elsewhere)
        found = SharedGradients.allocate(1000)
    assert other.read_text() == "belongs to somebody else"
    return found is not None


def refused(rank: int) -> bool:
    """Whether memory is shared if the first worker's system has none of this kind."""
    with pytest.MonkeyPatch.context() as patch:
        if rank == 0:
            patch.delattr(os, "memfd_create")
        return SharedGradients.allocate(1000) is not None


def descriptors() -> list[str]:
    """What this process has open."""
    here = Path("/proc/self/fd")
    return [os.readlink(here / name) for name in os.listdir(here) if (here / name).exists()]


def work(rank: int, folder: Path) -> None:
    """One worker; each is late at random times, so that a faster one could overwrite."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=WORKERS, rank=rank)
    gradients, chance, means = allocated(5000), random.Random(rank), []
    for number in range(BUCKETS):
        time.sleep(chance.choice((0, 0, 0.01)))
        mean = bucket(rank, number)
        gradients.average(mean)
        means.append(mean)
    weights = [trained(rank, shared) for shared in (True, False)]
    found = {
        "means": means,
        "weights": weights,
        "open": descriptors(),
        "shared": [apart(rank, folder), refused(rank)],
    }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of three real worker processes."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, args=(folder,), nprocs=WORKERS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def test_each_worker_gets_the_mean_of_all_in_every_bucket(workers: list[dict[str, Any]]) -> None:
    for number in range(BUCKETS):
        expected = torch.stack([bucket(rank, number) for rank in range(WORKERS)]).mean(dim=0)
        for found in workers:
            assert torch.allclose(found["means"][number], expected, atol=1e-6)


def test_workers_agree_bit_for_bit(workers: list[dict[str, Any]]) -> None:
    first, *others = workers
    for found in others:
        assert all(map(torch.equal, found["means"], first["means"]))
        shared, alone = found["weights"][0], first["weights"][0]
        assert all(torch.equal(shared[name], alone[name]) for name in alone)


def test_training_is_as_with_gradients_sent_over_the_network(
    workers: list[dict[str, Any]],
) -> None:
    for found in workers:
        shared, sent = found["weights"]
        assert all(torch.allclose(shared[name], sent[name], atol=1e-6) for name in sent)
        assert all(tensor.abs().sum() > 0 for tensor in sent.values())


def test_nothing_stays_open(workers: list[dict[str, Any]]) -> None:
    for found in workers:
        assert found["open"]
        assert [name for name in found["open"] if "gradients" in name] == []


def test_no_worker_shares_memory_that_one_of_them_cannot_find(
    workers: list[dict[str, Any]],
) -> None:
    assert [found["shared"] for found in workers] == [[False, False]] * WORKERS
