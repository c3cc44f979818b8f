"""The training loop: batches in, a trained network and its history out; it knows nothing of Ray."""

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from cnn import optim
from cnn.augment import cutmix, draw_squares, mixed_labels
from cnn.config import Training
from cnn.network import scale_of
from cnn.training import calibration, progressive
from cnn.training.batches import ALONE, Batch, Batches, Share
from cnn.training.cuda_graph import Graphed
from cnn.training.descent import Descent
from cnn.training.history import Epoch
from cnn.training.precision import autocast
from cnn.training.progressive import ProgressiveResizing
from cnn.training.seeds import Draw, seed_of

# Last epochs whose median pace predicts the next ones: the first is slow, any may be delayed.
PACE = 5


@dataclass(frozen=True)
class Measured:
    """What validation finds: mean loss, accuracy, and the temperature that suits the confidence."""

    loss: float
    accuracy: float
    temperature: float


UNMEASURED = Measured(math.nan, math.nan, math.nan)


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


@dataclass
class State:
    """Everything training needs to resume; a checkpoint is this, saved.

    `parallel` is what training calls: the network, or its wrapper that averages gradients.
    `descent` updates the weights: of this worker alone, or of several that share them.
    """

    network: nn.Module
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    history: list[Epoch] = field(default_factory=list)
    descent: Descent = field(default_factory=Descent)

    @property
    def best(self) -> Epoch:
        """The epoch with the highest validation accuracy, the first of equals.

        Patience counts from it: an epoch that only equals an earlier one is no progress. The model
        is of the last of equals, see `cnn.training.checkpoint.best`.
        """
        return max(self.history, key=lambda row: row["val_accuracy"])

    def state_dict(self) -> dict[str, Any]:
        """Everything except the network, as plain tensors, numbers and text."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.epochs,
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        # Rates and flags come from these settings and this device, not from the saved ones.
        groups = self.optimizer.state_dict()["param_groups"]
        moments = saved["optimizer"]["state"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.epochs, self.history = saved["epochs"], saved["history"]


@dataclass(frozen=True)
class Sums:
    """Totals over images: added over batches and workers, divided once at the end."""

    totals: Tensor  # float64 (3,): loss, correct, images

    @classmethod
    def zero(cls, device: torch.device) -> "Sums":
        # Kept on the device: reading them back at each step would stall a GPU's queue.
        return cls(torch.zeros(3, dtype=torch.float64, device=device))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        correct = (logits.argmax(dim=1) == labels).sum()
        self.totals[:2].add_(torch.stack([loss, correct]))
        self.totals[2].add_(len(labels))

    def reduce(self) -> tuple[float, float, int]:
        """Mean loss, accuracy and images over all workers."""
        if distributed.is_initialized():
            distributed.all_reduce(self.totals)
        loss, correct, images = self.totals.tolist()
        return loss / images, correct / images, int(images)


@dataclass(frozen=True)
class Loop:
    """How to train: the same for all epochs of a run.

    cutmix_generator: draws CutMix's squares, seeded per epoch. With the global generator, they
    would depend on dropout, which draws from it too on a CPU, and not on a GPU.
    graphed: the update, captured for the current image side and the state in training.
    """

    settings: Training
    device: torch.device
    seed: int
    share: Share = ALONE
    class_weights: Tensor | None = None
    on_step: Callable[[int, int], None] = lambda step, steps: None
    cutmix_generator: torch.Generator = field(init=False, default_factory=torch.Generator)
    graphed: dict[int, Graphed] = field(init=False, default_factory=dict)

    def fit(
        self,
        state: State,
        train: Batches,
        validation: Batches | None,
        on_epoch_end: Callable[[State], None] = lambda state: None,
    ) -> None:
        """Train from the current epoch of `state` to the last, or until patience runs out."""
        before = 0.0  # seconds spent on saving the last epoch, counted in the next one
        try:
            while len(state.history) < state.epochs and not self.out_of_patience(state):
                epoch = self.run_epoch(state, train, validation)
                state.descent.gather(state.optimizer)
                epoch["seconds"] += before
                state.history.append(epoch)
                state.epochs = self.epochs_that_fit(state)
                ended = time.perf_counter()
                on_epoch_end(state)
                before = time.perf_counter() - ended
        finally:
            self.graphed.clear()  # it holds the state and its memory on the GPU

    def run_epoch(self, state: State, train: Batches, validation: Batches | None) -> Epoch:
        """Train and validate once; without validation batches, train only."""
        number = len(state.history) + 1
        # Dropout draws from the global generator, CutMix from its own. Both are seeded per epoch:
        # a resumed run draws what an uninterrupted one would have drawn.
        now = self.seed, number, self.share.rank
        torch.manual_seed(seed_of(Draw.DROPOUT, *now))
        self.cutmix_generator.manual_seed(seed_of(Draw.CUTMIX, *now))
        side = progressive_of(state, self.settings).side(number, state.epochs)
        scale_of(state.network).resize_to(side)
        started = time.perf_counter()
        batches = Waited(train.epoch(number))
        train_loss, train_accuracy, images = self.train_epoch(state, batches, train.steps).reduce()
        trained = time.perf_counter()
        if not math.isfinite(train_loss):
            raise DivergedError(f"the loss became {train_loss} in epoch {number}")
        share_statistics(state.network)
        measured = UNMEASURED
        if validation is not None:
            measured = self.validate(state.network, validation)
        return Epoch(
            epoch=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=measured.loss,
            val_accuracy=measured.accuracy,
            temperature=measured.temperature,
            side=side,
            lr=optim.learning_rate(self.settings, progress(state, train.steps - 1, train.steps)),
            seconds=time.perf_counter() - started,
            images_per_second=images / (trained - started),
            data_wait=batches.seconds / (trained - started) if train.streamed else 0.0,
        )

    def train_epoch(self, state: State, batches: Iterable[Batch], steps: int) -> Sums:
        """One pass over the training batches."""
        sums = Sums.zero(self.device)
        state.parallel.train()
        for step, (images, labels) in enumerate(batches):
            rate = optim.learning_rate(self.settings, progress(state, step, steps))
            images, labels = to(images, self.device), to(labels, self.device)
            sums.add(self.step(state, images, labels, rate), labels)
            self.on_step(step + 1, steps)
        return sums

    def step(self, state: State, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """One step of the optimizer on one batch, at this learning rate; returns the logits.

        On a GPU the next step overwrites them.
        """
        optim.set_rate(state.optimizer, rate)
        squares = draw_squares(len(labels), self.settings.cutmix, self.cutmix_generator)
        return self.graphed_update(state)(images, labels, to(squares, self.device))

    def graphed_update(self, state: State) -> Graphed:
        """`update` as a CUDA graph, captured again when the image side changes."""
        side = scale_of(state.network).side
        if side not in self.graphed:
            self.graphed.clear()
            self.graphed[side] = Graphed(partial(self.update, state), self.device)
        return self.graphed[side]

    def update(self, state: State, images: Tensor, labels: Tensor, squares: Tensor) -> Tensor:
        """Forward, backward and one step of the optimizer; returns the logits."""
        state.optimizer.zero_grad(set_to_none=True)
        images, part = cutmix(images, squares)
        with autocast(self.device, self.settings.precision):
            logits = state.parallel(images)
        logits = logits.float()
        target = mixed_labels(labels, part, logits.shape[1])
        self.loss(logits, target).backward()  # type: ignore[no-untyped-call]
        state.descent.step(state.network, state.optimizer, self.settings.clip)
        answers: Tensor = logits.detach()
        return answers

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy, weighted and with smoothed labels, which a step minimises.

        target: the fraction of each class, `(B, classes)`. One loss of both labels of a mixed
        image launches half the kernels of a loss for each.
        """
        return functional.cross_entropy(
            logits,
            target,
            weight=self.class_weights,
            label_smoothing=self.settings.label_smoothing,
        )

    @torch.inference_mode()
    def validate(self, network: nn.Module, batches: Batches) -> Measured:
        """Loss, accuracy and temperature over the validation images of all workers, once each."""
        sums, tempered = Sums.zero(self.device), calibration.zero(self.device)
        network.eval()
        for images, labels in batches.epoch(0):
            with autocast(self.device, self.settings.precision):
                logits = network(to(images, self.device)).float()
            labels = to(labels, self.device)
            sums.add(logits, labels)
            tempered += calibration.losses(logits, labels)
        if distributed.is_initialized():
            distributed.all_reduce(tempered)
        loss, accuracy, count = sums.reduce()
        return Measured(loss, accuracy, calibration.best_temperature(tempered, count))

    def out_of_patience(self, state: State) -> bool:
        """Whether the last `patience` epochs had no better validation accuracy."""
        if self.settings.patience is None or not state.history:
            return False
        return len(state.history) - state.best["epoch"] >= self.settings.patience

    def epochs_that_fit(self, state: State) -> int:
        """How many of the requested epochs fit into the time budget, at the recent pace.

        The schedule follows this number, so the learning rate still ends at 0. Rank 0's clock
        decides for all: ranks that disagree would wait for each other for ever.
        """
        if self.settings.max_minutes is None:
            return state.epochs
        left = self.settings.max_minutes * 60 - sum(row["seconds"] for row in state.history)
        possible = range(len(state.history), self.settings.epochs + 1)
        # It grows with the epochs. Nothing fixed: no full epoch costs more than is expected of it.
        needs = partial(seconds_left, state, self.settings, fixed=0.0)
        fitting = possible[bisect_right(possible, max(0, left), key=needs) - 1]
        agreed = torch.tensor(fitting, device=self.device)
        if distributed.is_initialized():
            distributed.broadcast(agreed, src=0)
        return int(agreed)


