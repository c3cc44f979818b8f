"""Two training workers of one thread each against one, with the same global batch.

    python -m tests.benchmarks.workers PREPARED [--trained 3000]

PREPARED is what `jobs.prepare` wrote. Wall time is what counts, so nothing else should run.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from cnn.batches import Share, TrainingBatches
from cnn.bundle import as_batch
from cnn.cluster.learning import start
from cnn.cluster.session import session
from cnn.cluster.training import parallelise
from cnn.config import TrainConfig
from cnn.loop import Loop, State
from cnn.place import place
from cnn.prepared import Prepared
from tests.benchmarks.epochs import CPUS, first_shards

EPOCHS = 3  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--trained", type=int, default=3_000, help="images in a training epoch")
    asked = parser.parse_args()
    dataset = Prepared.open(asked.prepared.resolve())
    settings = TrainConfig.model_validate(
        # Every step at the whole side; without images these would be the digits' settings.
        {"images": dataset.card.source, "training": {"growing": 0.0, "epochs": 2}}
    )
    with session(CPUS):
        compare_workers(settings, dataset, first_shards(dataset, asked.trained))


def compare_workers(settings: TrainConfig, dataset: Prepared, table: pa.Table) -> None:
    """Print how much faster two are; each epoch's wall and CPU-seconds are those of rank 0."""
    (wall, cpu), (two_wall, two_cpu) = (epoch_seconds(settings, dataset, table, n) for n in (1, 2))
    print(f"an epoch with 1 worker   {wall:.1f} s, {cpu:.1f} CPU-s")
    print(f"an epoch with 2 workers  {two_wall:.1f} s, {two_cpu:.1f} CPU-s each")
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(
        f"two workers are {wall / two_wall:.2f} times as fast, here with {cores} cores under a "
        f"load of {load:.0f}; by the CPU-seconds of each at most {cpu / two_cpu:.2f} times"
    )


def epoch_seconds(
    settings: TrainConfig, dataset: Prepared, table: pa.Table, workers: int
) -> tuple[float, float]:
    """Wall and CPU-seconds of the fastest epoch but the first, of rank 0 of so many workers."""
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "settings": settings.model_dump(mode="json"),
            "prepared": str(dataset.folder),
            "table": table,
        },
        scaling_config=ScalingConfig(num_workers=workers),
    )
    epochs: list[tuple[float, float]] = trainer.fit().return_value
    walls, cpus = zip(*epochs[1:], strict=True)
    return min(walls), min(cpus)


def work(task: dict[str, Any]) -> list[tuple[float, float]]:
    """What every worker runs: the library's loop, on one thread; wall and CPU of each epoch."""
    torch.set_num_threads(1)
    context = ray.train.get_context()
    settings = TrainConfig.model_validate(task["settings"])
    dataset = Prepared.open(place(task["prepared"]))
    share = Share(context.get_world_rank(), context.get_world_size())
    state = start(settings, dataset, get_device(), parallelise)
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
    return [epoch(loop, state, batches, number) for number in range(EPOCHS)]


def epoch(loop: Loop, state: State, batches: TrainingBatches, number: int) -> tuple[float, float]:
    """Wall and CPU-seconds of one training epoch."""
    wall, cpu = time.perf_counter(), time.process_time()
    loop.train_epoch(state, batches.epoch(number), batches.steps).reduce()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
