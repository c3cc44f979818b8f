"""Laws of training: it learns, counts correctly, resumes, and ends in time."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cnn import bundle, config, network, optim
from cnn.augment import cutmix, draw_squares
from cnn.bundle import Card
from cnn.loop import (
    DivergedError,
    Loop,
    State,
    Sums,
    progressive_of,
    seconds_left,
)
from cnn.network import scale_of
from cnn.training import checkpoint
from cnn.training.balance import class_weights
from cnn.training.batches import Batch, EvaluationBatches, Share, TrainingBatches
from cnn.training.history import Epoch
from cnn.training.progressive import FIXED

CPU = torch.device("cpu")
CLASSES = ["blue", "green", "red"]
OFF = config.Augmentation(rotation=0, shift=0, zoom=0, flip=False, vertical_flip=False)
ON = config.Augmentation(rotation=20, shift=0.2, zoom=0.2, flip=True, vertical_flip=False)
NETWORK = config.Network(
    network="cnn",
    filters=(8, 16),
    convolutions=2,
    residual=True,
    kernel_size=3,
    hidden=8,
    dropout=0.3,
    normalisation="batch",
)
TRAINING = config.Training(
    epochs=4,
    batch_size=16,
    optimizer="adamw",
    lr=0.01,
    weight_decay=0.05,
    warmup=0.1,
    growing=0.0,
    clip=1.0,
    label_smoothing=0.1,
    cutmix=0.0,
    balance="none",
    patience=None,
    max_minutes=None,
    precision="float32",
)
TIMES = {"seconds", "images_per_second", "data_wait"}


def training(**values: object) -> config.Training:
    """The training settings with these changed, validated."""
    return config.Training.model_validate(TRAINING.model_dump() | values)


def colours(count: int, seed: int = 0) -> Batch:
    """Noisy images of 8x8 pixels; the number of the brighter channel is the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 100, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    images[torch.arange(count), labels] += 100
    return images, labels


def training_batches(
    settings: config.Training, augmentation: config.Augmentation = OFF
) -> TrainingBatches:
    return TrainingBatches(
        *colours(48), batch_size=settings.batch_size, augmentation=augmentation, seed=3
    )


VALIDATION = EvaluationBatches(*colours(30, seed=1))


def fresh(settings: config.Training, seed: int = 0, dropout: float = 0.3) -> State:
    torch.manual_seed(seed)
    plain = network.build(NETWORK.model_copy(update={"dropout": dropout}), 8, 3)
    return State(plain, plain, optim.optimizer(plain, settings), settings.epochs)


def trained(
    settings: config.Training, augmentation: config.Augmentation = OFF, seed: int = 0
) -> State:
    state = fresh(settings, seed)
    Loop(settings, CPU, seed).fit(state, training_batches(settings, augmentation), VALIDATION)
    return state