class Waited:
    """An iterator of batches that counts the `seconds` spent waiting for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.seconds = batches, 0.0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.seconds += time.perf_counter() - asked


def progress(state: State, step: int, steps: int) -> float:
    """The fraction of training done, 0..1, at this step of `steps` in the current epoch."""
    return (len(state.history) + step / steps) / state.epochs


def progressive_of(state: State, settings: Training) -> ProgressiveResizing:
    """The progressive resizing of a run, limited to sides that its network takes."""
    scale = scale_of(state.network)
    return ProgressiveResizing(settings.growing, scale.image_size, scale.smallest)


def seconds_left(
    state: State, settings: Training, epochs: int, fixed: float = progressive.FIXED
) -> float:
    """Seconds from now to the end of `epochs`, at the recent pace.

    fixed: the fraction of an epoch's time that does not depend on the side of the images.
    """
    resizing, last = progressive_of(state, settings), state.history[-PACE:]
    pace = median(row["seconds"] / resizing.cost(row["side"], fixed) for row in last)
    return pace * resizing.left(len(state.history), epochs, fixed)


def share_statistics(network: nn.Module) -> None:
    """Give every worker rank 0's batch norm statistics: what is validated is what is saved."""
    if distributed.is_initialized():
        for buffer in network.buffers():
            distributed.broadcast(buffer, src=0)


def to(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; copied asynchronously if it is in pinned memory."""
    return tensor.to(device, non_blocking=True)
