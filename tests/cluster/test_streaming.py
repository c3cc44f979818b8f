"""Laws of streaming: the same images as from memory, and always the promised number of batches."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from cnn.batches import EvaluationBatches, Share, TrainingBatches
from cnn.bundle import as_batch
from cnn.cluster.streaming import Rows, StreamedEvaluationBatches, StreamedTrainingBatches
from cnn.cluster.worker import split_rows
from cnn.config import Augmentation
from cnn.prepared import Prepared

STILL = Augmentation(rotation=0, shift=0, zoom=0, flip=False)


@pytest.fixture(scope="module")
def train(dataset: Prepared) -> pa.Table:
    return split_rows(dataset.split(seed=0), "train")


def fingerprints(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[bytes, int]]:
    return [
        (image.permute(1, 2, 0).contiguous().numpy().tobytes(), int(label))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    ]


def streamed(
    dataset: Prepared,
    train: pa.Table,
    share: Share,
    augmentation: Augmentation = STILL,
    size: int = 10,
) -> StreamedTrainingBatches:
    return StreamedTrainingBatches(
        dataset, train, batch_size=size, augmentation=augmentation, seed=1, share=share
    )


def test_each_read_is_from_one_shard_and_at_most_one_part() -> None:
    shard = np.array([2] * 10 + [0] * 3 + [1])
    rows = Rows(shard, np.arange(14), np.zeros(14, np.int64))
    runs = list(rows.runs(most=4))
    assert [len(run.row) for run in runs] == [4, 4, 2, 3, 1]
    assert np.concatenate([run.row for run in runs]).tolist() == list(range(14))
    assert all(len(set(run.shard.tolist())) == 1 for run in runs)


def test_a_streamed_epoch_has_the_images_of_an_epoch_from_memory(
    dataset: Prepared, train: pa.Table
) -> None:
    size = train.num_rows // 6  # nearly nothing is left over
    images, labels = dataset.load(train)
    memory = TrainingBatches(
        as_batch(images), torch.from_numpy(labels), batch_size=size, augmentation=STILL, seed=1
    )
    everything = set(fingerprints([(memory.images, memory.labels)]))
    found = fingerprints(list(streamed(dataset, train, Share(), size=size).epoch(1)))
    assert len(found) == memory.steps * size
    assert set(found) <= everything and len(everything) - len(set(found)) < 6


def test_workers_together_see_each_image_at_most_once_in_equal_steps(
    dataset: Prepared, train: pa.Table
) -> None:
    shares = [streamed(dataset, train, Share(rank, 2)) for rank in range(2)]
    orders = [share.order(3) for share in shares]
    assert len(orders[0]) == len(orders[1]) == shares[0].steps * 5
    assert not set(orders[0]) & set(orders[1])
    for share in shares:
        batches = list(share.epoch(3))
        assert [len(labels) for _, labels in batches] == [5] * share.steps


def test_an_epoch_is_repeatable_and_differs_from_the_next(
    dataset: Prepared, train: pa.Table
) -> None:
    strong = Augmentation(rotation=20, shift=0.2)
    first, again, other = (
        fingerprints(list(streamed(dataset, train, Share(), strong).epoch(n))) for n in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_augmentation_changes_the_pixels_and_keeps_the_labels(
    dataset: Prepared, train: pa.Table
) -> None:
    strong = Augmentation(rotation=20, shift=0.2)
    still = fingerprints(list(streamed(dataset, train, Share()).epoch(1)))
    moved = fingerprints(list(streamed(dataset, train, Share(), strong).epoch(1)))
    assert [label for _, label in still] == [label for _, label in moved]
    assert np.mean([a != b for (a, _), (b, _) in zip(still, moved, strict=True)]) > 0.9


@pytest.mark.parametrize("workers", [1, 3])
def test_evaluation_streams_each_image_exactly_once(
    dataset: Prepared, train: pa.Table, workers: int
) -> None:
    images, labels = dataset.load(train)
    memory = EvaluationBatches(as_batch(images), torch.from_numpy(labels))
    shares = [StreamedEvaluationBatches(dataset, train, Share(r, workers)) for r in range(workers)]
    found = [batch for share in shares for batch in share.epoch(0)]
    assert sorted(fingerprints(found)) == sorted(fingerprints(list(memory.epoch(0))))
