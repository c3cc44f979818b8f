"""Ray Train: the loop on every worker; checkpoints; resume."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.train
import ray.train.torch
import torch
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer
from torch import nn

from cnn import checkpoint, network, optim, prepared
from cnn.batches import ALONE, Batches, EvaluationBatches, Share, TrainingBatches
from cnn.bundle import Card, as_batch
from cnn.cluster.resources import Plan
from cnn.cluster.streaming import StreamedEvaluationBatches, StreamedTrainingBatches
from cnn.config import TrainConfig
from cnn.console import TABLE_HEAD, Console, epoch_line
from cnn.errors import Mendable
from cnn.loop import DivergedError, Epoch, Loop, State, class_weights
from cnn.manifest import Split
from cnn.prepared import Prepared

# A worker or a node may be lost this often before the run gives up; each loss costs at most the
# epoch under way.
MAX_FAILURES = 3

Outcome = TypeVar("Outcome")

Splits = tuple[Split, ...]


@dataclass(frozen=True)
class Trained:
    """What training leaves: the best epoch's checkpoint folder, and all epochs."""

    best: Path
    history: list[Epoch]


def fit(
    settings: TrainConfig,
    dataset: Prepared,
    out: Path,
    plan: Plan,
    console: Console,
    splits: Splits = ("train",),
) -> Trained:
    """Train on `dataset`, keeping checkpoints below `out`; goes on from those already there.

    Where the validation images are among the training `splits`, nothing tells which epoch is the
    best, and the last is taken for it.
    """
    progress = Progress.remote()  # type: ignore[attr-defined]
    running = in_background(trainer(settings, dataset, out, plan, progress, splits).fit)
    show(progress, running, console)
    result = running.result()
    history = history_of(result)
    kept = result.best_checkpoints or []
    best, _ = max(kept, key=lambda pair: pair[1][score(splits)])
    return Trained(Path(best.path), history)


def score(splits: Splits) -> str:
    """The figure by which an epoch is the best."""
    return "epoch" if "validation" in splits else "val_accuracy"


def trainer(
    settings: TrainConfig,
    dataset: Prepared,
    out: Path,
    plan: Plan,
    progress: Any,
    splits: Splits = ("train",),
    callbacks: Sequence[UserCallback] = (),
) -> TorchTrainer:
    """A training run of Ray's, with checkpoints in `out`/checkpoints."""
    return TorchTrainer(
        work,  # type: ignore[arg-type]  # Ray's types forbid a result, its controller takes it
        train_loop_config={
            "settings": settings.model_dump(mode="json"),
            "prepared": str(dataset.folder),
            "progress": progress,
            "splits": splits,
        },
        scaling_config=ScalingConfig(num_workers=plan.workers, use_gpu=plan.gpu),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=str(out.resolve()),
            failure_config=FailureConfig(
                max_failures=MAX_FAILURES,
                controller_failure_limit=3,  # type: ignore[call-arg]
            ),
            # The best is kept by score, the last because training goes on from it.
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=score(splits)
            ),
            callbacks=list(callbacks),  # type: ignore[arg-type]  # typed as V1's
        ),
    )


def history_of(result: Result) -> list[Epoch]:
    """The epochs of an ended run; Mendable where its loss diverged."""
    outcome: list[Epoch] | str = result.return_value  # type: ignore[attr-defined]
    if isinstance(outcome, str):
        raise Mendable(outcome)
    return outcome


def work(task: dict[str, Any]) -> list[Epoch] | str:
    """What every worker runs: build, load the last checkpoint if there is one, train.

    Returns the history, or what is to be told the user: that the loss diverged is no fault of a
    worker, and to raise it would make Ray try again.
    """
    context = ray.train.get_context()
    # Ray gives a worker one thread, whatever the machine has.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    settings = TrainConfig.model_validate(task["settings"])
    dataset = Prepared.open(Path(task["prepared"]))
    share = Share(context.get_world_rank(), context.get_world_size())
    state = start(settings, dataset, ray.train.torch.get_device(), ray.train.torch.prepare_model)
    resume(state)
    ticker = Ticker(task["progress"]) if share.rank == 0 else ignore
    reporter = Reporter(settings, dataset, share, task["progress"])
    try:
        learn(settings, dataset, state, reporter, share, ticker, tuple(task["splits"]))
    except DivergedError as error:
        return str(error)
    return state.history


def learn(
    settings: TrainConfig,
    dataset: Prepared,
    state: State,
    on_epoch_end: Callable[[State], None],
    share: Share = ALONE,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
    splits: Splits = ("train",),
) -> None:
    """Train this worker's share, from where `state` stands to its end."""
    device = next(state.network.parameters()).device
    train, validation = split_batches(settings, dataset, share, device, splits)
    loop = Loop(
        settings.training,
        device,
        settings.seed,
        share,
        class_weights=loss_weights(settings, dataset, device),
        on_step=on_step,
    )
    loop.fit(state, train, validation, on_epoch_end)


