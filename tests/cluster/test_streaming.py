"""Laws of streaming: the same images as from memory, and always the promised number of batches."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from cnn.bundle import as_batch
from cnn.cluster import ingest, worker
from cnn.cluster.streaming import Rows, StreamedEvaluationBatches, StreamedTrainingBatches
from cnn.cluster.worker import split_rows
from cnn.config import Augmentation, Images, TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import list_source
from cnn.text.console import Console
from cnn.training.batches import EvaluationBatches, Share, TrainingBatches

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


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_evaluation_reads_a_shard_twice_only_if_two_workers_divide_it(
    dataset: Prepared, train: pa.Table, workers: int
) -> None:
    shares = [StreamedEvaluationBatches(dataset, train, Share(r, workers)) for r in range(workers)]
    assert dataset.card.shards > 2
    reads = sum(len(set(share.rows.shard.tolist())) for share in shares)
    assert reads <= dataset.card.shards + workers - 1
    sizes = [len(share.rows.label) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture(scope="module")
def unequal(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """All zeros, and seven ones."""
    folder = tmp_path_factory.mktemp("unequal")
    for name, most in (("0", 99), ("1", 7)):
        (folder / "images" / name).mkdir(parents=True)
        for file in sorted((digits / name).iterdir())[:most]:
            shutil.copy(file, folder / "images" / name)
    source = list_source(str(folder / "images"), Images(image_size=16))
    return ingest.prepare(source, folder / "prepared", lambda done, total: None, Console())


def balanced_by(way: str, memory: float) -> TrainConfig:
    training = {"balance": way, "batch_size": 8}
    resources = {"memory": memory}
    return TrainConfig.model_validate(
        {"images": "digits", "training": training, "resources": resources}
    )


@pytest.mark.parametrize("memory", [4.0, 0.0], ids=["memory", "streamed"])
def test_balanced_sampling_shows_each_class_equally_often(unequal: Prepared, memory: float) -> None:
    def rare(way: str) -> float:
        """The fraction of ones in three epochs."""
        settings = balanced_by(way, memory)
        share, device = Share(), torch.device("cpu")
        train, _ = worker.split_batches(settings, unequal, share, device, ("train",))
        labels = [label for number in (1, 2, 3) for _, label in train.epoch(number)]
        return torch.cat(labels).float().mean().item()

    assert rare("none") < 0.3
    assert rare("sampling") == pytest.approx(0.5, abs=0.15)


def test_only_a_balanced_loss_weights_the_classes(unequal: Prepared) -> None:
    def weights(way: str) -> torch.Tensor | None:
        settings, device = balanced_by(way, 4), torch.device("cpu")
        return worker.loss_weights(settings, unequal, device, ("train",))

    assert weights("none") is weights("sampling") is None
    balanced = weights("loss")
    assert balanced is not None and balanced[1] > 2 * balanced[0]