def untimed(history: list[Epoch]) -> list[dict[str, object]]:
    """A history without its measured times."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history]


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    ones, others = one.state_dict(), other.state_dict()
    assert ones.keys() == others.keys()
    assert all(torch.equal(ones[name], others[name]) for name in ones)


def test_the_network_learns_colours() -> None:
    history = trained(training(epochs=8)).history
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["val_loss"] < 0.5 * history[0]["val_loss"]
    assert history[-1]["val_accuracy"] > 0.95


def test_an_epoch_row_holds_the_validation_results_of_the_network_it_leaves() -> None:
    images, labels = colours(30, seed=1)
    checked: list[int] = []

    def check(state: State) -> None:
        logits, row = state.network.eval()(images), state.history[-1]
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        assert row["val_loss"] == pytest.approx(functional.cross_entropy(logits, labels).item())
        assert row["val_accuracy"] == pytest.approx(accuracy)
        checked.append(row["epoch"])

    settings = training(epochs=4, growing=0.5)
    state = fresh(settings)
    Loop(settings, CPU, 0).fit(state, training_batches(settings), VALIDATION, check)
    assert checked == [1, 2, 3, 4]
    assert [row["side"] for row in state.history] == [4, 6, 8, 8]


def test_a_checkpoint_of_an_early_epoch_keeps_the_image_side_of_that_epoch(tmp_path: Path) -> None:
    settings = training(epochs=4, growing=0.5)
    state = fresh(settings)
    state.history.append(
        Loop(settings, CPU, 0).run_epoch(state, training_batches(settings), VALIDATION)
    )
    card = Card(classes=CLASSES, image_size=8, fit="squash", input_side=4, network=NETWORK)
    checkpoint.save(tmp_path, state, card)
    loaded, images = bundle.load(tmp_path), VALIDATION.images
    assert torch.equal(loaded.network(images), state.network.eval()(images))
    scale_of(loaded.network).resize_to(8)
    assert not torch.equal(loaded.network(images), state.network(images))


def test_the_learning_rate_follows_the_schedule_at_every_step() -> None:
    settings = training(epochs=3)
    state, rates = fresh(settings), []
    loop = Loop(
        settings,
        CPU,
        0,
        on_step=lambda step, steps: rates.append(float(state.optimizer.param_groups[1]["lr"])),
    )
    loop.fit(state, training_batches(settings), VALIDATION)
    expected = [optim.learning_rate(settings, step / 9) for step in range(9)]
    assert rates == pytest.approx(expected)
    assert [row["lr"] for row in state.history] == pytest.approx(expected[2::3])


@examples(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 40), max_size=5), st.integers(0, 999))
def test_sums_over_batches_of_any_size_equal_the_sums_of_the_whole(
    cuts: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, 5, generator=generator) * 3
    labels = torch.randint(0, 5, (40,), generator=generator)
    sums = Sums.zero(CPU)
    edges = [0, *sorted(cuts), 40]
    for start, stop in pairwise(edges):
        sums.add(logits[start:stop], labels[start:stop])
    loss, accuracy, images = sums.reduce()
    assert images == 40
    assert accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert loss == pytest.approx(functional.cross_entropy(logits.double(), labels).item(), rel=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    settings = training(epochs=2)
    first, again, other = (trained(settings, ON, seed) for seed in (1, 1, 2))
    assert untimed(first.history) == untimed(again.history)
    assert_same_weights(first.network, again.network)
    assert untimed(first.history) != untimed(other.history)


def test_dropout_differs_for_each_seed_and_rank() -> None:
    def loss(seed: int, rank: int) -> float:
        state, loop = fresh(TRAINING), Loop(TRAINING, CPU, seed, Share(rank, 2))
        return loop.run_epoch(state, training_batches(TRAINING), VALIDATION)["train_loss"]

    assert len({loss(seed, rank) for seed in range(3) for rank in range(2)}) == 6
    assert loss(1, 1) == loss(1, 1)


class Seen(Loop):
    """A loop that keeps the squares of every step, and what it draws them and dropout from."""

    def update(self, state: State, images: Tensor, labels: Tensor, squares: Tensor) -> Tensor:
        SQUARES.append(squares)
        SEEDS.append({torch.initial_seed(), self.cutmix_generator.initial_seed()})
        return super().update(state, images, labels, squares)


SQUARES: list[Tensor] = []
SEEDS: list[set[int]] = []


def squares_of_two_epochs(dropout: float = 0.3, seed: int = 0, rank: int = 0) -> Tensor:
    """CutMix's squares of each epoch, `(2, images, 3)`."""
    settings = training(cutmix=1.0, epochs=2)
    state, loop = fresh(settings, dropout=dropout), Seen(settings, CPU, seed, Share(rank, 2))
    SQUARES.clear()
    SEEDS.clear()
    loop.fit(state, training_batches(settings), VALIDATION)
    return torch.cat(SQUARES).view(2, -1, 3)


def test_the_squares_of_an_epoch_do_not_depend_on_dropout() -> None:
    assert torch.equal(squares_of_two_epochs(dropout=0.3), squares_of_two_epochs(dropout=0.0))


def test_squares_differ_for_each_epoch_seed_and_rank() -> None:
    drawn = [squares_of_two_epochs(seed=seed, rank=rank) for seed in (0, 1) for rank in (0, 1)]
    squares = torch.cat(drawn).flatten(end_dim=1)
    assert len(squares.unique(dim=0)) == len(squares)


