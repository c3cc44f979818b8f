"""Two training workers of one thread each against one, with the same global batch.

    python -m tests.benchmarks.workers PREPARED [--batch-size 64] [--steps 4] [--rounds 25]

PREPARED is the output of `jobs.prepare`. Wall time counts, so nothing else should run. The two
workers together and the first one alone take turns, every few seconds: the speed of a shared
machine drifts by a fifth within minutes, which then affects both alike. In a third turn each worker
trains its own network on its share: the gain from two workers that never wait for each other.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, get_device
from torch import distributed

from cnn.bundle import as_batch
from cnn.cluster.session import session
from cnn.cluster.trainer import Trainer, seconds_between_polls
from cnn.cluster.training import parallelise
from cnn.cluster.worker import Parallelise, alone, initial_state
from cnn.config import TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.files.place import place
from cnn.loop import Loop, State
from cnn.training.batches import Share, TrainingBatches
from tests.benchmarks.epochs import CPUS, first_shards

Cost = tuple[float, float]
"""Wall and CPU-seconds of rank 0."""

Round = tuple[Cost, Cost, Cost]
"""Of one worker alone, of two together, and of two that share nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--batch-size", type=int, default=64, help="of both workers together")
    parser.add_argument("--steps", type=int, default=4, help="in a round's epoch")
    parser.add_argument("--rounds", type=int, default=25)
    asked = parser.parse_args()
    dataset = Prepared.open(asked.prepared.resolve())
    settings = TrainConfig.model_validate(
        # Every step at the full side; without images these would be the digits' settings.
        {
            "images": dataset.card.source,
            "training": {
                "growing": 0.0,
                "epochs": asked.rounds + 1,
                "batch_size": asked.batch_size,
            },
        }
    )
    images = asked.batch_size * asked.steps
    table = first_shards(dataset, images).slice(0, images)
    with session(CPUS):
        report(compare(settings, dataset, table, asked.rounds))


def report(rounds: list[Round]) -> None:
    """Print how much faster two workers are: by the sums of all rounds, in each, and at best."""
    (wall, cpu), two, apart = (
        tuple(map(sum, zip(*costs, strict=True))) for costs in zip(*rounds, strict=True)
    )
    ratios = sorted(alone[0] / together[0] for alone, together, _ in rounds)
    least = [min(costs) for costs in zip(*rounds, strict=True)]
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"with 1 worker   {wall:.1f} s, {cpu:.1f} CPU-s")
    print(f"with 2 workers  {two[0]:.1f} s, {two[1]:.1f} CPU-s each")
    print(f"with 2 apart    {apart[0]:.1f} s, {apart[1]:.1f} CPU-s each")
    print(
        f"two workers are {wall / two[0]:.2f} times as fast, on {cores} cores with a load of "
        f"{load:.0f}; two that share nothing {wall / apart[0]:.2f} times; by the CPU-seconds of "
        f"each, at most {cpu / two[1]:.2f} times"
    )
    print(
        f"in {len(rounds)} rounds: median {median(ratios):.2f}, "
        f"half of them from {ratios[len(ratios) // 4]:.2f} to {ratios[-len(ratios) // 4]:.2f}"
    )
    print(
        f"by the fastest round of each: {least[0][0] / least[1][0]:.2f} times as fast; two that "
        f"share nothing {least[0][0] / least[2][0]:.2f} times"
    )


def compare(settings: TrainConfig, dataset: Prepared, table: pa.Table, rounds: int) -> list[Round]:
    """What an epoch costs one worker, two, and two apart, in every round."""
    trainer = Trainer(
        work,
        train_loop_config={
            "settings": settings.model_dump(mode="json"),
            "prepared": str(dataset.folder),
            "table": table,
            "rounds": rounds,
        },
        backend_config=TorchConfig(),
        scaling_config=ScalingConfig(num_workers=2),
        in_memory=True,
        polls=seconds_between_polls(
            len(dataset.manifest.table) * dataset.card.image_size**2, gpu=False
        ),
    )
    costs: list[Round] = trainer.fit().return_value
    return costs


@dataclass(frozen=True)
class Training:
    """A network in training, and its share of the images."""

    loop: Loop
    state: State
    batches: TrainingBatches

    def epoch(self, number: int) -> None:
        """One training epoch, its sums for this worker alone."""
        self.loop.train_epoch(self.state, self.batches.epoch(number), self.batches.steps)


def work(task: dict[str, Any]) -> list[Round]:
    """What each worker runs, on one thread: per round an epoch alone, together and apart."""
    torch.set_num_threads(1)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    share = Share(rank, context.get_world_size())
    one = training(task, Share(0, 1), alone)
    together, apart = training(task, share, parallelise), training(task, share, alone)
    costs = []
    for number in range(task["rounds"] + 1):
        single = timed(lambda number=number: rank == 0 and one.epoch(number))
        both = timed(lambda number=number: together.epoch(number))
        both_apart = timed(lambda number=number: apart.epoch(number))
        costs.append((single, both, both_apart))
    return costs[1:]  # the first has warmed up


def training(task: dict[str, Any], share: Share, parallelise: Parallelise) -> Training:
    """The library's loop over the task's images, as one of the workers of `share`."""
    settings = TrainConfig.model_validate(task["settings"])
    dataset = Prepared.open(place(task["prepared"]))
    images, labels = dataset.load(task["table"])
    batches = TrainingBatches(
        as_batch(images),
        torch.from_numpy(labels),
        batch_size=settings.training.batch_size,
        augmentation=settings.augmentation,
        seed=settings.seed,
        share=share,
    )
    loop = Loop(settings.training, get_device(), settings.seed, share)
    return Training(loop, initial_state(settings, dataset, get_device(), parallelise), batches)


def timed(function: Callable[[], object]) -> Cost:
    """What a call costs this process. Both start at once, and the faster one waits at the end."""
    distributed.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    cost = time.perf_counter() - wall, time.process_time() - cpu
    distributed.barrier()
    return cost


if __name__ == "__main__":
    main()