def start(
    settings: TrainConfig,
    dataset: Prepared,
    device: torch.device,
    parallelise: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> State:
    """A network and an optimizer that have seen nothing yet, the same on every worker."""
    torch.manual_seed(settings.seed)
    size, classes = dataset.card.image_size, len(dataset.classes)
    plain = network.build(settings.network, size, classes).to(device)
    return State(
        network=plain,
        parallel=parallelise(plain),
        optimizer=optim.optimizer(plain, settings.training),
        epochs=settings.training.epochs,
    )


def resume(state: State) -> None:
    """Go to the run's last checkpoint, if it has one."""
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as folder:
            checkpoint.load(Path(folder), state)


def split_rows(table: pa.Table, *splits: str) -> pa.Table:
    """The rows of one split, or of several."""
    return table.filter(pc.is_in(table["split"], value_set=pa.array(splits)))


def split_batches(
    settings: TrainConfig,
    dataset: Prepared,
    share: Share,
    device: torch.device,
    splits: Splits,
) -> tuple[Batches, Batches]:
    """Training and validation batches, from memory where they fit, else streamed."""
    table = dataset.split(settings.seed)
    train, validation = split_rows(table, *splits), split_rows(table, "validation")
    options: dict[str, Any] = {
        "batch_size": settings.training.batch_size,
        "augmentation": settings.augmentation,
        "seed": settings.seed,
        "share": share,
        "balanced": settings.training.balance == "sampling",
    }
    held = train.num_rows + validation.num_rows
    if not settings.resources.hold(held, dataset.card.image_size):
        return (
            StreamedTrainingBatches(dataset, train, **options),
            StreamedEvaluationBatches(dataset, validation, share),
        )
    return (
        TrainingBatches(*held_images(dataset.folder, settings.seed, splits, device), **options),
        EvaluationBatches(
            *held_images(dataset.folder, settings.seed, ("validation",), device), share
        ),
    )


@lru_cache(maxsize=2)  # the two splits stay while one process trains one trial after the other
def held_images(
    folder: Path, seed: int, splits: Splits, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of these splits on the training device: a GPU then augments them itself."""
    dataset = Prepared.open(folder)
    images, labels = dataset.load(split_rows(dataset.split(seed), *splits))
    return as_batch(images).to(device), torch.from_numpy(labels).to(device)


def loss_weights(
    settings: TrainConfig, dataset: Prepared, device: torch.device
) -> torch.Tensor | None:
    """A weight per class, where the loss is to be balanced."""
    if settings.training.balance != "loss":
        return None
    train = split_rows(dataset.split(settings.seed), "train")
    labels = torch.from_numpy(prepared.labels(train, dataset.classes))
    return class_weights(labels, len(dataset.classes)).to(device)


@dataclass(frozen=True)
class Reporter:
    """Called at the end of each epoch on every worker: rank 0 saves, all report."""

    settings: TrainConfig
    dataset: Prepared
    share: Share
    progress: Any

    def __call__(self, state: State) -> None:
        row = state.history[-1]
        if self.share.rank != 0:
            ray.train.report(dict(row))
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), state, card(self.settings, self.dataset, row))
            ray.train.report(
                {**row, "epochs": state.epochs},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=f"epoch-{row['epoch']:04d}",
            )
        self.progress.epoch.remote(row, state.epochs)


def card(settings: TrainConfig, dataset: Prepared, row: Epoch) -> Card:
    """The card of the bundle that an epoch leaves."""
    return Card(
        classes=dataset.classes,
        image_size=dataset.card.image_size,
        fit=dataset.card.fit,
        network=settings.network,
        flip=settings.augmentation.flip and settings.training.test_time_flip,
        trained={"seed": settings.seed, **row},
    )


@ray.remote(num_cpus=0)
class Progress:
    """Where rank 0 leaves word of its progress, and the driver picks it up.

    An actor, because workers may be on other machines than the console.
    """

    def __init__(self) -> None:
        self.epochs: list[tuple[Epoch, int]] = []
        self.step = (0, 0)

    def epoch(self, row: Epoch, epochs: int) -> None:
        self.epochs.append((row, epochs))

    def tick(self, step: int, steps: int) -> None:
        self.step = (step, steps)

    def take(self) -> tuple[list[tuple[Epoch, int]], tuple[int, int]]:
        """The epochs ended since last asked, and the step under way."""
        ended, self.epochs = self.epochs, []
        return ended, self.step


class Ticker:
    """Tells the driver of steps, a few times a second: a message per step would slow training."""

    def __init__(self, progress: Any, seconds: float = 0.3) -> None:
        self.progress, self.seconds, self.last = progress, seconds, 0.0

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self.last >= self.seconds:
            self.progress.tick.remote(step, steps)
            self.last = now


def ignore(step: int, steps: int) -> None:
    """For ranks whose progress nobody asks about."""


def in_background(function: Callable[[], Outcome]) -> Future[Outcome]:
    """Call `function` in a thread of its own.

    Ray Train would take over Ctrl-C in the main thread, and end the process with 1.
    """
    running: Future[Outcome] = Future()

    def call() -> None:
        try:
            running.set_result(function())
        except BaseException as error:
            running.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return running


def show(progress: Any, running: Future[Result], console: Console) -> None:
    """Print the table of epochs and move the bar until training ends."""
    console.say(TABLE_HEAD)
    with console.bar("epoch") as advance:
        last = False
        while not last:
            last = bool(wait([running], timeout=0.3).done)
            ended, (step, steps) = ray.get(progress.take.remote())
            for row, epochs in ended:
                console.say(epoch_line(row, epochs))
            advance(step, steps)
