"""Laws of batches: the workers share each global batch, and no row is lost, doubled or changed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn.config import Augmentation
from cnn.machine import PASS_PIXELS
from cnn.training.balance import balanced_draws
from cnn.training.batches import (
    EVALUATION_BATCH,
    EvaluationBatches,
    Share,
    TrainingBatches,
    training_order,
)

OFF = Augmentation(rotation=0, shift=0, zoom=0, flip=False, vertical_flip=False)
ROTATED = Augmentation(rotation=45, shift=0, zoom=0, flip=False, vertical_flip=False)
workers_and_batch = st.integers(1, 5).flatmap(
    lambda workers: st.tuples(st.just(workers), st.integers(1, 6).map(lambda n: n * workers))
)
seeds = st.integers(0, 2**32)


def numbered(rows: int, side: int = 2) -> tuple[Tensor, Tensor]:
    """Images whose bytes encode their row, and labels that are the row."""
    row = torch.arange(rows)
    codes = torch.stack([row % 256, row // 256, 255 - row % 256], dim=1).to(torch.uint8)
    return codes[:, :, None, None].expand(-1, -1, side, side).contiguous(), row


def shares(workers: int) -> list[Share]:
    return [Share(rank, workers) for rank in range(workers)]


def taken(
    rows: int, batch_size: int, share: Share, seed: int, epoch: int, balanced: bool = False
) -> list[list[int]]:
    """The rows in each of one worker's batches."""
    images, _ = numbered(rows)
    labels = torch.arange(rows) % 3 if balanced else torch.arange(rows)
    batches = TrainingBatches(
        images,
        labels,
        batch_size=batch_size,
        augmentation=OFF,
        seed=seed,
        share=share,
        balanced=balanced,
    )
    found = [seen[:, 0, 0, 0].tolist() for seen, _ in batches.epoch(epoch)]
    assert len(found) == batches.steps
    return found


@settings(deadline=None, max_examples=60)
@given(workers_and_batch, st.integers(30, 90), seeds, st.integers(1, 50), st.booleans())
def test_the_global_batches_are_the_same_for_any_number_of_workers(
    share: tuple[int, int], rows: int, seed: int, epoch: int, balanced: bool
) -> None:
    workers, batch_size = share
    alone = taken(rows, batch_size, Share(), seed, epoch, balanced)
    together = [taken(rows, batch_size, s, seed, epoch, balanced) for s in shares(workers)]
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in together]
        assert sorted(row for part in parts for row in part) == sorted(whole)
        assert {len(part) for part in parts} == {batch_size // workers}
    assert {len(batches) for batches in together} == {len(alone)}


@settings(deadline=None, max_examples=60)
@given(workers_and_batch, st.integers(5, 90), seeds)
def test_ranks_take_equal_steps_repeat_no_row_and_drop_less_than_a_batch(
    share: tuple[int, int], rows: int, seed: int
) -> None:
    workers, batch_size = share
    together = [taken(rows, batch_size, s, seed, 1) for s in shares(workers)]
    steps = {len(batches) for batches in together}
    assert len(steps) == 1
    assert min(steps) >= 1
    seen = [row for batches in together for batch in batches for row in batch]
    assert len(seen) == len(set(seen))
    assert rows - len(seen) < batch_size
    sizes = {len(batch) for batches in together for batch in batches}
    assert len(sizes) == 1


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_batch_size_above_the_split_gives_one_batch_shared_equally(workers: int) -> None:
    together = [taken(10, 600, share, 0, 1) for share in shares(workers)]
    assert all(len(batches) == 1 for batches in together)
    assert len({row for batches in together for row in batches[0]}) == 10 // workers * workers


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 300), seeds, st.integers(0, 50))
def test_an_epoch_has_every_row_once_in_an_order_set_by_seed_and_epoch(
    rows: int, seed: int, epoch: int
) -> None:
    order = training_order(rows, None, seed, epoch)
    assert sorted(order) == list(range(rows))
    assert order.tolist() == training_order(rows, None, seed, epoch).tolist()


