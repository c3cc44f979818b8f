"""Training and scoring on a GPU, against the same network fed from the GPU's own memory.

    python -m tests.benchmarks.gpu IMAGES [--image-size 64] [--images 131072] [--rounds 3]

Images per second of wall time, each way in turn, several times. The limit is the network alone,
its batches ready on the GPU: not shuffled, not augmented, nothing counted. In training its steps
are replayed from a CUDA graph, so that the GPU never waits for the CPU. A plain loop does the
same without the graph. The images are hard links to those in IMAGES, repeated as needed.
"""

import argparse
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from cnn.bundle import Bundle, as_batch
from cnn.cluster import ingest, scoring
from cnn.cluster.scoring_plan import ScoringPlan, images_per_pass
from cnn.cluster.session import session
from cnn.cluster.streaming import StreamedTrainingBatches
from cnn.cluster.worker import card, initial_state, split_rows
from cnn.config import TrainConfig
from cnn.dataset.parts import Parts
from cnn.dataset.pixels import Decode, Gather, Pixels
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import list_source
from cnn.loop import Loop, State
from cnn.machine import cores
from cnn.manifest import Manifest
from cnn.scoring.worklist import Root
from cnn.text.console import Console
from cnn.training.batches import Batches, Share, TrainingBatches
from cnn.training.cuda_graph import Graphed
from cnn.training.precision import autocast
from tests.benchmarks.scoring import links

GPU = torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", dest="count", type=int, default=131_072)
    parser.add_argument(
        "--batch-size",
        type=int,
        nargs="*",
        default=[64, 512],
        help="of training; without a value: scoring alone",
    )
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(torch.cuda.get_device_name(), f"and {cores()} CPUs")
    with tempfile.TemporaryDirectory(dir=asked.images.resolve().parent) as place, session(cores()):
        folder = Path(place)
        images = links(asked.images, folder / "images", asked.count)
        settings = settings_for(images, asked.image_size)
        source = list_source(str(images), settings.data)
        dataset = ingest.prepare(source, folder / "prepared", lambda done, total: None, Console())
        for batch_size in asked.batch_size:
            settings = settings_for(images, asked.image_size, batch_size)
            Training.of(settings, dataset).compare(asked.rounds)
        Scoring.of(settings, dataset).compare(asked.rounds)


def settings_for(images: Path, image_size: int, batch_size: int = 64) -> TrainConfig:
    """Settings with every step at the full side."""
    return TrainConfig.model_validate(
        {
            "images": str(images),
            "data": {"image_size": image_size},
            "training": {"growing": 0.0, "epochs": 10, "batch_size": batch_size},
        }
    )


@dataclass(frozen=True)
class Training:
    """A network in training, with its images in the GPU's memory and as a stream."""

    loop: Loop
    state: State
    memory: TrainingBatches
    streamed: StreamedTrainingBatches

    @classmethod
    def of(cls, settings: TrainConfig, dataset: Prepared) -> "Training":
        table = split_rows(dataset.split(settings.seed), "train")
        images, labels = dataset.load(table)
        size, augmentation = settings.training.batch_size, settings.augmentation
        memory = TrainingBatches(
            as_batch(images).to(GPU),
            torch.from_numpy(labels).to(GPU),
            batch_size=size,
            augmentation=augmentation,
            seed=0,
        )
        streamed = StreamedTrainingBatches(
            dataset, table, batch_size=size, augmentation=augmentation, seed=0, share=Share()
        )
        loop = Loop(settings.training, GPU, settings.seed)
        return cls(loop, initial_state(settings, dataset, GPU), memory, streamed)

    def compare(self, rounds: int) -> None:
        """An epoch each way."""
        images = self.memory.steps * self.memory.batch_size
        limit = Graphed(self.plain_step, GPU)
        interleave(
            f"training, batches of {self.memory.batch_size}",
            {
                "limit": lambda number: images / timed(lambda: self.plain_epoch(limit)),
                "plain": lambda number: images / timed(lambda: self.plain_epoch(self.plain_step)),
                "memory": lambda number: images / timed(lambda: self.epoch(self.memory, number)),
                "streamed": lambda number: (
                    images / timed(lambda: self.epoch(self.streamed, number))
                ),
            },
            rounds,
        )

    def epoch(self, batches: Batches, number: int) -> None:
        self.loop.train_epoch(self.state, batches.epoch(number), batches.steps)

    def plain_epoch(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        """As many steps, over batches that are on the GPU already."""
        size = self.memory.batch_size
        self.state.network.train()
        for first in range(0, self.memory.steps * size, size):
            batch = slice(first, first + size)
            step(self.memory.images[batch], self.memory.labels[batch])

    def plain_step(self, images: Tensor, labels: Tensor) -> Tensor:
        settings, network, optimizer = self.loop.settings, self.state.network, self.state.optimizer
        optimizer.zero_grad(set_to_none=True)
        with autocast(GPU, settings.precision):
            logits = network(images)
        loss = nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=settings.label_smoothing
        )
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        return loss.detach()


