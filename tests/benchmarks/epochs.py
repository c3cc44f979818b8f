"""An epoch from prepared images, against a plain loop and against decoding again.

    python -m tests.benchmarks.epochs IMAGES [--image-size 64] [--images 65536] [--trained 1500]

Ratios of CPU-seconds on one thread, without validation: training with this library, from
memory and streamed, against a plain loop over the same tensors; and streaming without training
against decoding the same images again. The images are hard links to those in IMAGES, repeated as
needed: enough for full shards, as in every run that needs streaming.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn import optim
from cnn.augment import augment, cutmix, draw_squares, mixed_labels
from cnn.bundle import as_batch
from cnn.cluster import ingest
from cnn.cluster.session import session
from cnn.cluster.streaming import StreamedEvaluationBatches, StreamedTrainingBatches
from cnn.cluster.worker import initial_state, split_rows
from cnn.config import TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import list_source
from cnn.files.reader import Reader
from cnn.image import decode
from cnn.loop import Loop, State
from cnn.text.console import Console
from cnn.training.batches import EVALUATION_BATCH, Batches, Share, TrainingBatches
from cnn.training.precision import autocast
from tests.benchmarks.processes import metered
from tests.benchmarks.scoring import links

CPUS = 6
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", dest="count", type=int, default=65_536)
    parser.add_argument("--trained", type=int, default=1_500, help="images in a training epoch")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.images.resolve().parent) as place, session(CPUS):
        folder = Path(place)
        images = links(asked.images, folder / "images", asked.count)
        settings = TrainConfig.model_validate(
            # Every step at the full side.
            {
                "images": str(images),
                "data": {"image_size": asked.image_size},
                "training": {"growing": 0.0, "epochs": 2},
            }
        )
        source = list_source(str(images), settings.data)
        dataset = ingest.prepare(source, folder / "prepared", lambda done, total: None, Console())
        compare_ingest(dataset, asked.rounds)
        few = first_shards(dataset, asked.trained)
        compare_training(settings, dataset, few, asked.rounds)


def first_shards(dataset: Prepared, images: int) -> pa.Table:
    """About this many training rows, of the first shards: they are read as in a whole epoch."""
    table = split_rows(dataset.split(0), "train").sort_by("shard")
    last = table["shard"][min(images, table.num_rows) - 1]
    return table.filter(pc.less_equal(table["shard"], last))


def compare_ingest(dataset: Prepared, rounds: int) -> None:
    """Streaming a later epoch's images without training, against decoding them again."""
    table = dataset.split(0)
    readable = table.filter(pc.is_null(table["error"]))
    streamed = StreamedEvaluationBatches(dataset, readable, Share())
    drain(streamed, 0)  # the workers start and import
    interleave(
        f"ingest of {readable.num_rows:,} images",
        {
            "decode": lambda number: decode_again(dataset, readable),
            "streamed": lambda number: drain(streamed, number),
        },
        rounds,
    )


def drain(batches: Batches, number: int) -> None:
    for _ in batches.epoch(number):
        pass


def decode_again(dataset: Prepared, table: pa.Table) -> None:
    """What a plain loop over the files does in every epoch."""
    read, card, paths = Reader(dataset.card.source), dataset.card, table["path"].to_pylist()
    for first in range(0, len(paths), EVALUATION_BATCH):
        chosen = paths[first : first + EVALUATION_BATCH]
        as_batch(np.stack([decode(read(path), card.image_size, card.fit) for path in chosen]))


def compare_training(
    settings: TrainConfig, dataset: Prepared, table: pa.Table, rounds: int
) -> None:
    """A training epoch from memory and streamed, against a plain loop."""
    pixels, indices = dataset.load(table)
    images, labels = as_batch(pixels), torch.from_numpy(indices)
    batch_size, augmentation = settings.training.batch_size, settings.augmentation
    memory = TrainingBatches(
        images, labels, batch_size=batch_size, augmentation=augmentation, seed=0
    )
    streamed = StreamedTrainingBatches(
        dataset, table, batch_size=batch_size, augmentation=augmentation, seed=0, share=Share()
    )
    state, loop = initial_state(settings, dataset, CPU), Loop(settings.training, CPU, settings.seed)
    plain_epoch(settings, state, images[:batch_size], labels[:batch_size], 0)
    drain(streamed, 0)

    def train(batches: Batches, number: int) -> None:
        loop.train_epoch(state, batches.epoch(number), batches.steps)

    interleave(
        f"an epoch of {len(labels):,} images",
        {
            "plain": lambda number: plain_epoch(settings, state, images, labels, number),
            "memory": lambda number: train(memory, number),
            "streamed": lambda number: train(streamed, number),
        },
        rounds,
    )


def plain_epoch(
    settings: TrainConfig, state: State, images: Tensor, labels: Tensor, seed: int
) -> tuple[float, float]:
    """An epoch written without this library; returns mean loss and accuracy."""
    training, network, optimizer = settings.training, state.network.train(), state.optimizer
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    steps, loss_sum, correct = len(labels) // training.batch_size, 0.0, 0
    for step in range(steps):
        chosen = order[step * training.batch_size : (step + 1) * training.batch_size]
        batch = augment(images[chosen], settings.augmentation, generator)
        optim.set_rate(optimizer, optim.learning_rate(training, step / steps))
        logits, loss = forward(settings, network, batch, labels[chosen], generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), training.clip)
        optimizer.step()
        loss_sum += loss.item()
        correct += int((logits.argmax(dim=1) == labels[chosen]).sum())
    return loss_sum / steps, correct / (steps * training.batch_size)


def forward(
    settings: TrainConfig,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Logits, and the mixed loss of a batch."""
    squares = draw_squares(len(labels), settings.training.cutmix, generator)
    mixed, part = cutmix(images, squares)
    with autocast(CPU, settings.training.precision):
        logits = network(mixed).float()
    target = mixed_labels(labels, part, logits.shape[1])
    smoothing = settings.training.label_smoothing
    return logits, functional.cross_entropy(logits, target, label_smoothing=smoothing)


def interleave(title: str, ways: dict[str, Callable[[int], object]], rounds: int) -> None:
    """Run each way in turn, several times; print CPU-seconds, and ratios to the first way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            with metered() as used:
                way(number + 1)
            # The other ways run in this process; Ray's idle workers do not count.
            seconds[name].append(used.work if name == "streamed" else used.driver)
            print(f"{title}, {name}: {seconds[name][-1]:.2f} of {used}", flush=True)
    first, *others = seconds
    for name in others:
        pairs = zip(seconds[name], seconds[first], strict=True)
        ratio = median(one / other for one, other in pairs)
        print(f"{title}: {name} / {first}, median: {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
