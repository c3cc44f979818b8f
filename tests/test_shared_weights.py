"""Laws of weights in shared memory, and of the meetings of those who share it: real processes."""

import gc
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from cnn.files.offered import Offered
from cnn.training import meeting, shared_weights
from cnn.training.descent import Descent
from cnn.training.meeting import Meeting
from cnn.training.shared_weights import SharedWeights, owned

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only on Linux")

WORKERS, MEETINGS, STEPS = 3, 200, 6
CLIP = 0.5

OPTIMIZERS = {
    "adamw": lambda weights: AdamW(weights, lr=0.01, fused=True),
    "sgd": lambda weights: SGD(weights, lr=0.05, momentum=0.9, nesterov=True, fused=True),
    "rmsprop": lambda weights: RMSprop(weights, lr=0.01),
}


def network() -> nn.Module:
    """With channels-last kernels, and weights that are not trained."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
    linear.bias.requires_grad = False
    layers = convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def shared(own: nn.Module) -> tuple[nn.Module, Descent]:
    """Its weights in shared memory, those of rank 0 on every worker."""
    if distributed.get_rank() > 0:
        nn.init.zeros_(own.get_parameter("0.weight"))
    sharing = SharedWeights.of(own)
    assert sharing
    return own, sharing


def sent(own: nn.Module) -> tuple[nn.Module, Descent]:
    """Its gradients averaged by DDP."""
    return DistributedDataParallel(own), Descent()


class Training:
    """A network in training, at most a few steps; workers are late at random times.

    A faster one could then overwrite what a slower one has not read.
    """

    def __init__(self, optimizer: str, share: Any) -> None:
        self.network = network()
        self.parallel, self.descent = share(self.network)
        self.optimizer: Optimizer = OPTIMIZERS[optimizer](self.network.parameters())

    def steps(self, numbers: range) -> None:
        rank, chance = distributed.get_rank(), random.Random(distributed.get_rank())
        for number in numbers:
            draws = torch.Generator().manual_seed(STEPS * rank + number)
            time.sleep(chance.choice((0, 0, 0.01)))
            self.optimizer.zero_grad(set_to_none=True)
            images = torch.randn(4, 3, 8, 8, generator=draws)
            self.parallel(images).square().sum().backward()
            self.descent.step(self.network, self.optimizer, CLIP)

    def found(self) -> dict[str, Any]:
        """The weights, and the optimizer's state as rank 0 has it."""
        self.descent.gather(self.optimizer)
        return {
            "weights": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
        }


def trained(optimizer: str, share: Any) -> dict[str, Any]:
    training = Training(optimizer, share)
    training.steps(range(2))
    training.descent.gather(training.optimizer)  # as at the end of an epoch
    training.steps(range(2, STEPS))
    return training.found()


def resumed(folder: Path) -> dict[str, Any]:
    """Training that ends in the middle, and goes on from what rank 0 had saved."""
    first, file = Training("adamw", shared), folder / "checkpoint.pt"
    first.steps(range(3))
    first.descent.gather(first.optimizer)
    if distributed.get_rank() == 0:
        torch.save([first.network.state_dict(), first.optimizer.state_dict()], file)
    distributed.barrier()
    second = Training("adamw", shared)
    weights, optimizer = torch.load(file, weights_only=True)
    second.network.load_state_dict(weights)
    second.optimizer.load_state_dict(optimizer)
    second.steps(range(3, STEPS))
    return second.found()


def times() -> list[tuple[float, float]]:
    """When this worker came to each of many meetings, and when it left."""
    meet, chance, found = Meeting.arrange(), random.Random(distributed.get_rank()), []
    assert meet
    for _ in range(MEETINGS):
        time.sleep(chance.choice((0, 0, 0, 0.002)))
        came = time.monotonic()
        meet()
        found.append((came, time.monotonic()))
    return found


@contextmanager
def elsewhere(offer: str, folder: Path) -> Iterator[None]:
    """The last worker sees another file where this is offered.

    So it is in containers that share an address but not their processes.
    """
    rank = distributed.get_rank()
    other = folder / f"{rank}.log"
    other.write_text("belongs to somebody else")

    module, name = {"memory": (shared_weights, "mapped"), "pipes": (meeting, "opened")}[offer]
    find = getattr(module, name)

    def misled(offered: Offered, *rest: Any) -> Any:
        return find(Offered(str(other), offered.name), *rest)

    with pytest.MonkeyPatch.context() as patch:
        if rank == WORKERS - 1:
            patch.setattr(module, name, misled)
        yield
    assert other.read_text() == "belongs to somebody else"


