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
from cnn.training.shared_gradients import Offer, SharedGradients, share_gradients

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only on Linux")

WORKERS, STEPS = 3, 60


def gradient(rank: int, step: int) -> Tensor:
    """A worker's gradient of 5,000 weights."""
    return torch.randn(5000, generator=torch.Generator().manual_seed(STEPS * rank + step))


def means(rank: int) -> list[Tensor]:
    """What each step leaves as the gradient; workers are late at random times.

    A faster one could then overwrite what a slower one has not read.
    """
    weights, chance, found = nn.Linear(5000, 1, bias=False), random.Random(rank), []
    assert share_gradients(weights)
    for step in range(STEPS):
        time.sleep(chance.choice((0, 0, 0.01)))
        weights.zero_grad()
        weights(gradient(rank, step)).sum().backward()
        assert weights.weight.grad is not None
        found.append(weights.weight.grad[0].clone())
    return found


def network() -> nn.Module:
    """With channels-last kernels, frozen weights, and fewer biases than workers."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
    linear.bias.requires_grad = False
    layers = convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def trained(rank: int, shared: bool) -> dict[str, Tensor]:
    """The weights after three steps, with gradients in shared memory or sent by DDP."""
    own = network()
    parallel = own if shared else DistributedDataParallel(own)
    assert not shared or share_gradients(own)
    optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, fused=True)
    draws = torch.Generator().manual_seed(rank)
    for _ in range(3):
        optimizer.zero_grad()
        parallel(torch.randn(4, 3, 8, 8, generator=draws)).square().sum().backward()
        optimizer.step()
    return own.state_dict()


def left_out() -> str:
    """What happens in the step after one in which a weight had no gradient."""
    parts = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    assert share_gradients(parts)
    parts[0](torch.ones(2)).sum().backward()
    parts.zero_grad()
    try:
        parts[0](torch.ones(2)).sum().backward()
    except KeyError:
        return "refused"
    return "averaged"


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
    """One worker."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=WORKERS, rank=rank)
    found = {
        "means": means(rank),
        "weights": [trained(rank, shared) for shared in (True, False)],
        "left out": left_out(),
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


def test_each_worker_gets_the_mean_of_all_in_every_step(workers: list[dict[str, Any]]) -> None:
    for step in range(STEPS):
        expected = torch.stack([gradient(rank, step) for rank in range(WORKERS)]).mean(dim=0)
        for found in workers:
            assert torch.allclose(found["means"][step], expected, atol=1e-6)


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
        new = network().state_dict()
        assert all(torch.allclose(shared[name], sent[name], atol=1e-4) for name in sent)
        assert [name for name in sent if torch.equal(sent[name], new[name])] == ["4.bias"]


def test_a_weight_without_a_gradient_is_not_averaged_silently(
    workers: list[dict[str, Any]],
) -> None:
    assert [found["left out"] for found in workers] == ["refused"] * WORKERS


def test_nothing_stays_open(workers: list[dict[str, Any]]) -> None:
    for found in workers:
        assert found["open"]
        assert [name for name in found["open"] if "gradients" in name] == []


def test_no_worker_shares_memory_that_one_of_them_cannot_find(
    workers: list[dict[str, Any]],
) -> None:
    assert [found["shared"] for found in workers] == [[False, False]] * WORKERS