@dataclass(frozen=True)
class Scoring:
    """A bundle, and images to score with it: prepared, in files, and on the GPU."""

    bundle: Bundle
    parts: Parts
    dataset: Prepared
    ready: Tensor
    batch_size: int

    @classmethod
    def of(cls, settings: TrainConfig, dataset: Prepared) -> "Scoring":
        state = initial_state(settings, dataset, torch.device("cpu"))
        row = {"side": dataset.card.image_size, "temperature": 1.0}
        bundle = Bundle(card(settings, dataset, row), state.network)  # type: ignore[arg-type]
        table = dataset.split(settings.seed)
        batch_size = images_per_pass(dataset.card.image_size, gpu=True)
        readable = Manifest(table.filter(pc.is_null(table["error"])), {})
        images, _ = dataset.load(readable.table.slice(0, 16 * batch_size))
        parts = Parts.of(readable, dataset.card.image_size)
        return cls(bundle, parts, dataset, as_batch(images).to(GPU), batch_size)

    def compare(self, rounds: int) -> None:
        """All images each way."""
        root, settings = Root(self.dataset.card.source, ""), self.dataset.card
        decode = Decode([root], settings.image_size, settings.fit)
        interleave(
            f"scoring, batches of {self.batch_size}, each image and its mirror image",
            {
                "limit": lambda number: self.limit(),
                "prepared": lambda number: self.pass_of(Gather(self.dataset)),
                "files": lambda number: self.pass_of(
                    lambda rows: decode(rows.append_column("root", pc.multiply(rows["row"], 0)))
                ),
            },
            rounds,
            warm_up=0,  # the start and the end of a pass are not timed
        )

    def limit(self) -> float:
        """Images per second of the network alone."""
        bundle, size, images = self.bundle.to(GPU), self.batch_size, len(self.ready)
        times = -(-len(self.parts.manifest.table) // images)

        def predict() -> None:
            for first in [*range(0, images, size)] * times:
                bundle.predict(self.ready[first : first + size])

        bundle.predict(self.ready[:size])
        rate = times * images / timed(predict)
        self.bundle.to(torch.device("cpu"))
        return rate

    def pass_of(self, pixels: Pixels) -> float:
        """Images per second from images to predictions, in the middle of a pass."""
        plan = ScoringPlan(workers=1, batch_size=self.batch_size, gpu_fraction=1.0)
        total = len(self.parts.manifest.table)
        done, times = [0], [0.0]
        for _, table in scoring.score(enumerate(self.parts), pixels, self.bundle, plan):
            done.append(done[-1] + len(table))
            times.append(time.perf_counter())
        first, last = (bisect_left(done, part * total) for part in (0.25, 0.875))
        return (done[last] - done[first]) / (times[last] - times[first])


def timed(work: Callable[[], object]) -> float:
    """Seconds until the GPU has finished `work`."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def interleave(
    title: str, ways: dict[str, Callable[[int], float]], rounds: int, warm_up: int = 1
) -> None:
    """Run each way in turn; print images per second, and ratios to the first."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm_up + rounds):
        for name, way in ways.items():
            rate = way(number + 1)
            if number >= warm_up:
                rates[name].append(rate)
    first = next(iter(ways))
    for name, found in rates.items():
        ratios = [one / other for one, other in zip(found, rates[first], strict=True)]
        each = ", ".join(f"{rate:,.0f}" for rate in found)
        print(
            f"{title}, {name}: {each} images/s; ratio to the {first}: {median(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
