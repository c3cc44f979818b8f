"""Workers that share their weights against workers that send gradients over TCP: from gradients on.

    python -m tests.benchmarks.descent [--workers 2 16] [--steps 20]

Of the default network for 64 px, on one thread each: the milliseconds from the gradients of all
workers to new weights in all of them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn

from cnn import network, optim
from cnn.config import Network, Training
from cnn.training.descent import Descent
from cnn.training.shared_weights import SharedWeights, views

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    for workers in asked.workers:
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(work, args=(workers, asked.steps, Path(folder)), nprocs=workers)


def work(rank: int, workers: int, steps: int, folder: Path) -> None:
    """What each worker runs; the first one prints."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=workers, rank=rank)
    wall, cpu = cost(shared(), steps)
    wall_sent, cpu_sent = cost(sent(), steps)
    if rank == 0:
        print(
            f"{workers} workers: {wall:.1f} ms shared, {wall_sent:.1f} over TCP, ratio "
            f"{wall_sent / wall:.1f}; CPU-ms of all {cpu:.0f} and {cpu_sent:.0f}, ratio "
            f"{cpu_sent / cpu:.1f}"
        )
    distributed.destroy_process_group()


def shared() -> Step:
    """A step of workers that share their weights."""
    built = network.build(Network(), 64, 20)
    descent = SharedWeights.of(built)
    assert descent
    return from_gradients(built, descent, lambda: None)


def sent() -> Step:
    """A step of workers that average one bucket of gradients over TCP, as DDP does."""
    built = network.build(Network(), 64, 20)
    weights = list(built.parameters())
    bucket = torch.empty(sum(weight.numel() for weight in weights))
    places = views(bucket, weights)

    def average() -> None:
        for weight, place in zip(weights, places, strict=True):
            assert weight.grad is not None
            torch.div(weight.grad, distributed.get_world_size(), out=place)
            weight.grad = place
        distributed.all_reduce(bucket)

    return from_gradients(built, Descent(), average)


def from_gradients(built: nn.Module, descent: Descent, average: Step) -> Step:
    """A step with gradients that are there already."""
    settings = Training()
    optimizer = optim.optimizer(built, settings)
    weights = list(built.parameters())
    gradients: list[Tensor] = [torch.randn_like(weight) for weight in weights]

    def step() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        average()
        descent.step(built, optimizer, settings.clip)

    return step


def cost(step: Step, steps: int) -> tuple[float, float]:
    """Milliseconds of a step, and CPU-milliseconds of all workers together."""
    for _ in range(2):
        step()
    distributed.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    costs = torch.tensor([time.perf_counter() - wall, time.process_time() - cpu])
    distributed.all_reduce(costs)
    wall, cpu = (1e3 * costs / steps).tolist()
    return wall / distributed.get_world_size(), cpu


if __name__ == "__main__":
    main()