def refused() -> bool:
    """Whether nothing is shared if the first worker's system has no such memory."""
    with pytest.MonkeyPatch.context() as patch:
        if distributed.get_rank() == 0:
            patch.delattr(os, "memfd_create")
        return SharedWeights.of(network()) is None


def apart(offer: str, folder: Path) -> bool:
    """Whether nothing is shared if one worker does not find the memory, or the pipes."""
    with elsewhere(offer, folder):
        return SharedWeights.of(network()) is None


def descriptors() -> list[str]:
    """What this process has open: memory and pipes."""
    gc.collect()
    here = Path("/proc/self/fd")
    names = [os.readlink(here / name) for name in os.listdir(here) if (here / name).exists()]
    return [name for name in names if "weights" in name or name.startswith("pipe:")]


def work(rank: int, folder: Path) -> None:
    """One worker."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=WORKERS, rank=rank)
    before = descriptors()
    found: dict[str, Any] = {
        name: [trained(name, share) for share in (shared, sent)] for name in OPTIMIZERS
    }
    found |= {
        "resumed": resumed(folder),
        "times": times(),
        "alone": [apart("memory", folder), apart("pipes", folder), refused()],
        "left open": sorted(set(descriptors()) - set(before)),
    }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of three real worker processes."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, args=(folder,), nprocs=WORKERS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def equal(mine: dict[str, Tensor], others: dict[str, Tensor], tolerance: float = 0) -> bool:
    return mine.keys() == others.keys() and all(
        torch.allclose(mine[name], others[name], rtol=0, atol=tolerance) for name in mine
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_as_with_gradients_sent_over_the_network(
    workers: list[dict[str, Any]], optimizer: str
) -> None:
    new = network().state_dict()
    for found in workers:
        mine, sent = (result["weights"] for result in found[optimizer])
        assert equal(mine, sent, tolerance=1e-5)
        assert [name for name in new if torch.equal(mine[name], new[name])] == ["4.bias"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_rank_0_saves_is_the_state_of_all_weights(
    workers: list[dict[str, Any]], optimizer: str
) -> None:
    mine, sent = (result["optimizer"] for result in workers[0][optimizer])
    assert mine.keys() == sent.keys() and len(mine) == 3
    assert all(equal(mine[weight], sent[weight], tolerance=1e-4) for weight in mine)


def test_training_that_resumes_ends_where_uninterrupted_training_ends(
    workers: list[dict[str, Any]],
) -> None:
    for found in workers:
        assert equal(found["resumed"]["weights"], found["adamw"][0]["weights"])
    saved, uninterrupted = workers[0]["resumed"], workers[0]["adamw"][0]
    assert all(
        equal(saved["optimizer"][weight], uninterrupted["optimizer"][weight])
        for weight in uninterrupted["optimizer"]
    )


def test_nobody_leaves_a_meeting_before_all_have_come(workers: list[dict[str, Any]]) -> None:
    for number in range(MEETINGS):
        came, left = zip(*(found["times"][number] for found in workers), strict=True)
        assert max(came) <= min(left)


def test_no_worker_shares_what_one_of_them_cannot_find(workers: list[dict[str, Any]]) -> None:
    assert [found["alone"] for found in workers] == [[True, True, True]] * WORKERS


def test_nothing_stays_open(workers: list[dict[str, Any]]) -> None:
    assert [found["left open"] for found in workers] == [[]] * WORKERS


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_each_worker_updates_about_as_many_weights(workers: int) -> None:
    weights = [nn.Parameter(torch.empty(1 + number % 7)) for number in range(200)]
    owners = owned(weights, workers)
    assert owners == sorted(owners)
    each = [
        sum(weight.numel() for weight, owner in zip(weights, owners, strict=True) if owner == rank)
        for rank in range(workers)
    ]
    assert sum(each) == sum(weight.numel() for weight in weights)
    assert max(each) - min(each) <= 14


def leave(rank: int, folder: Path) -> None:
    """The last worker ends without a word; the others wait for it."""
    distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=WORKERS, rank=rank)
    meet = Meeting.arrange()
    assert meet
    if rank == WORKERS - 1:
        os._exit(0)
    try:
        meet()
    except BrokenPipeError:
        (folder / str(rank)).touch()
    os._exit(0)


def test_a_worker_that_has_ended_is_not_awaited(tmp_path: Path) -> None:
    multiprocessing.spawn(leave, args=(tmp_path,), nprocs=WORKERS)
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1"}