def test_dropout_and_cutmix_have_streams_of_their_own_in_each_epoch() -> None:
    squares_of_two_epochs()
    assert all(len(seeds) == 2 for seeds in SEEDS)
    assert len(set().union(*SEEDS)) == 4


class Interrupted(Exception):
    """The run is interrupted here."""


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    card = Card(classes=CLASSES, image_size=8, fit="squash", network=NETWORK)
    settings = training(growing=0.6, cutmix=0.5)
    batches = training_batches(settings, ON)
    whole = trained(settings, ON)

    def save_and_stop(state: State) -> None:
        checkpoint.save(tmp_path, state, card)
        if len(state.history) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        Loop(settings, CPU, 0).fit(fresh(settings), batches, VALIDATION, save_and_stop)
    resumed = fresh(settings, seed=99)
    checkpoint.load(tmp_path, resumed)
    assert len(resumed.history) == 2
    Loop(settings, CPU, 0).fit(resumed, batches, VALIDATION)  # in another process

    assert len(whole.history) == 4
    assert untimed(resumed.history) == untimed(whole.history)
    assert_same_weights(resumed.network, whole.network)


def test_a_finished_run_is_not_changed() -> None:
    state = trained(training(epochs=1))
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    Loop(training(epochs=1), CPU, 0).fit(state, training_batches(TRAINING), VALIDATION)
    assert len(state.history) == 1
    assert all(torch.equal(before[k], value) for k, value in state.network.state_dict().items())


def row(epoch: int, val_accuracy: float = 0.5, seconds: float = 1.0) -> Epoch:
    return Epoch(
        epoch=epoch,
        train_loss=1.0,
        train_accuracy=0.5,
        val_loss=1.0,
        val_accuracy=val_accuracy,
        temperature=1.0,
        side=8,
        lr=0.1,
        seconds=seconds,
        images_per_second=1.0,
        data_wait=0.0,
    )


@pytest.mark.parametrize(
    ("accuracies", "patience", "ended"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.4], 2, True),
        ([0.5, 0.5, 0.5], 2, True),  # equal is not better
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.4, 0.3, 0.2], None, False),
    ],
)
def test_patience_counts_epochs_without_a_better_one(
    accuracies: list[float], patience: int | None, ended: bool
) -> None:
    state = fresh(TRAINING)
    state.history = [row(number, value) for number, value in enumerate(accuracies, start=1)]
    assert Loop(training(patience=patience), CPU, 0).out_of_patience(state) == ended


def test_a_run_without_progress_ends_when_patience_runs_out() -> None:
    # Such a small rate changes no prediction once the batch norms' statistics have settled.
    state = trained(training(epochs=50, lr=1e-12, patience=3))
    assert len(state.history) == state.best["epoch"] + 3 < 50


@dataclass
class Watched:
    """Batches that pause before each batch and record which epochs were requested."""

    batches: TrainingBatches
    pause: float = 0.0
    streamed: bool = False
    asked: list[int] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.batches.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        self.asked.append(number)
        for batch in self.batches.epoch(number):
            time.sleep(self.pause)
            yield batch


@pytest.mark.parametrize("streamed", [True, False])
def test_only_streamed_batches_count_as_waiting(streamed: bool) -> None:
    watched = Watched(training_batches(TRAINING), pause=0.05, streamed=streamed)
    row = Loop(TRAINING, CPU, 0).run_epoch(fresh(TRAINING), watched, VALIDATION)
    assert row["data_wait"] > 0.3 if streamed else row["data_wait"] == 0


def test_each_epoch_requests_its_own_batches() -> None:
    watched, state = Watched(training_batches(TRAINING)), fresh(TRAINING)
    Loop(TRAINING, CPU, 0).fit(state, watched, VALIDATION)
    assert watched.asked == [1, 2, 3, 4]


def test_a_time_budget_shortens_the_run_and_its_schedule() -> None:
    settings = training(epochs=100, max_minutes=0.5 / 60)
    state = fresh(settings)
    Loop(settings, CPU, 0).fit(state, Watched(training_batches(settings), 0.02), VALIDATION)
    assert 1 <= len(state.history) < 10
    assert state.epochs == len(state.history)