def test_each_seed_and_epoch_has_its_own_order() -> None:
    orders = {
        tuple(training_order(100, None, seed, epoch)) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25
    assert tuple(range(100)) not in orders


def test_rows_left_out_of_one_epoch_come_in_another() -> None:
    seen = {
        row for epoch in range(1, 9) for batch in taken(11, 4, Share(), 0, epoch) for row in batch
    }
    assert seen == set(range(11))


def test_balanced_draws_make_rare_classes_as_frequent_as_common_ones() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10).numpy()
    draws = balanced_draws(labels)
    assert [draws[labels == label].sum() for label in range(3)] == pytest.approx([1 / 3] * 3)
    drawn = labels[training_order(len(labels), draws, 0, 1)]
    shares_of_epoch = [(drawn == label).mean() for label in range(3)]
    assert shares_of_epoch == pytest.approx([1 / 3] * 3, abs=0.05)


def test_balanced_batches_hold_each_class_equally_often() -> None:
    images, _ = numbered(1000)
    labels = torch.tensor([0] * 900 + [1] * 100)
    common, rare = (
        sum(
            int(seen.sum())
            for _, seen in TrainingBatches(
                images, labels, batch_size=50, augmentation=OFF, seed=0, balanced=balanced
            ).epoch(1)
        )
        for balanced in (False, True)
    )
    assert common == 100
    assert rare == pytest.approx(500, abs=60)


@settings(deadline=None, max_examples=25)
@given(workers_and_batch, st.integers(30, 90), seeds)
def test_without_augmentation_images_are_unchanged_and_keep_their_labels(
    share: tuple[int, int], rows: int, seed: int
) -> None:
    workers, batch_size = share
    images, labels = numbered(rows)
    for part in shares(workers):
        batches = TrainingBatches(
            images, labels, batch_size=batch_size, augmentation=OFF, seed=seed, share=part
        )
        for seen, numbers in batches.epoch(1):
            assert torch.equal(seen, images[numbers])


def test_augmentation_differs_by_epoch_and_rank_and_is_reproducible() -> None:
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    images, labels = image.repeat(8, 1, 1, 1), torch.zeros(8, dtype=torch.int64)

    def warped(rank: int, epoch: int) -> bytes:
        batches = TrainingBatches(
            images, labels, batch_size=8, augmentation=ROTATED, seed=0, share=Share(rank, 2)
        )
        return b"".join(seen.numpy().tobytes() for seen, _ in batches.epoch(epoch))

    assert len({warped(rank, epoch) for rank in range(2) for epoch in range(3)}) == 6
    assert warped(1, 2) == warped(1, 2)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 3 * EVALUATION_BATCH), st.integers(0, 5))
def test_any_number_of_workers_evaluates_every_image_once(
    workers: int, rows: int, epoch: int
) -> None:
    images, labels = numbered(rows)
    evaluated: list[int] = []
    for share in shares(workers):
        batches = EvaluationBatches(images, labels, share)
        found = list(batches.epoch(epoch))
        assert len(found) == batches.steps
        for seen, numbers in found:
            assert 1 <= len(seen) <= EVALUATION_BATCH
            assert torch.equal(seen, images[numbers])
            evaluated += numbers.tolist()
    assert sorted(evaluated) == list(range(rows))


@given(st.integers(8, 4096))
def test_larger_images_are_evaluated_in_smaller_batches(side: int) -> None:
    images = torch.empty(0, 3, side, side, dtype=torch.uint8)
    size = EvaluationBatches(images, torch.empty(0, dtype=torch.int64)).batch_size
    assert 1 <= size <= EVALUATION_BATCH
    assert size == 1 or size * side**2 <= PASS_PIXELS
    assert size == EVALUATION_BATCH or (size + 1) * side**2 > PASS_PIXELS
