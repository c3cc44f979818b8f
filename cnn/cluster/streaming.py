"""Batches of a split too large for memory: read, augmented and delivered by Ray Data."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
import torch

from cnn.augment import augment
from cnn.bundle import as_batch
from cnn.config import Augmentation
from cnn.dataset import prepared
from cnn.dataset.parts import most_rows
from cnn.dataset.prepared import Prepared
from cnn.machine import images_at_once
from cnn.manifest import class_indices
from cnn.training.balance import balanced_draws
from cnn.training.batches import (
    EVALUATION_BATCH,
    Batch,
    Share,
    training_order,
)
from cnn.training.seeds import Draw, seed_of, sequence


@dataclass(frozen=True)
class Rows:
    """The shard, the row in it and the label of each image of a split: int64 `(N,)` each."""

    shard: np.ndarray
    row: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, dataset: Prepared, table: pa.Table) -> "Rows":
        shard, row = (table[name].to_numpy().astype(np.int64) for name in ("shard", "row"))
        return cls(shard, row, class_indices(table["label"], dataset.classes))

    def take(self, chosen: np.ndarray) -> "Rows":
        return Rows(self.shard[chosen], self.row[chosen], self.label[chosen])

    def runs(self, most: int) -> Iterator["Rows"]:
        """Runs of consecutive rows from the same shard, with at most `most` rows each."""
        ends = [*np.flatnonzero(np.diff(self.shard)) + 1, len(self.shard)]
        start = 0
        for end in ends:
            for first in range(start, end, most):  # rows drawn several times make long runs
                yield self.take(np.arange(first, min(first + most, end)))
            start = end


class StreamedTrainingBatches:
    """One worker's share of shuffled, augmented batches, streamed shard by shard.

    Shards are random samples of the images, so shards in random order with their rows in random
    order are as good as a full shuffle. The rows of each worker are chosen here, not by Ray Data:
    every worker gets exactly `steps` batches. Only the tail that fills no batch is left out.
    """

    streamed = True

    def __init__(
        self,
        dataset: Prepared,
        table: pa.Table,
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        share: Share,
        balanced: bool = False,
    ) -> None:
        self.rows = Rows.of(dataset, table)
        self.dataset, self.augmentation, self.seed, self.share = dataset, augmentation, seed, share
        self.batch_size = min(batch_size, table.num_rows // share.workers * share.workers)
        self.steps = table.num_rows // self.batch_size
        self.draws = balanced_draws(self.rows.label) if balanced else None

    def epoch(self, number: int) -> Iterator[Batch]:
        local = self.batch_size // self.share.workers
        rows = self.rows.take(self.order(number))
        read = AugmentShard(self.dataset, self.augmentation, (self.seed, number, self.share.rank))
        yield from stream(rows, read, local)

    def order(self, number: int) -> np.ndarray:
        """The rows that this worker takes in an epoch, in their order, int64."""
        chosen = training_order(len(self.rows.label), self.draws, self.seed, number)
        rng = np.random.default_rng(sequence(Draw.SHARDS, self.seed, number))
        turn = rng.permutation(self.dataset.card.shards)
        grouped = chosen[np.argsort(turn[self.rows.shard[chosen]], kind="stable")]
        part = self.steps * self.batch_size // self.share.workers
        return grouped[self.share.rank * part : (self.share.rank + 1) * part]


class StreamedEvaluationBatches:
    """One worker's share of a split, each image once over all workers, unchanged.

    Workers take neighbours: if each took every n-th row, all would read all of the split.
    """

    streamed = True

    def __init__(self, dataset: Prepared, table: pa.Table, share: Share) -> None:
        rows = Rows.of(dataset, table)
        order = np.argsort(rows.shard, kind="stable")
        own = np.array_split(order, share.workers)[share.rank]
        self.rows, self.dataset = rows.take(own), dataset
        self.batch_size = images_at_once(dataset.card.image_size, EVALUATION_BATCH)
        self.steps = -(-len(self.rows.label) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        yield from stream(self.rows, AugmentShard(self.dataset), self.batch_size)


def stream(rows: Rows, read: "AugmentShard", batch_size: int) -> Iterator[Batch]:
    """Yields batches of `rows` in order; tasks across the cluster read ahead during training."""
    if not len(rows.label):
        return
    blocks = [
        pa.table(
            {"turn": [turn] * len(run.row), "shard": run.shard, "row": run.row, "label": run.label}
        )
        for turn, run in enumerate(rows.runs(most_rows(read.shape[0])))
    ]
    dataset = ray.data.from_arrow(blocks)
    dataset.context.execution_options.preserve_order = True
    images = dataset.map_batches(read, batch_size=None, batch_format="pyarrow")
    for batch in images.iter_batches(
        batch_size=batch_size, batch_format="numpy", prefetch_batches=2
    ):
        # A copy: Ray's arrays are read-only views of its object store.
        yield as_batch(batch["image"].copy()), torch.from_numpy(batch["label"].copy())


class AugmentShard:
    """The task of one run of rows of a shard: read the images, and augment them for training."""

    def __init__(
        self,
        dataset: Prepared,
        augmentation: Augmentation | None = None,
        seed: tuple[int, ...] = (),
    ) -> None:
        self.folder = dataset.folder
        self.shape, self.augmentation, self.seed = dataset.shape, augmentation, seed

    def __call__(self, rows: pa.Table) -> dict[str, np.ndarray]:
        file = prepared.shard_file(self.folder, rows["shard"][0].as_py())
        images = prepared.read_images(file, rows["row"].to_numpy(), self.shape)
        if self.augmentation is not None:
            seed = seed_of(Draw.STREAMED_WARP, *self.seed, rows["turn"][0].as_py())
            generator = torch.Generator().manual_seed(seed)
            warped = augment(as_batch(images.copy()), self.augmentation, generator)
            images = warped.permute(0, 2, 3, 1).contiguous().numpy()
        return {"image": images, "label": rows["label"].to_numpy()}