def test_saving_an_epoch_counts_towards_the_time_budget() -> None:
    settings = training(epochs=100, max_minutes=1 / 60)
    state = fresh(settings)
    batches = training_batches(settings)
    Loop(settings, CPU, 0).fit(state, batches, VALIDATION, lambda state: time.sleep(0.2))
    assert len(state.history) <= 6


@examples(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(1, 200), st.integers(1, 40))
def test_at_a_steady_pace_epochs_fill_the_budget_and_the_rate_ends_near_zero(
    seconds: int, budget: int, asked: int
) -> None:
    settings = training(epochs=asked, max_minutes=(budget + 0.5) / 60)
    loop, state = Loop(settings, CPU, 0), fresh(settings)
    while len(state.history) < state.epochs:
        state.history.append(row(len(state.history) + 1, seconds=seconds))
        state.epochs = loop.epochs_that_fit(state)
    done = len(state.history)
    assert done == min(asked, max(1, budget // seconds))
    last_step = optim.learning_rate(settings, (done - 0.01) / state.epochs)
    assert last_step < 0.012 * settings.lr  # 0.01 of an epoch is left


@examples(deadline=None, max_examples=50)
@given(st.integers(10, 100), st.integers(0, 20), st.floats(2, 40))
def test_one_slow_epoch_costs_only_its_own_time(budget: int, held_up: int, times: float) -> None:
    settings = training(epochs=200, max_minutes=budget / 60)
    loop, state = Loop(settings, CPU, 0), fresh(settings)
    while len(state.history) < state.epochs:
        number = len(state.history) + 1
        seconds = times if number == held_up + 1 else 1.0
        state.history.append(row(number, seconds=seconds))
        state.epochs = loop.epochs_that_fit(state)
    spent = sum(one["seconds"] for one in state.history)
    assert spent <= max(budget, times + held_up)
    assert spent > budget - 1 or times > budget / 2  # so slow that no other epoch shows the pace


def test_the_time_left_follows_the_sides_of_the_images_to_come() -> None:
    settings = training(epochs=4, growing=0.5)
    state = fresh(settings)
    state.history = [{**row(1, seconds=3.0), "side": 4}]
    cost = partial(progressive_of(state, settings).cost, fixed=FIXED)
    expected = 3.0 * (cost(6) + 2 * cost(8)) / cost(4)
    assert seconds_left(state, settings, 4) == pytest.approx(expected)
    assert seconds_left(state, settings, 1) == 0


@examples(deadline=None, max_examples=50)
@given(st.floats(0, 0.9), st.floats(0, 0.9), st.integers(2, 60), st.integers(1, 200))
def test_the_time_limit_holds_whatever_smaller_images_cost(
    fixed: float, growing: float, budget: int, asked: int
) -> None:
    settings = training(epochs=asked, growing=growing, max_minutes=budget / 60)
    loop, state = Loop(settings, CPU, 0), fresh(settings)
    while len(state.history) < state.epochs:
        number = len(state.history) + 1
        side = progressive_of(state, settings).side(number, state.epochs)
        seconds = fixed + (1 - fixed) * (side / 8) ** 2
        state.history.append({**row(number, seconds=seconds), "side": side})
        state.epochs = loop.epochs_that_fit(state)
    assert sum(one["seconds"] for one in state.history) <= budget + 1e-6


@examples(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.integers(2, 60), st.floats(0, 0.9))
def test_the_time_budget_holds_while_images_grow(budget: int, asked: int, growing: float) -> None:
    settings = training(epochs=asked, growing=growing, max_minutes=budget / 60)
    loop, state, spent = Loop(settings, CPU, 0), fresh(settings), 0.0
    while len(state.history) < state.epochs:
        number = len(state.history) + 1
        side = progressive_of(state, settings).side(number, state.epochs)
        state.history.append({**row(number, seconds=side**2 / 64), "side": side})
        state.epochs = loop.epochs_that_fit(state)
    spent = sum(row["seconds"] for row in state.history)
    assert spent <= budget
    assert len(state.history) == asked or spent >= budget - 1 - 1e-6  # at most an epoch unspent


def test_divergence_is_reported_with_the_epoch_and_what_to_lower() -> None:
    settings = training(optimizer="sgd", lr=1e30, warmup=0.0)
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) in epoch 1$"):
        trained(settings)


@examples(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_class_weights_average_one_per_image_and_make_classes_equal(counts: list[int]) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    weights = class_weights(labels, len(counts))
    assert weights[labels].mean().item() == pytest.approx(1, rel=1e-5)
    totals = weights * torch.tensor(counts)
    assert totals.tolist() == pytest.approx([totals[0].item()] * len(counts), rel=1e-5)


def test_a_class_without_images_has_a_finite_weight() -> None:
    assert class_weights(torch.tensor([0, 0, 2]), 4).isfinite().all()


def test_class_weights_shift_predictions_to_the_heavy_class() -> None:
    def predictions(weights: Tensor) -> Tensor:
        settings = training(epochs=4, lr=0.05)
        state = fresh(settings)
        loop = Loop(settings, CPU, 0, class_weights=weights)
        loop.fit(state, training_batches(settings), VALIDATION)
        return state.network.eval()(VALIDATION.images).argmax(dim=1)

    assert (predictions(torch.tensor([1.0, 0.0, 0.0])) == 0).all()
    assert (predictions(torch.tensor([0.0, 1.0, 0.0])) == 1).all()


def test_label_smoothing_lowers_the_confidence() -> None:
    def confidence(smoothing: float) -> float:
        state = trained(training(epochs=40, lr=0.02, label_smoothing=smoothing))
        return state.network.eval()(VALIDATION.images).softmax(dim=1).amax(dim=1).mean().item()

    assert confidence(0.0) > 0.95
    # A smoothing of 0.6 over three classes makes the right one's target 0.4 + 0.6 / 3.
    assert confidence(0.6) < 0.8


def test_an_epoch_tells_the_temperature_that_undoes_label_smoothing() -> None:
    def last(smoothing: float) -> Epoch:
        return trained(training(epochs=40, lr=0.02, label_smoothing=smoothing)).history[-1]

    assert last(0.6)["val_accuracy"] > 0.9
    assert last(0.6)["temperature"] < 0.7 * last(0.0)["temperature"]


def test_both_labels_of_mixed_images_are_learned() -> None:
    settings = training(cutmix=1.0, label_smoothing=0.0)
    state, loop = fresh(settings), Loop(settings, CPU, 0)
    images, labels = colours(16)
    for _ in range(60):
        torch.manual_seed(7)  # the same dropout and the same squares in each step
        loop.cutmix_generator.manual_seed(7)
        loop.step(state, images, labels, 0.01)
    torch.manual_seed(7)
    squares = draw_squares(16, 1.0, torch.Generator().manual_seed(7))
    mixed, parts = cutmix(images, squares)
    others = labels.roll(1)
    shares = state.network(mixed).softmax(dim=1)
    differ = labels != others
    pasted = shares[differ, others[differ]]
    assert (pasted - parts[differ]).abs().mean() < 0.1
    assert (shares[differ, labels[differ]] + pasted).mean() > 0.8


def test_the_gradient_is_clipped() -> None:
    settings = training(optimizer="sgd", lr=1.0, warmup=0.0, weight_decay=0.0, clip=1e-3)
    state = fresh(settings)
    before = [parameter.detach().clone() for parameter in state.network.parameters()]
    Loop(settings, CPU, 0).step(state, *colours(16), 1.0)
    after = state.network.parameters()
    moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
    # At a rate of 1, Nesterov's first step is 1.9 times the gradient.
    assert moved.norm().item() == pytest.approx(1.9e-3, rel=0.01)


def test_bfloat16_is_used_if_it_is_requested() -> None:
    seen: list[torch.dtype] = []
    for precision in ("float32", "bfloat16"):
        settings = training(epochs=1, precision=precision)
        state = fresh(settings)
        state.network.register_forward_hook(lambda _, __, logits: seen.append(logits.dtype))
        loop = Loop(settings, CPU, 0)
        loop.step(state, *colours(16), 0.01)
        loss = loop.validate(state.network, VALIDATION).loss
        assert math.isfinite(loss)
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2
